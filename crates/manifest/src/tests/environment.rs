//! What functions take from their deployer: variables and files of variables.

use std::collections::BTreeMap;

use kip_spec::{Problem, code};

use super::{folder, one, read_from};

type Map = BTreeMap<String, String>;

fn map(pairs: &[(&str, &str)]) -> Map {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn env_of(keys: &str, variables: &[(&str, &str)], files: &[(&str, &str)]) -> Result<Map, Vec<Problem>> {
    let text = format!("api: kip/v1\nfunctions: {{f: {{run: serve, {keys}}}}}\n");
    let read = read_from(folder().path(), &text, &map(variables), &map(files));
    read.map(|mut manifest| manifest.functions.remove(0).env)
}

#[test]
fn references_take_from_the_deployer_what_the_function_does_not_set_itself() {
    let deployer = [("HF_TOKEN", "secret"), ("EMPTY", ""), ("ODD", "a${PORT}b"), ("OWN", "deployer's")];
    let env = env_of(
        "env: {A: '${HF_TOKEN}', B: 'x-${MISSING:-y}-${EMPTY:-z}', C: '${ODD}', D: '${PORT}', E: '${OWN}', OWN: '1', F: '$${HF_TOKEN}', \
         G: '[${EMPTY}]', HF_TOKEN: '${HF_TOKEN}'}",
        &deployer,
        &[],
    );
    let expected = [
        ("A", "${HF_TOKEN}"),
        ("B", "x-y-z"),
        ("C", "a$${PORT}b"),
        ("D", "${PORT}"),
        ("E", "${OWN}"),
        ("F", "$${HF_TOKEN}"),
        ("G", "[]"),
        ("HF_TOKEN", "secret"),
        ("OWN", "1"),
    ];
    assert_eq!(env.unwrap(), map(&expected));
    let problems = env_of("env: {A: '${NOT_SET}'}", &deployer, &[]).unwrap_err();
    assert_eq!(problems[0].code, code::MANIFEST_BAD_VALUE);
    assert!(problems[0].message.contains("`${NOT_SET}` is not set"), "{problems:?}");
}

#[test]
fn references_in_defaults_are_resolved_for_each_function() {
    let text =
        "api: kip/v1\ndefaults: {env: {A: '${B}', C: '${D}'}}\nfunctions: {f: {run: x, env: {B: '1'}}, g: {run: x}}\n";
    let read = read_from(folder().path(), text, &map(&[("B", "b"), ("D", "d")]), &Map::new()).unwrap();
    assert_eq!(read.functions[0].env, map(&[("A", "${B}"), ("B", "1"), ("C", "d")]));
    assert_eq!(read.functions[1].env, map(&[("A", "b"), ("C", "d")]));
}

#[test]
fn files_of_variables_are_merged_below_env() {
    let files = [("a.env", "A=1\nB=1\nC=${HF_TOKEN}\n"), ("b.env", "export B='2'\nD=2")];
    let env = env_of("env: {D: '3', E: '${A}'}, env_file: [a.env, b.env]", &[], &files).unwrap();
    assert_eq!(env, map(&[("A", "1"), ("B", "2"), ("C", "$${HF_TOKEN}"), ("D", "3"), ("E", "${A}")]));
    assert_eq!(env_of("env_file: b.env", &[], &files).unwrap(), map(&[("B", "2"), ("D", "2")]));
    for (keys, file, part) in [
        ("env_file: none.env", "", "`none.env` was not found"),
        ("env_file: x.env", "A=1\nhf_0123456789abcdefXYZ", "line 2 of `x.env`"),
        ("env_file: x.env", "PORT=1", "Kipwake sets this variable itself"),
        ("env_file: {a: b}", "", "`functions.f.env_file` must be the path of a file"),
    ] {
        let problems = env_of(keys, &[], &[("x.env", file)]).unwrap_err();
        let text = format!("{problems:?}");
        assert!(problems[0].message.contains(part), "{text}");
        assert!(!text.contains("hf_0123456789"), "no value of a file is shown: {text}");
    }
}

#[test]
fn the_line_of_a_problem_shows_no_secret() {
    let problems = env_of("env: {HF_TOKEN: 'hf_0123456789abcdefXYZ', PORT: '1'}", &[], &[]).unwrap_err();
    let text = format!("{problems:?}");
    assert!(text.contains("***") && !text.contains("hf_0123"), "{text}");
}

#[test]
fn a_function_without_references_takes_nothing() {
    assert_eq!(one("env: {A: 'plain $B {C}'}").env, map(&[("A", "plain $B {C}")]));
}
