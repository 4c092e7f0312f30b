//! A page with charts: one file, without scripts and without anything from elsewhere.

use std::fmt::Write as _;

use kip_sim::replay::{Bounds, Outcome, Prices};

use super::Played;
use super::bill::Tariff;
use super::policies::Contestant;
use super::report::{Row, row};
use super::series::means;
use crate::output::millis;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 56.0;
const BELOW: f64 = 28.0;
/// Points of a chart at most; more would not be seen.
const POINTS: usize = 430;
const COLOURS: [&str; 8] = ["#1d6fb8", "#d1495b", "#2e8b57", "#8e5ea2", "#c77d0a", "#17808a", "#7a5c3e", "#555"];

const HEAD: &str = "<!doctype html>
<html lang=\"en\"><head><meta charset=\"utf-8\"><title>kip simulate</title><style>
body{font:14px/1.45 system-ui,sans-serif;margin:24px auto;max-width:900px;color:#1b1f24;background:#fff}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}td,th{padding:3px 10px;text-align:right}
td:first-child,th:first-child{text-align:left}tr:nth-child(even){background:#f5f7f9}h2{margin:28px 0 6px;font-size:16px}
svg{display:block}svg text{font:11px system-ui,sans-serif;fill:#444}.axis{stroke:#999;fill:none}
</style></head><body><h1>kip simulate</h1>
";

/// The whole page.
pub(super) fn page(played: &[Played], bounds: &Bounds, prices: (Prices, &Tariff)) -> String {
    let rows: Vec<Row> = played.iter().map(|played| row(played, bounds, prices, &[])).collect();
    let mut page = HEAD.to_owned();
    let _ = writeln!(
        page,
        "<p>{} requests in {}, at most {} at once.</p>",
        bounds.requests,
        millis(bounds.span),
        bounds.peak
    );
    page.push_str("<table><tr><th>policy<th>cost of peak<th>× oracle<th>p99 delay</tr>\n");
    for row in &rows {
        let (name, delay) = (escaped(&row.policy), millis(row.delay_p99_ms));
        let _ =
            writeln!(page, "<tr><td>{name}<td>{:.3}<td>{:.2}<td>{delay}</tr>", row.cost_of_peak, row.cost_of_oracle);
    }
    page.push_str("</table>\n<h2>Cost and delay</h2>\n");
    page.push_str(&frontier(&rows));
    page.push_str("<h2>Added delay</h2>\n");
    page.push_str(&delays(played));
    for (contestant, outcome) in played {
        if let (Contestant::Policy(name, _), Some(outcome)) = (contestant, outcome) {
            let _ = writeln!(page, "<h2>Instances of {}</h2>", escaped(name));
            page.push_str(&states(outcome));
        }
    }
    page.push_str("</body></html>\n");
    page
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A chart's frame with its largest values at both axes.
fn framed(inside: &str, right: &str, top: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {h}\" width=\"{WIDTH}\" height=\"{h}\" role=\"img\">\n<path class=\"axis\" d=\"M{LEFT} 8V{HEIGHT}H{WIDTH}\"/>\n<text x=\"4\" y=\"16\">{top}</text><text x=\"4\" y=\"{HEIGHT}\">0</text><text x=\"{x}\" y=\"{y}\" text-anchor=\"end\">{right}</text>\n{inside}</svg>\n",
        h = HEIGHT + BELOW,
        x = WIDTH - 4.0,
        y = HEIGHT + 16.0,
    )
}

/// From shares of both axes to points of the picture.
fn at(x: f64, y: f64) -> (f64, f64) {
    (LEFT + x.clamp(0.0, 1.0) * (WIDTH - LEFT - 8.0), HEIGHT - y.clamp(0.0, 1.0) * (HEIGHT - 12.0))
}

#[expect(clippy::cast_precision_loss, reason = "a picture")]
fn frontier(rows: &[Row]) -> String {
    let cost = rows.iter().map(|row| row.cost_of_oracle).fold(1.0, f64::max) * 1.08;
    let delay = rows.iter().map(|row| row.delay_p99_ms).max().unwrap_or(0).max(1) as f64 * 1.08;
    let mut inside = String::new();
    for (row, colour) in rows.iter().zip(COLOURS.iter().cycle()) {
        let (x, y) = at(row.delay_p99_ms as f64 / delay, row.cost_of_oracle / cost);
        let (anchor, shift) = if x > WIDTH * 0.7 { ("end", -8.0) } else { ("start", 8.0) };
        let _ = writeln!(
            inside,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            x + shift,
            y + 4.0,
            escaped(&row.policy)
        );
    }
    framed(&inside, &format!("p99 delay, up to {delay:.0} ms"), &format!("{cost:.1} ×"))
}

/// The share of requests that waited no longer, over the logarithm of the delay.
#[expect(clippy::cast_precision_loss, reason = "a picture")]
fn delays(played: &[Played]) -> String {
    let longest = played.iter().filter_map(|(_, outcome)| Some(outcome.as_ref()?.delays.max())).max().unwrap_or(0);
    let scale = (longest.max(10) as f64).ln();
    let mut inside = String::new();
    let lines = played.iter().filter_map(|(contestant, outcome)| match (contestant, outcome) {
        (Contestant::Policy(name, _), Some(outcome)) => Some((name, outcome)),
        _ => None,
    });
    for ((number, (name, outcome)), colour) in (0u32..).zip(lines).zip(COLOURS.iter().cycle()) {
        let mut path = String::new();
        let mut last = None;
        for (delay, share) in outcome.delays.distribution(POINTS) {
            let (x, y) = at((delay.max(1) as f64).ln() / scale, share);
            // A share holds until the next delay.
            let _ = match last {
                None => write!(path, "M{x:.1} {y:.1}"),
                Some(_) => write!(path, "H{x:.1}V{y:.1}"),
            };
            last = Some(y);
        }
        let y = 60.0 + f64::from(number) * 16.0;
        let x = WIDTH - 190.0;
        let _ = writeln!(
            inside,
            "<path d=\"{path}H{WIDTH}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/><text x=\"{x}\" y=\"{y}\" style=\"fill:{colour}\">{}</text>",
            escaped(name)
        );
    }
    framed(&inside, &format!("delay from 1 ms to {}, logarithmic", millis(longest)), "100 %")
}

/// Hot, starting and asleep instances on top of each other, and the demand as a line.
#[expect(clippy::cast_precision_loss, reason = "a picture")]
fn states(outcome: &Outcome) -> String {
    let intervals = &outcome.series.intervals;
    let step = intervals.len().div_ceil(POINTS).max(1);
    let points: Vec<[f64; 5]> = intervals
        .chunks(step)
        .map(|chunk| {
            let mut sums = [0.0; 5];
            for interval in chunk {
                let means = means(interval, outcome.series.length);
                sums.iter_mut().zip(means).for_each(|(sum, mean)| *sum += mean);
            }
            sums.map(|sum| sum / chunk.len() as f64)
        })
        .collect();
    let most = points.iter().map(|point| (point[0] + point[1] + point[2]).max(point[3] + point[4])).fold(1.0, f64::max);
    let last = points.len().saturating_sub(1).max(1) as f64;
    let line = |value: &dyn Fn(&[f64; 5]) -> f64| -> String {
        let mut path = String::new();
        for (index, point) in points.iter().enumerate() {
            let (x, y) = at(index as f64 / last, value(point) / most);
            let _ = write!(path, "{}{x:.1} {y:.1}", if index == 0 { "M" } else { "L" });
        }
        path
    };
    let (end, floor) = at(1.0, 0.0);
    let closed = format!("L{end:.1} {floor:.1}L{LEFT} {floor:.1}Z");
    type Area<'a> = (&'a str, &'a dyn Fn(&[f64; 5]) -> f64);
    let areas: [Area<'_>; 3] = [
        ("#c9d6e3", &|point| point[0] + point[1] + point[2]),
        ("#e9b44c", &|point| point[0] + point[1]),
        ("#1d6fb8", &|point| point[0]),
    ];
    let mut inside = String::new();
    for (colour, value) in areas {
        let _ = writeln!(inside, "<path d=\"{}{closed}\" fill=\"{colour}\"/>", line(value));
    }
    let demand = line(&|point| point[3] + point[4]);
    let _ = writeln!(inside, "<path d=\"{demand}\" fill=\"none\" stroke=\"#d1495b\" stroke-width=\"1.2\"/>");
    let legend = [("#1d6fb8", "hot"), ("#e9b44c", "starting"), ("#8aa1b8", "asleep"), ("#d1495b", "requests")];
    for ((colour, word), x) in legend.into_iter().zip([70.0, 110.0, 175.0, 235.0]) {
        let _ = writeln!(inside, "<text x=\"{x}\" y=\"{}\" style=\"fill:{colour}\">{word}</text>", HEIGHT + 16.0);
    }
    let span = outcome.series.length * intervals.len() as u64;
    framed(&inside, &millis(span), &format!("{most:.0}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kip_sim::replay::{InstanceTimes, Setup, TraceRequest, bounds, replay};

    use super::*;
    use crate::commands::simulate::policies::contestants;

    #[test]
    fn the_page_is_whole_and_names_are_escaped() {
        let requests: Vec<TraceRequest> =
            (0..50).map(|number| TraceRequest { at: number * 7_000, service: 2_000, function: 0 }).collect();
        let times = InstanceTimes::constant(10_000, 1_000);
        let bounds = bounds(requests.iter().copied(), &times, 0.25, 0);
        let names = ["a<b={idle: {pause: 1s}}".to_owned(), "oracle".to_owned()];
        let played: Vec<Played> = contestants(&names)
            .unwrap()
            .into_iter()
            .map(|contestant| {
                let outcome = match &contestant {
                    Contestant::Policy(_, policy) => {
                        let (policy, times) = (Arc::new((**policy).clone()), times.clone());
                        let setup = Setup { policy, times, from: 0, devices: None, seed: 1, explain: None };
                        Some(replay(requests.iter().copied(), setup))
                    }
                    _ => None,
                };
                (contestant, outcome)
            })
            .collect();
        let page = page(&played, &bounds, (Prices::default(), &Tariff::default()));
        assert!(page.contains("a&lt;b") && !page.contains("a<b") && !page.contains("<script"));
        assert!(!page.contains("NaN") && !page.contains("http"));
        assert_eq!(page.matches("<svg").count(), 3);
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    }
}
