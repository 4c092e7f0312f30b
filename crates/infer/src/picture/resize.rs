//! Scaling by area: each new point is the mean of what it covers, so thin lines fade but do not vanish.

use super::Raster;

/// Both sides scaled on their own.
pub(super) fn stretch(raster: &Raster, (width, height): (usize, usize)) -> Raster {
    let across = spans(raster.width, width);
    let down = spans(raster.height, height);
    let channels = raster.channels;
    // First the rows, then the columns: the work grows with the sides, not with their product.
    let mut rows = Raster::filled(width, raster.height, channels, 0.0);
    for y in 0..raster.height {
        for (x, span) in across.iter().enumerate() {
            for (source, share) in span {
                for channel in 0..channels {
                    let value = raster.values[(y * raster.width + source) * channels + channel];
                    rows.values[(y * width + x) * channels + channel] += value * share;
                }
            }
        }
    }
    let mut result = Raster::filled(width, height, channels, 0.0);
    for (y, span) in down.iter().enumerate() {
        for (source, share) in span {
            for place in 0..width * channels {
                result.values[y * width * channels + place] += rows.values[source * width * channels + place] * share;
            }
        }
    }
    result
}

/// Scaled to fill; what juts out is cut off evenly.
pub(super) fn cover(raster: &Raster, (width, height): (usize, usize)) -> Raster {
    let wide = raster.width * height > raster.height * width;
    let (cut_width, cut_height) = if wide {
        ((raster.height * width / height).max(1), raster.height)
    } else {
        (raster.width, (raster.width * height / width).max(1))
    };
    let (left, top) = ((raster.width - cut_width) / 2, (raster.height - cut_height) / 2);
    stretch(&cut(raster, (left, top), (cut_width, cut_height)), (width, height))
}

/// Scaled to fit; the rest is filled with black, which is the ground wherever ink is light.
pub(super) fn contain(raster: &Raster, (width, height): (usize, usize)) -> Raster {
    let wide = raster.width * height > raster.height * width;
    let (inner_width, inner_height) = if wide {
        (width, (raster.height * width / raster.width).max(1))
    } else {
        ((raster.width * height / raster.height).max(1), height)
    };
    let inner = stretch(raster, (inner_width, inner_height));
    let mut result = Raster::filled(width, height, raster.channels, 0.0);
    let (left, top) = ((width - inner_width) / 2, (height - inner_height) / 2);
    let length = inner_width * raster.channels;
    for y in 0..inner_height {
        let start = ((top + y) * width + left) * raster.channels;
        result.values[start..start + length].copy_from_slice(&inner.values[y * length..(y + 1) * length]);
    }
    result
}

/// The part of a picture from (left, top) on.
pub(super) fn cut(raster: &Raster, (left, top): (usize, usize), (width, height): (usize, usize)) -> Raster {
    let channels = raster.channels;
    let values = (top..top + height)
        .flat_map(|y| {
            let start = (y * raster.width + left) * channels;
            raster.values[start..start + width * channels].iter().copied()
        })
        .collect();
    Raster { width, height, channels, values }
}

/// For each new point the old ones that it covers, with their shares, which add up to 1.
fn spans(old: usize, new: usize) -> Vec<Vec<(usize, f32)>> {
    let ratio = old as f64 / new as f64;
    (0..new)
        .map(|index| {
            let (start, end) = (index as f64 * ratio, (index + 1) as f64 * ratio);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the side of a picture")]
            let (first, last) = (start as usize, (end.ceil() as usize).min(old));
            (first..last)
                .filter_map(|source| {
                    let covered = (end.min((source + 1) as f64) - start.max(source as f64)) / ratio;
                    #[expect(clippy::cast_possible_truncation, reason = "a share needs no more precision")]
                    (covered > 0.0).then_some((source, covered as f32))
                })
                .collect()
        })
        .collect()
}
