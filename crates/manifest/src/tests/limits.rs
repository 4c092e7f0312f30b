//! Large and hostile texts are refused, soon and with little memory.

use kip_spec::{Code, code};

use super::{folder, read_in};
use crate::{LARGEST, MOST_FUNCTIONS};

fn first_code(text: &str) -> Code {
    let folder = folder();
    read_in(folder.path(), text).unwrap_err()[0].code
}

/// Bytes that this process has ever held at once.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_hundred_megabytes_are_not_even_looked_at() {
    // In a process of its own, whose memory no other test uses.
    if !std::env::args().any(|argument| argument == "--exact") {
        let name = "tests::limits::a_hundred_megabytes_are_not_even_looked_at";
        let own = std::env::current_exe().unwrap();
        let ran = std::process::Command::new(own).args(["--exact", name]).output().unwrap();
        return assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
    }
    let text = "a: [1, 2, 3]\n".repeat(100 << 20 >> 3);
    assert!(text.len() > 100 << 20);
    let before = peak_bytes();
    assert_eq!(first_code(&text), code::MANIFEST_TOO_LARGE);
    let grown = peak_bytes() - before;
    assert!(grown < 10 << 20, "{grown} bytes more for a text that is refused by its length");
}

#[test]
fn the_largest_size_is_read_and_one_byte_more_is_not() {
    let mut text = "api: kip/v1\nfunctions: {f: {run: x}}\n#".to_owned();
    text.push_str(&"x".repeat(LARGEST - text.len()));
    let folder = folder();
    assert!(read_in(folder.path(), &text).is_ok());
    text.push('x');
    assert_eq!(first_code(&text), code::MANIFEST_TOO_LARGE);
}

#[test]
fn aliases_of_aliases_are_bounded() {
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let aliases = format!("*a{}, ", level - 1).repeat(9);
        laughs.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    assert_eq!(first_code(&laughs), code::MANIFEST_TOO_LARGE);
    // One long text, repeated.
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(500_000), "*a, ".repeat(100_000));
    assert_eq!(first_code(&long), code::MANIFEST_TOO_LARGE);
    // The same through merge keys.
    let mut merges = "m0: &m0 {k0: 1}\n".to_owned();
    for level in 1..30 {
        merges.push_str(&format!("m{level}: &m{level} {{<<: [*m{0}, *m{0}], k{level}: 1}}\n", level - 1));
    }
    assert_eq!(first_code(&merges), code::MANIFEST_TOO_LARGE);
}

#[test]
fn deep_nesting_is_bounded_in_every_form() {
    let block: String = (0..200).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    let dashes = format!("{}x", "- ".repeat(50_000));
    for text in
        [block, dashes, format!("{}{}", "[".repeat(200), "]".repeat(200)), "[".repeat(500_000), "{a: ".repeat(200_000)]
    {
        assert_eq!(first_code(&text), code::MANIFEST_TOO_LARGE, "{}", &text[..20]);
    }
}

#[test]
fn ten_thousand_functions_are_read_and_one_more_is_refused() {
    let mut text = "api: kip/v1\ndefaults: {idle: {pause: 1s}}\nfunctions:\n".to_owned();
    for index in 0..MOST_FUNCTIONS {
        text.push_str(&format!("  f{index}: {{run: \"a --port ${{PORT}}\", env: {{A: 1}}, instances: {{max: 2}}}}\n"));
    }
    let folder = folder();
    assert_eq!(read_in(folder.path(), &text).unwrap().functions.len(), MOST_FUNCTIONS);
    text.push_str("  more: {run: a}\n");
    assert_eq!(first_code(&text), code::MANIFEST_TOO_LARGE);
}

#[test]
fn large_defaults_are_not_multiplied_without_bound() {
    let functions: String = (0..5_000).map(|index| format!("  f{index}: {{run: a}}\n")).collect();
    let one_large = format!("A: {}", "x".repeat(100_000));
    let many_small: String = (0..40_000).map(|index| format!("A{index}: 1, ")).collect();
    for env in [one_large, many_small] {
        let text = format!("api: kip/v1\ndefaults: {{env: {{{env}}}}}\nfunctions:\n{functions}");
        assert_eq!(first_code(&text), code::MANIFEST_TOO_LARGE);
    }
}

#[test]
fn the_answer_stays_small() {
    let folder = folder();
    let text = format!("api: kip/v1\nfunctions: {{f: {{run: x, {}}}}}\n", "zzz: 1, ".repeat(50_000));
    let problems = read_in(folder.path(), &text).unwrap_err();
    assert_eq!(problems.len(), 51);
    assert!(problems.iter().all(|problem| problem.place.as_ref().is_none_or(|place| place.text.is_none())));
    assert!(problems[50].message.contains("more problems are not shown"));
    let long = format!("api: {}\nfunctions: {{{}: 1}}\n", "y".repeat(9_000), "z".repeat(900));
    let problems = read_in(folder.path(), &long).unwrap_err();
    assert!(problems.iter().all(|problem| problem.message.len() < 400));
}
