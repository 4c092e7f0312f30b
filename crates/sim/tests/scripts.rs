//! The scripts and their transcripts. After a change that is meant: `cargo xtask sim --bless`, and read the difference.

use std::path::Path;

#[test]
fn transcripts_are_as_expected() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let mut played = 0;
    for entry in std::fs::read_dir(&folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let script = std::fs::read_to_string(&path).expect("a script");
        let transcript = kip_sim::play(&script).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let expected = std::fs::read_to_string(path.with_extension("expected")).unwrap_or_default();
        assert!(transcript == expected, "{} reads otherwise now:\n{transcript}", path.display());
        played += 1;
    }
    assert!(played >= 11, "only {played} scripts");
}

#[test]
fn a_line_that_is_not_understood_is_named() {
    let error = kip_sim::play("deploy f\nadvance 5\n").expect_err("no unit");
    assert_eq!(error.to_string(), "line 2: `5` has no unit: write 5s (seconds) or 5ms (milliseconds)");
    assert!(kip_sim::play("deploy f colour=red").is_err() && kip_sim::play("leave nobody").is_err());
}
