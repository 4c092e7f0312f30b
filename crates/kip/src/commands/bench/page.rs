//! All phases as one HTML file that needs nothing else.

use super::chart;
use super::figures::PhaseFigures;
use super::load::Sample;
use crate::output::micros;

/// Height of a chart in pixels.
const HEIGHT: f64 = 160.0;
/// Width of a column in pixels.
const COLUMN: usize = 12;

/// The page.
pub(crate) fn of(url: &str, all: &[(PhaseFigures, Vec<Sample>)]) -> String {
    let sections: String = all.iter().map(|(figures, samples)| section(figures, samples)).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>kip bench</title>\n<style>\nbody {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }}\ntable {{ border-collapse: collapse }}\ntd, th {{ padding: .2rem .8rem .2rem 0; text-align: right }}\nsvg {{ background: #8881; display: block }}\nrect {{ fill: #37b }}\n@media (prefers-color-scheme: dark) {{ body {{ background: #111; color: #ddd }} rect {{ fill: #6ae }} }}\n</style></head>\n<body><h1>{}</h1>\n{sections}</body></html>\n",
        escaped(url)
    )
}

fn section(figures: &PhaseFigures, samples: &[Sample]) -> String {
    let cells = [
        ("requests", figures.requests.to_string()),
        ("good/s", format!("{:.1}", figures.rate)),
        ("failed", (figures.errors + figures.without_answer).to_string()),
        ("p50", micros(figures.p50)),
        ("p90", micros(figures.p90)),
        ("p99", micros(figures.p99)),
        ("max", micros(figures.max)),
        ("warm", figures.warm.to_string()),
        ("woken", figures.woken.to_string()),
        ("cold", figures.cold.to_string()),
    ];
    let head: String = cells.iter().map(|(name, _)| format!("<th>{name}</th>")).collect();
    let row: String = cells.iter().map(|(_, value)| format!("<td>{value}</td>")).collect();
    format!(
        "<h2>{}: {}</h2>\n<table><tr>{head}</tr><tr>{row}</tr></table>\n<p>The highest latency of each slice of {:.1} s, on a logarithmic scale; latencies count from the {}.</p>\n{}\n",
        escaped(&figures.name),
        escaped(&figures.load),
        figures.seconds,
        if figures.from == "schedule" { "time when a request was due" } else { "time when a request was sent" },
        bars(figures, samples)
    )
}

fn bars(figures: &PhaseFigures, samples: &[Sample]) -> String {
    let slices = chart::slices(samples);
    let log = |value: u64| f64::from(u32::try_from(value.max(1)).unwrap_or(u32::MAX)).log10();
    let top = log(figures.max).max(1.0);
    let bar = |(number, slice): (usize, &Option<u64>)| {
        let value = (*slice)?;
        let height = HEIGHT * log(value) / top;
        let (x, y) = (number * COLUMN, HEIGHT - height);
        let width = COLUMN - 2;
        Some(format!(
            "<rect x=\"{x}\" y=\"{y:.1}\" width=\"{width}\" height=\"{height:.1}\"><title>{}</title></rect>",
            micros(value)
        ))
    };
    let bars: String = slices.iter().enumerate().filter_map(bar).collect();
    format!("<svg width=\"{}\" height=\"{HEIGHT}\" role=\"img\">{bars}</svg>", chart::COLUMNS * COLUMN)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
