//! PNG and JPEG files, with their size looked at before anything is decompressed.

use std::io::Cursor;

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::Raster;
use crate::error::Error;

/// A picture format we read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Png,
    Jpeg,
}

impl Format {
    /// The format that the first bytes show, whatever the sender calls it.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            Some(Self::Png)
        } else if bytes.starts_with(&[0xff, 0xd8, 0xff]) {
            Some(Self::Jpeg)
        } else {
            None
        }
    }
}

/// Reads a picture of at most `max_pixels`. Transparent parts are laid on white.
pub(crate) fn decode(bytes: &[u8], format: Format, max_pixels: u64) -> Result<Raster, Error> {
    match format {
        Format::Png => decode_png(bytes, max_pixels),
        Format::Jpeg => decode_jpeg(bytes, max_pixels),
    }
}

fn unreadable(format: &str, reason: &dyn std::fmt::Display) -> Error {
    Error::unreadable(format!("the {format} picture cannot be read: {reason}"))
}

fn check_size(width: u64, height: u64, max_pixels: u64) -> Result<(), Error> {
    if width.saturating_mul(height) > max_pixels {
        let text = format!("the picture has {width} x {height} pixels; the limit is {max_pixels} in all");
        return Err(Error::TooLarge(text));
    }
    if width == 0 || height == 0 {
        return Err(Error::unreadable("the picture is empty"));
    }
    Ok(())
}

fn decode_png(bytes: &[u8], max_pixels: u64) -> Result<Raster, Error> {
    let failed = |error: png::DecodingError| unreadable("PNG", &error);
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let header = decoder.read_header_info().map_err(failed)?;
    check_size(header.width.into(), header.height.into(), max_pixels)?;
    let mut reader = decoder.read_info().map_err(failed)?;
    let size = reader.output_buffer_size().ok_or_else(|| Error::TooLarge("the picture is too large".to_owned()))?;
    let mut data = vec![0; size];
    let frame = reader.next_frame(&mut data).map_err(failed)?;
    data.truncate(frame.buffer_size());
    let channels = match frame.color_type {
        png::ColorType::Grayscale => 1,
        png::ColorType::GrayscaleAlpha => 2,
        png::ColorType::Rgba => 4,
        png::ColorType::Rgb | png::ColorType::Indexed => 3,
    };
    let (width, height) = (frame.width as usize, frame.height as usize);
    Ok(raster(&data, width, height, channels))
}

fn decode_jpeg(bytes: &[u8], max_pixels: u64) -> Result<Raster, Error> {
    let options = DecoderOptions::default()
        .set_max_width(1 << 16)
        .set_max_height(1 << 16)
        .jpeg_set_max_scans(32)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|error| unreadable("JPEG", &error))?;
    let (width, height) = decoder.dimensions().ok_or_else(|| Error::unreadable("the JPEG picture has no size"))?;
    check_size(width as u64, height as u64, max_pixels)?;
    let data = decoder.decode().map_err(|error| unreadable("JPEG", &error))?;
    let points = width * height;
    Ok(raster(&data, width, height, data.len().checked_div(points).unwrap_or(3).max(1)))
}

/// From bytes with 1 to 4 channels; even numbers of channels end in transparency.
fn raster(data: &[u8], width: usize, height: usize, channels: usize) -> Raster {
    let colours = if channels >= 3 { 3 } else { 1 };
    let mut values = Vec::with_capacity(width * height * colours);
    for point in data.chunks_exact(channels) {
        let opacity = if channels.is_multiple_of(2) { f32::from(point[channels - 1]) / 255.0 } else { 1.0 };
        values.extend(point[..colours].iter().map(|value| f32::from(*value) / 255.0 * opacity + 1.0 - opacity));
    }
    Raster { width, height, channels: colours, values }
}
