//! A drawn sign, brought to the form of those that a model was trained on: parted from its ground, cut out, scaled to
//! the usual size, its stroke thinned or thickened to the usual width, and then counted in blocks.
//!
//! Stroke width matters most: data sets of hand-printed signs are normalised to a share of ink, and a thin line from a
//! mouse or a thick one from a marker is unlike anything the model has seen.

use super::{Raster, resize};
use crate::card::Glyph;
use crate::error::Error;

/// Pictures are worked on at no more than this many points a side.
const WORKING_SIDE: usize = 384;
/// Points a side of the field on which strokes are measured; enough for steps of a hundredth of its height.
const FIELD_SIDE: usize = 128;
/// A picture whose values differ by less has nothing on it.
const LEAST_CONTRAST: f32 = 0.12;
/// Patches with less than this share of the ink are dirt.
const LEAST_PATCH: f32 = 0.03;
/// How far strokes are thinned and thickened at most, in points of the field.
const THINNEST: i32 = -16;
const THICKEST: i32 = 24;

/// The sign of a grey picture with light ink, in a picture of the given size.
pub(super) fn normalise(raster: &Raster, size: (usize, usize), form: &Glyph) -> Result<Raster, Error> {
    let blank = || Error::Unreadable {
        message: "there is nothing drawn on the picture".to_owned(),
        hint: Some("draw one sign that stands out from its ground"),
    };
    let small = shrunk(raster);
    let mut ink = part_from_ground(&small).ok_or_else(blank)?;
    drop_dirt(&mut ink);
    let sign = cut_out(&ink).ok_or_else(blank)?;
    let grid = usize::from(form.grid);
    let bitmap = (size.0 * grid, size.1 * grid);
    let field = (bitmap.0 * FIELD_SIDE.div_ceil(bitmap.0), bitmap.1 * FIELD_SIDE.div_ceil(bitmap.1));
    let boxed = (share(field.0, form.width), share(field.1, form.height));
    let fitted = fit(&sign, boxed);
    let drawn = match form.cover {
        Some(cover) => with_cover(&fitted, boxed, field, cover).ok_or_else(blank)?,
        None => fitted,
    };
    let black = threshold(&resize::stretch(&centred(&drawn, field), bitmap), 0.5);
    Ok(resize::stretch(&black, size))
}

fn share(length: usize, share: f32) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share from 0 to 1 of a few hundred points"
    )]
    let part = (length as f32 * share).round() as usize;
    part.clamp(1, length)
}

fn shrunk(raster: &Raster) -> Raster {
    let longest = raster.width.max(raster.height);
    if longest <= WORKING_SIDE {
        return raster.clone();
    }
    let side = |length: usize| (length * WORKING_SIDE / longest).max(1);
    resize::stretch(raster, (side(raster.width), side(raster.height)))
}

/// Splits the values where that leaves the least variance on both sides (Otsu's method).
fn part_from_ground(raster: &Raster) -> Option<Raster> {
    const STEPS: usize = 256;
    let (least, most) =
        raster.values.iter().fold((f32::MAX, f32::MIN), |(least, most), value| (least.min(*value), most.max(*value)));
    if most - least < LEAST_CONTRAST {
        return None;
    }
    let mut counts = [0f64; STEPS];
    for value in &raster.values {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 255")]
        let step = ((value - least) / (most - least) * 255.0) as usize;
        counts[step.min(STEPS - 1)] += 1.0;
    }
    let weighted: Vec<f64> = counts.iter().enumerate().map(|(step, count)| step as f64 * count).collect();
    let (all, all_weighted) = (counts.iter().sum::<f64>(), weighted.iter().sum::<f64>());
    let (mut below, mut below_weighted) = (0.0, 0.0);
    let mut best = (0.0, 0.0f32);
    for step in 0..STEPS - 1 {
        below += counts[step];
        below_weighted += weighted[step];
        let above = all - below;
        if below == 0.0 || above == 0.0 {
            continue;
        }
        let difference = below_weighted / below - (all_weighted - below_weighted) / above;
        let between = below * above * difference * difference;
        if between > best.0 {
            let value = (step as f32 + 1.0) / 255.0;
            best = (between, value);
        }
    }
    Some(threshold(raster, least + best.1 * (most - least)))
}

fn threshold(raster: &Raster, at: f32) -> Raster {
    let values = raster.values.iter().map(|value| if *value >= at { 1.0 } else { 0.0 }).collect();
    Raster { values, ..*raster }
}

/// Removes patches that are too small to be part of the sign.
fn drop_dirt(ink: &mut Raster) {
    let mut patches: Vec<Vec<usize>> = Vec::new();
    let mut seen = vec![false; ink.values.len()];
    for start in 0..ink.values.len() {
        if seen[start] || ink.values[start] == 0.0 {
            continue;
        }
        let mut patch = vec![start];
        seen[start] = true;
        let mut next = 0;
        while let Some(&place) = patch.get(next) {
            next += 1;
            for neighbour in neighbours(place, ink.width, ink.height) {
                if !seen[neighbour] && ink.values[neighbour] > 0.0 {
                    seen[neighbour] = true;
                    patch.push(neighbour);
                }
            }
        }
        patches.push(patch);
    }
    let all: usize = patches.iter().map(Vec::len).sum();
    for patch in patches {
        if (patch.len() as f32) < all as f32 * LEAST_PATCH {
            patch.into_iter().for_each(|place| ink.values[place] = 0.0);
        }
    }
}

fn neighbours(place: usize, width: usize, height: usize) -> impl Iterator<Item = usize> {
    let (x, y) = (place % width, place / width);
    let rows = y.saturating_sub(1)..(y + 2).min(height);
    rows.flat_map(move |row| (x.saturating_sub(1)..(x + 2).min(width)).map(move |column| row * width + column))
        .filter(move |neighbour| *neighbour != place)
}

/// The part within the smallest box around the ink.
fn cut_out(ink: &Raster) -> Option<Raster> {
    let places = || ink.values.iter().enumerate().filter(|(_, value)| **value > 0.0).map(|(place, _)| place);
    let (top, bottom) = (places().next()? / ink.width, places().next_back()? / ink.width);
    let left = places().map(|place| place % ink.width).min()?;
    let right = places().map(|place| place % ink.width).max()?;
    Some(resize::cut(ink, (left, top), (right - left + 1, bottom - top + 1)))
}

/// Scaled to the height of the box. The width keeps its proportion, but is squeezed into the box.
fn fit(sign: &Raster, boxed: (usize, usize)) -> Raster {
    let width = (sign.width * boxed.1 / sign.height).clamp(1, boxed.0);
    threshold(&resize::stretch(sign, (width, boxed.1)), 0.5)
}

/// Thinned or thickened until its share of the field comes nearest to `cover`.
fn with_cover(sign: &Raster, boxed: (usize, usize), field: (usize, usize), cover: f32) -> Option<Raster> {
    let wanted = cover * (field.0 * field.1) as f32;
    let padding = THICKEST.unsigned_abs() as usize + 1;
    let padded = centred(sign, (sign.width + 2 * padding, sign.height + 2 * padding));
    let distances = signed_distances(&padded);
    let at = |step: i32| -> Option<(f32, Raster)> {
        let reach = step as f32;
        let values = distances.iter().map(|distance| if *distance <= reach { 1.0 } else { 0.0 }).collect();
        let fitted = fit(&cut_out(&Raster { values, ..padded })?, boxed);
        Some((fitted.values.iter().sum::<f32>() - wanted, fitted))
    };
    // The ink grows with the step: halve the range until the two steps around the wanted cover are left.
    let (mut thin, mut thick) = (THINNEST, THICKEST);
    let (mut below, mut above) = (at(thin), at(thick));
    while thick - thin > 1 {
        let middle = thin + (thick - thin) / 2;
        let tried = at(middle);
        if tried.as_ref().is_some_and(|(excess, _)| *excess >= 0.0) {
            (thick, above) = (middle, tried);
        } else {
            (thin, below) = (middle, tried);
        }
    }
    let candidates = below.into_iter().chain(above);
    candidates.min_by(|one, other| one.0.abs().total_cmp(&other.0.abs())).map(|(_, raster)| raster)
}

fn centred(sign: &Raster, (width, height): (usize, usize)) -> Raster {
    let mut result = Raster::filled(width, height, 1, 0.0);
    let (left, top) = ((width - sign.width) / 2, (height - sign.height) / 2);
    for y in 0..sign.height {
        let start = (top + y) * width + left;
        result.values[start..start + sign.width].copy_from_slice(&sign.values[y * sign.width..(y + 1) * sign.width]);
    }
    result
}

/// For each point how far it is from the edge of the ink: positive outside, 0 or less inside. Two passes over the
/// neighbours, which is exact to a few per cent.
fn signed_distances(ink: &Raster) -> Vec<f32> {
    let outside = distances(ink, |value| value > 0.0);
    let inside = distances(ink, |value| value == 0.0);
    outside.iter().zip(&inside).map(|(outside, inside)| if *outside > 0.0 { *outside } else { 1.0 - *inside }).collect()
}

fn distances(ink: &Raster, is_near: impl Fn(f32) -> bool) -> Vec<f32> {
    const FAR: f32 = 1e6;
    const DIAGONAL: f32 = std::f32::consts::SQRT_2;
    /// Those before a point in reading order; the second pass mirrors them.
    const BEFORE: [(isize, isize, f32); 4] = [(-1, 0, 1.0), (0, -1, 1.0), (-1, -1, DIAGONAL), (1, -1, DIAGONAL)];
    let (width, height) = (ink.width, ink.height);
    let mut found: Vec<f32> = ink.values.iter().map(|value| if is_near(*value) { 0.0 } else { FAR }).collect();
    let improve = |found: &mut [f32], x: usize, y: usize, direction: isize| {
        let mut least = found[y * width + x];
        for (across, down, step) in BEFORE {
            let column = x.wrapping_add_signed(across * direction);
            let row = y.wrapping_add_signed(down * direction);
            if column < width && row < height {
                least = least.min(found[row * width + column] + step);
            }
        }
        found[y * width + x] = least;
    };
    for y in 0..height {
        (0..width).for_each(|x| improve(&mut found, x, y, 1));
    }
    for y in (0..height).rev() {
        (0..width).rev().for_each(|x| improve(&mut found, x, y, -1));
    }
    found
}
