//! The digits model end to end: as accurate here as where it was trained, and with pictures that people draw.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use common::{digits, json, options, start};
use http::Method;
use serde_json::Value;

fn held_back() -> Vec<(Vec<u8>, String)> {
    let text = std::fs::read_to_string(digits().join("held-back.jsonl")).unwrap();
    text.lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["content_type"], "image/png");
            (
                BASE64_STANDARD.decode(line["body"].as_str().unwrap()).unwrap(),
                line["truth"].as_str().unwrap().to_owned(),
            )
        })
        .collect()
}

/// The figures that `train.py` wrote: held-back pictures, and those read rightly by ONNX Runtime in Python.
fn figures() -> (usize, usize) {
    let card = std::fs::read_to_string(digits().join("CARD.md")).unwrap();
    let line = card.lines().find(|line| line.starts_with("| held back |")).unwrap();
    let numbers: Vec<usize> = line.split('|').filter_map(|cell| cell.trim().parse().ok()).collect();
    (numbers[0], numbers[1])
}

#[test]
fn the_server_reads_the_held_back_pictures_as_well_as_python_does() {
    let server = start(options(&digits().join("model"))).unwrap();
    let pictures = held_back();
    let correct = pictures
        .iter()
        .filter(|(picture, truth)| {
            let answer = server.call(Method::POST, "/predict", &[("content-type", "image/png")], picture.clone());
            assert_eq!(answer.status, 200, "{:?}", answer.body);
            json(&answer)["label"] == **truth
        })
        .count();
    assert_eq!((pictures.len(), correct), figures());
    assert!(correct * 100 >= pictures.len() * 95, "{correct} of {}", pictures.len());
}

#[test]
fn an_answer_has_label_scores_model_and_runtime() {
    let server = start(options(&digits().join("model"))).unwrap();
    for digit in ["2", "4", "7"] {
        let picture = std::fs::read(digits().join(format!("samples/{digit}.png"))).unwrap();
        let answer = json(&server.call(Method::POST, "/predict", &[("content-type", "image/png")], picture));
        assert_eq!(answer["label"], digit, "{answer}");
        assert_eq!((&answer["model"], &answer["runtime"]), (&"digits".into(), &"tract".into()));
        let scores: Vec<f64> =
            answer["scores"].as_object().unwrap().values().map(|score| score.as_f64().unwrap()).collect();
        assert_eq!(scores.len(), 10);
        assert!((scores.iter().sum::<f64>() - 1.0).abs() < 1e-4, "softmax adds up to one");
    }
    let photo = include_bytes!("seven.jpg").as_slice();
    let answer = json(&server.call(Method::POST, "/predict", &[("content-type", "image/jpeg")], photo));
    assert_eq!(answer["label"], "7", "a JPEG: {answer}");
}

#[test]
fn drawings_of_any_stroke_size_and_ink_are_read() {
    let server = start(options(&digits().join("model"))).unwrap();
    let (mut asked, mut correct, mut wrong) = (0, 0, Vec::new());
    for (digit, strokes) in drawings() {
        for (side, stroke) in [(448, 34.0), (448, 14.0), (280, 40.0), (900, 70.0), (64, 6.0)] {
            for (light, shift) in [(false, 0.0), (true, 0.06)] {
                let picture = png_of(side, stroke, shift, light, &strokes);
                let answer = json(&server.call(Method::POST, "/predict", &[("content-type", "image/png")], picture));
                asked += 1;
                if answer["label"] == digit {
                    correct += 1;
                } else {
                    wrong.push(format!("{digit} as {} ({side}, {stroke})", answer["label"]));
                }
            }
        }
    }
    assert!(correct * 100 >= asked * 95, "{correct} of {asked}; wrong: {wrong:?}");
}

/// A line through points, from 0 to 1 across the picture.
type Stroke = Vec<(f32, f32)>;

/// Digits as strokes through points, drawn as people do, in a square from 0 to 1.
fn drawings() -> Vec<(&'static str, Vec<Stroke>)> {
    let arc = |x: f32, y: f32, rx: f32, ry: f32, from: f32, to: f32| -> Stroke {
        (0..=24)
            .map(|step| {
                let angle = (from + (to - from) * step as f32 / 24.0).to_radians();
                (x + rx * angle.cos(), y + ry * angle.sin())
            })
            .collect()
    };
    let after = |mut first: Vec<(f32, f32)>, then: &[(f32, f32)]| {
        first.extend_from_slice(then);
        first
    };
    vec![
        ("0", vec![arc(0.5, 0.5, 0.19, 0.3, -90.0, 270.0)]),
        ("1", vec![vec![(0.42, 0.33), (0.52, 0.2), (0.52, 0.8)]]),
        ("2", vec![after(arc(0.5, 0.36, 0.17, 0.16, -170.0, 40.0), &[(0.34, 0.78), (0.7, 0.78)])]),
        ("3", vec![arc(0.48, 0.35, 0.16, 0.15, -150.0, 90.0), arc(0.48, 0.65, 0.19, 0.16, -90.0, 150.0)]),
        ("4", vec![vec![(0.52, 0.2), (0.32, 0.56), (0.7, 0.56)], vec![(0.6, 0.4), (0.56, 0.82)]]),
        ("5", vec![vec![(0.66, 0.2), (0.38, 0.2), (0.36, 0.46)], arc(0.48, 0.61, 0.18, 0.18, -130.0, 140.0)]),
        ("6", vec![after(vec![(0.6, 0.18), (0.44, 0.36), (0.36, 0.56)], &arc(0.5, 0.63, 0.15, 0.16, 190.0, 560.0))]),
        ("7", vec![vec![(0.32, 0.22), (0.68, 0.22), (0.46, 0.82)]]),
        ("8", vec![arc(0.5, 0.35, 0.14, 0.14, 90.0, 450.0), arc(0.5, 0.65, 0.17, 0.16, -90.0, 270.0)]),
        ("9", vec![arc(0.48, 0.36, 0.16, 0.15, 0.0, 360.0), vec![(0.64, 0.36), (0.62, 0.6), (0.52, 0.82)]]),
    ]
}

fn png_of(side: u32, stroke: f32, shift: f32, light: bool, strokes: &[Stroke]) -> Vec<u8> {
    let scale = side as f32;
    let near = |x: f32, y: f32| {
        strokes.iter().flat_map(|points| points.windows(2)).any(|pair| {
            let (ax, ay) = ((pair[0].0 + shift) * scale, pair[0].1 * scale);
            let (bx, by) = ((pair[1].0 + shift) * scale, pair[1].1 * scale);
            let along =
                ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / ((bx - ax).powi(2) + (by - ay).powi(2)).max(1e-6);
            let along = along.clamp(0.0, 1.0);
            (x - ax - along * (bx - ax)).hypot(y - ay - along * (by - ay)) <= stroke / 2.0
        })
    };
    let data: Vec<u8> = (0..side * side)
        .map(|place| if near((place % side) as f32, (place / side) as f32) == light { 240 } else { 20 })
        .collect();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side, side);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header().unwrap().write_image_data(&data).unwrap();
    bytes
}
