//! Readiness by a program in the instance: it runs again and again until it ends with exit code 0.

use std::collections::BTreeMap;
use std::time::Duration;

use kip_engine::{Body, ExecError, ExecOrder, StartError, StartProblem};
use kip_spec::InstanceId;
use kip_spec::function::{FunctionSpec, ReadyProbe};

/// Between two runs: quick at first, then twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Bytes of its output that are shown if it never succeeds.
const SHOWN: usize = 400;

/// Waits until the program of a function's probe succeeds, for what is left of its start; `began` is when that was, boot time.
///
/// # Errors
/// It did not within the time, or cannot be run.
pub(crate) async fn by_program(
    body: &dyn Body,
    instance: InstanceId,
    spec: &FunctionSpec,
    began: u64,
) -> Result<(), StartError> {
    let ReadyProbe::Exec { argv } = &spec.ready else { return Ok(()) };
    let probing = spec.probes.ready.as_ready();
    let spent = Duration::from_millis(kip_host::clock::boot_millis().saturating_sub(began));
    let left = spec.timeouts.startup.to_std().saturating_sub(spent);
    let fail = |detail: String| StartError { problem: StartProblem::NeverReady, detail, last_lines: Vec::new() };
    let mut last = "it has not ended yet".to_owned();
    let trying = async {
        let (mut pause, mut number, mut successes) = (FIRST_PAUSE, 0u32, 0u32);
        loop {
            number += 1;
            match once(body, instance, argv, number).await {
                Ok(None) => {
                    successes += 1;
                    if successes >= probing.successes {
                        return Ok(());
                    }
                    continue;
                }
                Ok(Some(how)) => (last, successes) = (how, 0),
                // It is not there, and will not come.
                Err(error @ (ExecError::NoProgram(_) | ExecError::NotExecutable { .. })) => {
                    return Err(error.to_string());
                }
                Err(error) => last = error.to_string(),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    };
    let tried = tokio::time::timeout(left, trying).await;
    let name = argv.first().map_or("", String::as_str);
    match tried {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => Err(fail(format!("the program of its ready probe (probes.ready.exec) cannot be run: {why}"))),
        Err(_) => {
            let startup = spec.timeouts.startup;
            Err(fail(format!("its ready probe `{name}` (probes.ready.exec) did not succeed within {startup}: {last}")))
        }
    }
}

/// Runs it once. Gives how it failed, if it did.
async fn once(
    body: &dyn Body,
    instance: InstanceId,
    argv: &[String],
    number: u32,
) -> Result<Option<String>, ExecError> {
    let order = ExecOrder {
        session: format!("probe-{instance}-{number}"),
        argv: argv.to_vec(),
        env: BTreeMap::new(),
        directory: None,
        terminal: None,
        input: false,
    };
    let process = body.exec(instance, order).await?;
    let mut said = Vec::new();
    while let Ok(Some((_, piece))) = process.read().await {
        said.extend(piece.iter().take(SHOWN.saturating_sub(said.len())));
    }
    let exit = process.exit().await;
    process.end().await;
    if exit.code == Some(0) {
        return Ok(None);
    }
    let how = match (exit.code, exit.signal) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "it ended".to_owned(),
    };
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    Ok(Some(if said.is_empty() { how } else { format!("{how}: {said}") }))
}
