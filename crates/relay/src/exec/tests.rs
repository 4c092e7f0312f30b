use std::collections::BTreeMap;

use kip_wire::ExecStart;

use super::command_line;
use super::request::unfit;

fn words(line: &[&str]) -> Vec<String> {
    line.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn a_command_is_one_line_whatever_is_in_it() {
    assert_eq!(command_line(&words(&["ls", "-l", "/tmp"])), "ls -l /tmp");
    assert_eq!(command_line(&words(&["sh", "-c", "echo 'a'\nb"])), "sh -c 'echo '\\''a'\\''\\nb'");
    let long = command_line(&words(&["echo", &"ä".repeat(5_000)]));
    assert!(long.len() <= 1_030 && long.ends_with('…'), "{}", long.len());
}

#[test]
fn what_cannot_be_run_is_said() {
    let start = |command: &[&str]| ExecStart { command: words(command), ..ExecStart::default() };
    assert_eq!(unfit(&start(&["true"])), None);
    let with = |name: &str| {
        let env = BTreeMap::from([(name.to_owned(), "x".to_owned())]);
        ExecStart { env, ..start(&["true"]) }
    };
    assert_eq!(unfit(&with("A")), None);
    let large = "x".repeat(100_000);
    for wrong in
        [start(&[]), start(&[""]), start(&["a\0b"]), start(&["a", &large]), with(""), with("A=B"), with("KIPWAKE_X")]
    {
        assert!(unfit(&wrong).is_some(), "{:?}", wrong.env);
    }
    let terminal = Some(kip_wire::ExecTerminal { columns: 0, rows: 1 });
    assert!(unfit(&ExecStart { terminal, ..start(&["true"]) }).is_some());
}
