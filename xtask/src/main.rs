//! Tasks of development: `cargo xtask <task>`.
//!
//! Each task is one check or one chore; `check` and `test` are what CI runs. Nothing here is part of the product, and
//! nothing of the product may depend on it.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a tool of development talks to the terminal")]

mod arrows;
mod bench;
mod check;
mod circles;
mod command;
mod crates;
mod errors;
mod fuzz;
mod generated;
mod install;
mod pipelines;
mod sbom;
mod schema;
mod sim;
mod soak;
mod test;
mod tree;
mod words;

use std::process::ExitCode;

use anyhow::{Result, bail};

const HELP: &str = "\
Tasks of development. Usage: cargo xtask <task>

  check             everything below but the tests, and format, lints and API documentation
  test [SUITE...]   installs what tests need, runs all suites or these, and counts: rooms, brain, models, freezer, server;
                    words for cargo, such as `-p kip-fleet`, run what cargo makes of them
  install           only installs what tests need
  arrows            which room may depend on which
  circles           files that need each other, more than two in a ring
  crates            banned crates, and how many the server is built from
  errors [--write]  a page for every error code; --write brings the index up to date
  schema [--write]  docs/schema/kip.schema.json; --write brings it up to date
  openapi [--write]   compares the documents in docs/api with the routes and types of both APIs, or writes them
  databases [--write] compares docs/schema/*.sql with the migrations, or writes them
  sbom [--out FILE] the crates of the server with versions, licences and checksums, as CycloneDX JSON
  words             names of types and phrases that STYLE rules 16 and 17 ban (xtask/words.txt)
  sim [OPTIONS]     the simulator: --seeds N, --from S or --dice; --seed N --trace replays one (--only, --requests and --without
                    make it smaller); --script FILE plays a script; --bless writes all transcripts anew
  fuzz [SECONDS]    fuzz targets of the data plane, for a minute unless said otherwise, repeatable;
                    with --explore by new dice, from what earlier such runs found
  bench WHAT        restart [INSTANCES], sleep [ROUNDS], density [FUNCTIONS] [PAUSED], alias [FUNCTIONS], gateway [OPTIONS],
                    gateway balance, gateway builds OLD [ROUNDS] (beside an earlier build), gateway qualifiers [ROUNDS] or
                    gateway soak [SECONDS]: figures, with the machine and its load; `--program KIP` first takes a program that is built
  bench tasks       the task store beside a raw synced log: [SECONDS] [ROWS] [FOLDER]; end to end: api [SECONDS]; a server that
                    finds a million waiting tasks: restart [ROWS [PROGRAM]]; beside other systems: peers [SECONDS [ROUNDS]]
  bench stores      hot requests and the control runtime without and with backups and wide lists:
                    [ROWS [SECONDS [PROGRAM]]]
  bench gpu [OPTS]  freezing and waking on the GPU of this machine; --dry-run on a stand-in, whose figures mean nothing;
                    --budget SECONDS; --out DIR; --pack only puts together what another machine needs
  soak              the tests that take long: a million seeds; the server killed again and again under load
  soak seeds        a million fresh seeds, which goes on where it stopped: --seeds N, --from S, --cores N, --anew
  soak days [DAYS]  ten models on a device for two, a hundred days unless said otherwise
  soak pipelines    the preset `pipeline` with the real libraries, which it installs into .pipelines: 6 GB
  soak replay FILE  a trace one to one through the server and its gateway, beside `kip simulate` of the same: --seconds S, --cold MS,
                    --wake MS, --service FORMULA, --burst";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The long versions: a million seeds beyond those of every test run, and the server killed again and again.
fn soak_all() -> Result<()> {
    soak::seeds(&[])?;
    pipelines::run()?;
    command::show(command::command(
        "cargo",
        &["test", "--release", "-p", "kip", "--test", "binary", "--", "--ignored", "--nocapture"],
    ))
}

/// Whether all is well, for a task that has said so itself.
fn run(arguments: &[String]) -> Result<bool> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["test", rest @ ..] => return test::run(rest),
        ["check"] => check::run(),
        ["install"] => install::run(),
        ["arrows"] => arrows::run(),
        ["circles"] => circles::run(),
        ["words"] => words::run(),
        ["crates"] => crates::run(),
        ["errors"] => errors::run(false),
        ["errors", "--write"] => errors::run(true),
        ["sbom", rest @ ..] => sbom::run(rest),
        ["sim", rest @ ..] => sim::task(rest),
        ["bench", rest @ ..] => bench::task(rest),
        ["upstream"] => bench::upstream::serve(),
        ["fuzz"] => fuzz::run(60, fuzz::From::Seeds),
        ["fuzz", seconds] => {
            seconds.parse().map_err(Into::into).and_then(|seconds| fuzz::run(seconds, fuzz::From::Seeds))
        }
        ["fuzz", seconds, "--explore"] => {
            seconds.parse().map_err(Into::into).and_then(|seconds| fuzz::run(seconds, fuzz::From::Corpus))
        }
        ["soak"] => soak_all(),
        ["soak", "pipelines"] => pipelines::run(),
        ["soak", "seeds", rest @ ..] => soak::seeds(rest),
        ["soak", "days", rest @ ..] => soak::days(rest),
        ["soak", "replay", rest @ ..] => bench::replay(rest),
        ["schema"] => schema::run(false),
        ["schema", "--write"] => schema::run(true),
        ["openapi"] => generated::openapi(false),
        ["openapi", "--write"] => generated::openapi(true),
        ["databases"] => generated::databases(false),
        ["databases", "--write"] => generated::databases(true),
        [] | ["help" | "--help" | "-h"] => {
            println!("{HELP}");
            Ok(())
        }
        [other, ..] => bail!("there is no task `{other}` with these arguments\n\n{HELP}"),
    };
    done.map(|()| true)
}
