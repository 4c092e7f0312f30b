//! `kip rollout`: an alias moves to another version in steps.

use std::time::Duration;

use kip_spec::{Millis, Problem, code};
use kip_wire::{RolloutAction, RolloutInfo, RolloutOrder, RolloutSettings, RolloutTraffic};

use crate::arguments::{Rollout, RolloutOf, RolloutStart};
use crate::client::{Client, segment};
use crate::output::Output;

/// Between two looks at a rollout that is followed.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

pub(crate) async fn run(client: &Client, command: &Rollout, output: Output) -> anyhow::Result<()> {
    match command {
        Rollout::Start(start) => {
            let info: RolloutInfo = client.comparing(start.if_match).put(&path(&start.which), &settings(start)).await?;
            match start.wait {
                true => follow(client, &start.which, output).await,
                false => output.result(&info, status),
            }
        }
        Rollout::Status { which, wait: true } => follow(client, which, output).await,
        Rollout::Status { which, wait: false } => {
            let info: RolloutInfo = client.get(&path(which)).await?;
            output.result(&info, status)
        }
        Rollout::Pause(which) => order(client, which, RolloutAction::Pause, output).await,
        Rollout::Resume(which) => order(client, which, RolloutAction::Resume, output).await,
        Rollout::Promote(which) => order(client, which, RolloutAction::Promote, output).await,
        Rollout::Abort(which) => order(client, which, RolloutAction::Abort, output).await,
    }
}

fn path(RolloutOf { function, alias }: &RolloutOf) -> String {
    format!("/api/v1/functions/{}/aliases/{}/rollout", segment(function), segment(alias))
}

fn settings(start: &RolloutStart) -> RolloutSettings {
    RolloutSettings {
        to: start.to.clone(),
        steps: Some(start.steps.clone()),
        every_ms: Some(start.every.0),
        keep_ms: Some(start.keep.0),
        least_requests: Some(start.least),
        max_errors_per_mille: Some(start.max_errors),
        max_slower_percent: Some(start.max_slower),
        max_failed_starts: Some(start.max_failed_starts),
        park_old: start.park_old,
    }
}

async fn order(client: &Client, which: &RolloutOf, action: RolloutAction, output: Output) -> anyhow::Result<()> {
    let info: RolloutInfo = client.post(&path(which), &RolloutOrder { action }).await?;
    output.result(&info, status)
}

/// Shows each change until the rollout ends.
async fn follow(client: &Client, which: &RolloutOf, output: Output) -> anyhow::Result<()> {
    let mut shown = String::new();
    loop {
        let info: RolloutInfo = client.get(&path(which)).await?;
        let line = short(&info);
        if line != shown {
            output.remark(&line);
            shown = line;
        }
        match info.stage.as_str() {
            "completed" => return output.result(&info, status),
            "aborted" => {
                let why = info.why.unwrap_or_default();
                let message =
                    format!("the rollout of {}@{} to {} was aborted: {why}", info.function, info.alias, info.to);
                let hint = format!("`kip why {}` shows each step", info.function);
                return Err(Problem::new(code::ROLLOUT_ABORTED, message).hint(hint).into());
            }
            _ => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

/// The rollout without what changes with each request.
fn short(info: &RolloutInfo) -> String {
    let paused = if info.paused { ", paused" } else { "" };
    let room = if info.old_is_parked {
        ", the old version is set aside"
    } else if info.waits_for_room {
        ", an instance waits for room"
    } else {
        ""
    };
    format!("{}@{}: {} has {} %, {}{paused}{room}", info.function, info.alias, info.to, info.percent, info.stage)
}

fn status(info: &RolloutInfo) -> String {
    let traffic = |of: &RolloutTraffic| {
        let p99 = of.p99_ms.map(|millis| format!(", 99th percentile {} at most", Millis(millis))).unwrap_or_default();
        format!("{} requests, {} failed{p99}", of.requests, of.failed)
    };
    let mut text = format!(
        "rollout      {}@{} from {} to {}\nstage        {}{}\nshare        {} % (step {} of {}: {})\nready        {} instances of {}{}\nnew          {}\nold          {}\n",
        info.function,
        info.alias,
        info.before,
        info.to,
        info.stage,
        if info.paused { ", paused" } else { "" },
        info.percent,
        info.step,
        info.steps.len(),
        info.steps.join(", "),
        info.ready,
        info.to,
        if info.waits_for_room { ", and one waits for room" } else { "" },
        traffic(&info.new),
        traffic(&info.old),
    );
    if info.old_is_parked {
        text.push_str("aside        the old version sleeps or ends; requests wait for the new one\n");
    }
    if let Some(why) = &info.why {
        text.push_str(&format!("why          {why}\n"));
    }
    text
}
