//! Pictures of every kind that people send: other sizes, inks, grounds and strokes, and files that are traps.

use super::*;
use crate::card::{Card, PerChannel};

fn digits() -> PictureInput {
    let text = include_str!("../../../../examples/digits/model/model.json");
    serde_json::from_str::<Card>(text).unwrap().picture.unwrap()
}

fn plain(width: usize, height: usize, channels: usize) -> PictureInput {
    let text = format!(r#"{{"width": {width}, "height": {height}, "channels": {channels}}}"#);
    serde_json::from_str(&text).unwrap()
}

fn png_of(width: u32, height: u32, colour: png::ColorType, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(colour);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header().unwrap().write_image_data(data).unwrap();
    bytes
}

/// A stroke of a width along points, dark on light, in a square picture.
fn drawn(side: usize, stroke: f32, points: &[(f32, f32)]) -> Raster {
    let mut raster = Raster::filled(side, side, 1, 0.95);
    let scale = side as f32;
    for y in 0..side {
        for x in 0..side {
            let (px, py) = (x as f32 + 0.5, y as f32 + 0.5);
            let near = points.windows(2).any(|pair| {
                let ((ax, ay), (bx, by)) = (pair[0], pair[1]);
                let (ax, ay, bx, by) = (ax * scale, ay * scale, bx * scale, by * scale);
                let along =
                    ((px - ax) * (bx - ax) + (py - ay) * (by - ay)) / ((bx - ax).powi(2) + (by - ay).powi(2)).max(1e-6);
                let along = along.clamp(0.0, 1.0);
                let (dx, dy) = (px - ax - along * (bx - ax), py - ay - along * (by - ay));
                (dx * dx + dy * dy).sqrt() <= stroke / 2.0
            });
            if near {
                raster.values[y * side + x] = 0.1;
            }
        }
    }
    raster
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.elements::<f32>().collect()
}

#[test]
fn a_picture_of_the_models_size_is_taken_as_it_is() {
    let grey: Vec<u8> = (0..64).map(|index| if index % 3 == 0 { 255 } else { 16 }).collect();
    let raster = decode(&png_of(8, 8, png::ColorType::Grayscale, &grey), Format::Png, 1 << 20).unwrap();
    let tensor = prepare(raster, &digits(), Datatype::Fp32).unwrap();
    assert_eq!(tensor.shape(), [1, 64]);
    assert_eq!(values(&tensor)[..3], [16.0, 1.0, 1.0], "light ink, in 16 steps");
}

#[test]
fn thin_and_thick_large_and_small_drawings_come_out_alike() {
    // A seven, somewhere in the picture.
    let seven = [(0.35, 0.3), (0.6, 0.3), (0.45, 0.75)];
    let expected = values(&prepare(drawn(280, 24.0, &seven), &digits(), Datatype::Fp32).unwrap());
    let ink: f32 = expected.iter().sum::<f32>() / (16.0 * 64.0);
    assert!((0.27..0.34).contains(&ink), "the ink is brought to the usual share, not {ink}");
    assert!(expected.iter().all(|value| value.fract() == 0.0 && (0.0..=16.0).contains(value)));
    for (side, stroke) in [(280, 10.0), (280, 36.0), (1200, 90.0), (64, 6.0), (40, 4.0)] {
        let moved = seven.map(|(x, y)| (x - 0.1, y + 0.05));
        for points in [seven, moved] {
            let found = values(&prepare(drawn(side, stroke, &points), &digits(), Datatype::Fp32).unwrap());
            let difference: f32 = found.iter().zip(&expected).map(|(one, other)| (one - other).abs()).sum();
            assert!(difference / 64.0 < 2.0, "side {side}, stroke {stroke}: differs by {difference} of 1024");
        }
        let light = drawn(side, stroke, &seven).inverted();
        let found = values(&prepare(light, &digits(), Datatype::Fp32).unwrap());
        let difference: f32 = found.iter().zip(&expected).map(|(one, other)| (one - other).abs()).sum();
        assert!(difference / 64.0 < 2.0, "light ink, side {side}: differs by {difference}");
    }
}

#[test]
fn dirt_is_not_part_of_the_sign_and_a_blank_picture_is_refused() {
    let one = [(0.5, 0.2), (0.5, 0.8)];
    let clean = values(&prepare(drawn(200, 20.0, &one), &digits(), Datatype::Fp32).unwrap());
    let mut dirty = drawn(200, 20.0, &one);
    (0..4).for_each(|x| dirty.values[200 * 3 + 3 + x] = 0.0);
    assert_eq!(values(&prepare(dirty, &digits(), Datatype::Fp32).unwrap()), clean);
    let blank = prepare(Raster::filled(100, 100, 1, 0.9), &digits(), Datatype::Fp32).unwrap_err();
    assert!(blank.to_string().contains("nothing drawn"), "{blank}");
}

#[test]
fn layouts_scales_and_channels() {
    let colour = Raster { width: 2, height: 1, channels: 3, values: vec![0.0, 0.5, 1.0, 1.0, 0.5, 0.0] };
    let mut form = plain(2, 1, 3);
    form.scale = PerChannel::Each(vec![1.0, 2.0, 4.0]);
    form.offset = PerChannel::All(1.0);
    let tensor = prepare(colour.clone(), &form, Datatype::Fp32).unwrap();
    assert_eq!(tensor.shape(), [1, 3, 1, 2]);
    assert_eq!(values(&tensor), [1.0, 2.0, 2.0, 2.0, 5.0, 1.0]);
    form.layout = Layout::Hwc;
    let tensor = prepare(colour.clone(), &form, Datatype::Fp32).unwrap();
    assert_eq!(tensor.shape(), [1, 1, 2, 3]);
    assert_eq!(values(&tensor), [1.0, 2.0, 5.0, 2.0, 2.0, 1.0]);
    let grey = values(&prepare(colour, &plain(2, 1, 1), Datatype::Fp32).unwrap());
    assert!((grey[0] - (0.587 * 0.5 + 0.114)).abs() < 1e-6);
    let mut bytes = plain(1, 1, 1);
    bytes.scale = PerChannel::All(255.0);
    let white = prepare(Raster::filled(1, 1, 1, 1.0), &bytes, Datatype::Uint8).unwrap();
    assert_eq!(white.elements::<u8>().collect::<Vec<_>>(), [255]);
}

#[test]
fn fitting() {
    let wide = Raster { width: 4, height: 2, channels: 1, values: vec![1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0] };
    let fitted = |fit: FitMethod| {
        let mut form = plain(2, 2, 1);
        form.fit = fit;
        values(&prepare(wide.clone(), &form, Datatype::Fp32).unwrap())
    };
    assert_eq!(fitted(FitMethod::Stretch), [0.5, 0.5, 0.5, 0.5]);
    assert_eq!(fitted(FitMethod::Cover), [0.0, 0.0, 0.0, 0.0]);
    assert_eq!(fitted(FitMethod::Contain), [0.5, 0.5, 0.0, 0.0]);
}

#[test]
fn transparent_parts_are_white() {
    let bytes = png_of(1, 1, png::ColorType::Rgba, &[0, 0, 0, 0]);
    assert_eq!(decode(&bytes, Format::Png, 10).unwrap().values, [1.0, 1.0, 1.0]);
}

#[test]
fn sizes_are_checked_before_anything_is_decompressed() {
    // 60,000 x 60,000 in a file of a few dozen bytes: only the head is right, which is all that may be read.
    let mut bomb = png_of(1, 1, png::ColorType::Grayscale, &[0]);
    bomb[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    let mut crc = 0xffff_ffffu32;
    for byte in &bomb[12..29] {
        crc ^= u32::from(*byte);
        (0..8).for_each(|_| crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 });
    }
    bomb[29..33].copy_from_slice(&(!crc).to_be_bytes());
    let refusal = decode(&bomb, Format::Png, 16 << 20).unwrap_err();
    assert!(matches!(refusal, Error::TooLarge(_)), "{refusal}");
    // The same for the head of a JPEG file.
    let jpeg = [
        &[0xff, 0xd8, 0xff, 0xc0, 0, 11, 8, 0xea, 0x60, 0xea, 0x60, 1, 1, 0x11, 0][..],
        &[0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0],
    ]
    .concat();
    let refusal = decode(&jpeg, Format::Jpeg, 16 << 20).unwrap_err();
    assert!(matches!(refusal, Error::TooLarge(_)), "{refusal}");
}

#[test]
fn broken_files_are_refused_and_nothing_panics() {
    let whole = png_of(8, 8, png::ColorType::Rgb, &[7; 192]);
    for length in 0..whole.len() {
        let _ = decode(&whole[..length], Format::Png, 1 << 20).map(|_| ());
    }
    assert!(decode(&whole[..whole.len() / 2], Format::Png, 1 << 20).is_err());
    let jpeg = include_bytes!("../../tests/seven.jpg");
    assert_eq!(decode(jpeg, Format::Jpeg, 1 << 20).unwrap().width, 120);
    for length in 0..jpeg.len().min(700) {
        let _ = decode(&jpeg[..length], Format::Jpeg, 1 << 20).map(|_| ());
    }
}
