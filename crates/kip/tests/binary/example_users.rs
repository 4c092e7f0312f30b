//! The example of the README, by root and by an ordinary user.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::time::Duration;

use crate::guard::{STRANGER, is_root};
use crate::support::{kip, run_within};

/// The journey takes longer than one condition may, and the programs of tests are not optimised.
const JOURNEY: Duration = Duration::from_secs(180);

/// Runs the example by a server of its own, which belongs to this user; our own where none is given.
fn digits_by(user: Option<u32>) {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    let mut command = kip(&data);
    if let Some(user) = user {
        chown(&data, Some(user), Some(user)).unwrap();
        command.uid(user).gid(user);
    }
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/digits");
    let example = example.canonicalize().unwrap().display().to_string();
    command.args(["up", &example, "--check"]).env("HOME", &data).current_dir(folder.path());
    let checked = run_within(JOURNEY, &mut command);
    assert_eq!(checked.code, Some(0), "as {user:?}: {checked:?}");
}

#[test]
fn digits_runs_as_whoever_runs_the_tests() {
    digits_by(None);
}

#[test]
fn digits_runs_as_an_ordinary_user() {
    if !is_root() {
        println!("skipped: the test above is this one, where tests are run by an ordinary user");
        return;
    }
    digits_by(Some(STRANGER));
}
