//! `kip simulate`: a trace of requests under several policies, by the code that decides in the server.

mod bill;
mod explain;
mod html;
mod input;
mod policies;
mod recorded;
mod report;
mod series;

use std::sync::Arc;
use std::thread;

use kip_sim::replay::trace::TraceError;
use kip_sim::replay::{Bounds, BoundsMeter, Outcome, Prices, Replay, Setup, TraceRequest};
use kip_spec::{Problem, code};

use crate::arguments::{Connection, Simulate};
use crate::client::Client;
use crate::output::Output;

use bill::Tariff;
use policies::Contestant;
use report::Report;

/// Requests that are handed from the reader to the replays at a time: few enough to be in memory twice.
const CHUNK: usize = 1 << 16;

/// What a contestant made of the trace; nothing for the bounds, which need no replay.
type Played = (Contestant, Option<Outcome>);

pub(crate) async fn run(connection: &Connection, options: &Simulate, output: Output) -> anyhow::Result<()> {
    if let Some(file) = &options.replay {
        return recorded::run(file, output);
    }
    let prices = match options.idle_price {
        None => Prices::default(),
        Some(asleep) if (0.0..=1.0).contains(&asleep) => Prices { asleep },
        Some(other) => {
            let problem = Problem::new(code::COMMAND_INPUT, format!("--idle-price {other} is not from 0 to 1"));
            return Err(problem.hint("the share of the price of an active instance, such as 0.238").into());
        }
    };
    if options.devices == Some(0) {
        let problem = Problem::new(code::COMMAND_INPUT, "--devices 0 leaves nothing to run on");
        return Err(problem.hint("give at least 1, or leave it out for unlimited devices").into());
    }
    let tariff = Tariff::of(options)?;
    let contestants = policies::contestants(&options.policies)?;
    let recorded = match options.last {
        Some(last) => {
            let client = Client::find(connection)?;
            Some(input::recorded(&client, last, options.of.as_deref(), output).await?)
        }
        None => None,
    };
    let times = input::times(options, recorded.as_ref())?;
    let setup = |policy: kip_fleet::Policy| Setup {
        policy: Arc::new(policy),
        times: times.clone(),
        from: options.warm_up.0,
        devices: options.devices,
        seed: options.seed,
        explain: options.explain.map(|at| at.0),
    };
    let mut contest: Vec<(Contestant, Option<Replay>)> = contestants
        .into_iter()
        .map(|contestant| {
            let replay = match &contestant {
                Contestant::Policy(_, policy) => Some(Replay::new(setup(*policy.clone()))),
                Contestant::Peak | Contestant::Oracle => None,
            };
            (contestant, replay)
        })
        .collect();
    let mut meter = BoundsMeter::new(&times, prices.asleep, options.warm_up.0);
    let mut source = input::open(options, recorded)?;
    let last = play(&mut source, &mut contest, &mut meter)?;
    let bounds = meter.bounds();
    if last.is_none() {
        return Err(input::wrong(&TraceError::Empty).into());
    }
    if last.is_none_or(|last| last < options.warm_up.0) {
        let message = "the trace ends before the warm-up is over";
        return Err(Problem::new(code::TRACE_INVALID, message).hint("shorten --warm-up").into());
    }
    let names = source.functions();
    let played = thread::scope(|scope| {
        let finish = |(contestant, replay): (Contestant, Option<Replay>)| {
            scope.spawn(move || (contestant, replay.map(Replay::finish)))
        };
        let running: Vec<_> = contest.into_iter().map(finish).collect();
        let ends = running.into_iter().map(|replay| replay.join());
        ends.collect::<Result<Vec<Played>, _>>().map_err(|_| anyhow::anyhow!("a replay panicked"))
    })?;
    written(options, &played, &bounds, (prices, &tariff))?;
    let report = Report::new(&source, &bounds, &played, (prices, &tariff), &names);
    output.result(&report, report::shown)
}

/// Hands all requests to the replays, a chunk at a time: the next one is read while one is replayed. Answers when the last request
/// came, if there was one.
fn play(
    source: &mut input::Source,
    contest: &mut [(Contestant, Option<Replay>)],
    meter: &mut BoundsMeter,
) -> anyhow::Result<Option<u64>> {
    let mut last = None;
    let mut chunk = next_chunk(source)?;
    while let Some(end) = chunk.last() {
        last = Some(end.at);
        let next = thread::scope(|scope| {
            for replay in contest.iter_mut().filter_map(|(_, replay)| replay.as_mut()) {
                let chunk = &chunk;
                scope.spawn(move || chunk.iter().for_each(|request| replay.request(*request)));
            }
            chunk.iter().for_each(|request| meter.request(*request));
            next_chunk(source)
        });
        chunk = next?;
    }
    Ok(last)
}

fn next_chunk(source: &mut input::Source) -> anyhow::Result<Vec<TraceRequest>> {
    let mut chunk = Vec::with_capacity(CHUNK);
    for request in source.by_ref().take(CHUNK) {
        chunk.push(request.map_err(|error| input::wrong(&error))?);
    }
    Ok(chunk)
}

/// The files that were asked for.
fn written(options: &Simulate, played: &[Played], bounds: &Bounds, prices: (Prices, &Tariff)) -> anyhow::Result<()> {
    let write = |path: &std::path::Path, text: String| {
        std::fs::write(path, text).map_err(|error| {
            Problem::new(code::COMMAND_INPUT, format!("{} cannot be written", path.display())).cause(error.to_string())
        })
    };
    if let Some(path) = &options.series {
        write(path, series::csv(played))?;
    }
    if let Some(path) = &options.html {
        write(path, html::page(played, bounds, prices))?;
    }
    Ok(())
}
