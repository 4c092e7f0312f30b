//! `kip bench`: a load test of a URL in phases.

mod chart;
mod figures;
mod load;
mod page;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use kip_spec::{Problem, code};

use self::figures::PhaseFigures;
use self::load::Target;
use crate::arguments::{Bench, Load, Phase};
use crate::output::Output;
use crate::progress::interruptible;

/// Callers, if nothing is said.
const CALLERS: u32 = 8;

pub(crate) async fn run(options: &Bench, output: Output) -> anyhow::Result<()> {
    let target = target(options)?;
    let phases = match options.phases.as_slice() {
        [] => vec![Phase {
            name: "load".to_owned(),
            load: options.rate.map_or_else(|| Load::Callers(options.callers.unwrap_or(CALLERS)), Load::Rate),
            duration: options.duration,
            path: None,
        }],
        phases => phases.to_vec(),
    };
    let mut all = Vec::new();
    for phase in &phases {
        let own = Target { path: phase.path.clone().unwrap_or_else(|| target.path.clone()), ..target.clone() };
        let running = async { Ok(load::run(&own, phase).await) };
        let samples = interruptible(output, || "requests in flight are cancelled".to_owned(), running).await?;
        let figures = PhaseFigures::of(phase, &samples);
        output.remark(&format!("{}: {} requests, {:.1}/s", figures.name, figures.requests, figures.rate));
        all.push((figures, samples));
    }
    if let Some(file) = &options.html {
        let page = page::of(&options.url, &all);
        std::fs::write(file, page).map_err(|error| {
            Problem::new(code::COMMAND_FAILED, format!("{} cannot be written", file.display())).cause(error.to_string())
        })?;
        output.remark(&format!("wrote {}", file.display()));
    }
    if all.iter().all(|(figures, _)| figures.answers == 0) {
        let first = all.iter().find_map(|(figures, _)| figures.first_fault.clone()).unwrap_or_default();
        return Err(Problem::new(code::SERVER_UNREACHABLE, format!("no request of {} was answered", options.url))
            .cause(first)
            .hint("try one request: curl URL")
            .into());
    }
    let figures: Vec<&PhaseFigures> = all.iter().map(|(figures, _)| figures).collect();
    output.result(&figures, |figures| {
        let mut text = figures::table(figures);
        for (figures, samples) in &all {
            text.push_str(&chart::of(figures, samples));
        }
        text
    })
}

fn target(options: &Bench) -> anyhow::Result<Target> {
    let wrong = |message: String| Problem::new(code::COMMAND_INPUT, message);
    let rest = options.url.strip_prefix("http://").ok_or_else(|| {
        wrong(format!("`{}` is no URL that can be loaded", options.url)).hint("write http://HOST:PORT/PATH")
    })?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let authority = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
    let body = match options.data.as_deref().map(|data| (data, data.strip_prefix('@'))) {
        Some((_, Some(file))) => std::fs::read(file)
            .map_err(|error| wrong(format!("{file} cannot be read")).cause(error.to_string()))?
            .into(),
        Some((data, None)) => Bytes::from(data.to_owned()),
        None => Bytes::new(),
    };
    let mut headers = Vec::new();
    for header in &options.headers {
        let pair = header.split_once(':').and_then(|(name, value)| {
            Some((name.trim().parse::<HeaderName>().ok()?, HeaderValue::from_str(value.trim()).ok()?))
        });
        headers.push(pair.ok_or_else(|| wrong(format!("`{header}` is not a header")).hint("write `Name: value`"))?);
    }
    let usual = if options.data.is_some() { "POST" } else { "GET" };
    let method = options.method.as_deref().unwrap_or(usual);
    Ok(Target {
        authority,
        path: format!("/{path}"),
        method: method.parse().map_err(|_| wrong(format!("`{method}` is no method")))?,
        headers,
        body,
        timeout: options.timeout,
    })
}
