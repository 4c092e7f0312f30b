//! Qualification: passes where all is well, and finds out what is not.

use kip_freezer::Error;
use kip_freezer::qualify::{Task, qualify};

use crate::support::{DEVICE, Host, SHORT, patient};

async fn with(host: &Host, knobs: &str, limits: kip_freezer::tree::Limits) -> Result<Option<String>, Error> {
    host.knobs(&format!("capacity = 536870912\n{knobs}"));
    let desk = host.desk().await;
    let task = Task { probe: host.probe_options(), limits };
    let mut said = Vec::new();
    let result = qualify(&desk, DEVICE, &task, |line| said.push(line.to_owned())).await?;
    assert!(result.failed.is_some() || said.iter().any(|line| line.contains("cycle 3 of 3")), "{said:?} {result:?}");
    assert_eq!(result.driver, "580.159.00-standin");
    Ok(result.failed)
}

#[tokio::test]
async fn a_device_that_works_passes_and_is_left_empty() {
    let host = Host::new();
    assert_eq!(with(&host, "", patient()).await.unwrap(), None);
    let report = host.desk().await.report().await.unwrap();
    assert_eq!((report.devices[0].memory.used, report.devices[0].holders.len()), (0, 0));
}

#[tokio::test]
async fn what_does_not_work_is_found_out() {
    for (knobs, said) in [
        ("inject.cuCheckpointProcessRestore = corrupt,1,1", "content has changed"),
        ("inject.cuCheckpointProcessCheckpoint = leak,2,1", "NVML still shows"),
        ("inject.cuCheckpointProcessCheckpoint = 801", "NOT_SUPPORTED"),
        ("inject.cuCheckpointProcessLock = 800", "NOT_PERMITTED"),
        ("inject.cuCheckpointProcessRestore = 304", "OPERATING_SYSTEM"),
        ("inject.cuCheckpointProcessUnlock = 304", "OPERATING_SYSTEM"),
        ("inject.cuCheckpointProcessCheckpoint = 304,3", "could not be emptied"),
        ("inject.cuCtxCreate_v2 = 46", "DEVICE_UNAVAILABLE"),
        ("inject.cuCheckpointProcessRestore = die", "ended in the midst of"),
        ("inject.nvmlDeviceGetComputeRunningProcesses_v3 = 999,4", "verified"),
    ] {
        let host = Host::new();
        let failed = match with(&host, knobs, patient()).await {
            Ok(failed) => failed.unwrap_or_else(|| panic!("it passed: {knobs}")),
            Err(error) => error.problem().to_string(),
        };
        assert!(failed.contains(said), "{knobs}: {failed}");
    }
}

#[tokio::test]
async fn a_driver_that_hangs_does_not_pass() {
    let host = Host::new();
    let mut limits = patient();
    limits.restore = SHORT;
    let failed = with(&host, "inject.cuCheckpointProcessRestore = hang", limits).await.unwrap().unwrap();
    assert!(failed.contains("did not answer"), "{failed}");
}

#[tokio::test]
async fn what_cannot_be_tried_is_an_error() {
    let host = Host::new();
    let error = with(&host, "capacity = 1048576", patient()).await.unwrap_err();
    assert!(matches!(error, Error::NoRoom { .. }), "{error}");
    let error = with(&host, "mig = 1", patient()).await.unwrap_err();
    assert!(error.to_string().contains("MIG"), "{error}");
}

/// Also when it did not pass: on some drivers the kill of a process that is alive and was restored hangs the host.
#[tokio::test]
async fn what_was_restored_is_emptied_before_its_kill_whatever_came_of_it() {
    let host = Host::new();
    // The content is lost at the first wake. That freezes once; the second checkpoint is the one before the kill.
    let knobs = "inject.cuCheckpointProcessRestore = corrupt\ninject.cuCheckpointProcessCheckpoint = 0,9";
    let failed = with(&host, knobs, patient()).await.unwrap().unwrap();
    assert!(failed.contains("content has changed"), "{failed}");
    assert_eq!(host.calls("cuCheckpointProcessCheckpoint"), 2);
}
