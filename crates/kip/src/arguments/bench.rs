//! Arguments of `kip bench`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use kip_spec::Millis;

#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// The URL, such as http://127.0.0.1:5470/f/NAME/.
    pub(crate) url: String,
    /// A phase, NAME=LOAD@DURATION; LOAD is a rate (200/s) or a number of callers (16). May be repeated: phases follow each other. A
    /// path behind it, NAME=LOAD@DURATION@/PATH, is loaded in the place of that of the URL.
    #[arg(long = "phase", value_name = "PHASE", conflicts_with_all = ["rate", "callers", "duration"])]
    pub(crate) phases: Vec<Phase>,
    /// Requests that are sent each second, however long answers take.
    #[arg(long, value_name = "N", conflicts_with = "callers")]
    pub(crate) rate: Option<u32>,
    /// Callers that send the next request when the answer is there; 8 without --rate.
    #[arg(long, value_name = "N")]
    pub(crate) callers: Option<u32>,
    /// How long.
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    pub(crate) duration: Millis,
    /// The method; POST if there is a body, else GET.
    #[arg(short = 'X', long)]
    pub(crate) method: Option<String>,
    /// The body; @FILE reads it from a file.
    #[arg(short = 'd', long)]
    pub(crate) data: Option<String>,
    /// A header, `Name: value`; may be repeated.
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    pub(crate) headers: Vec<String>,
    /// How long an answer may take.
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    pub(crate) timeout: Millis,
    /// Write a page with the charts of all phases.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

/// A part of a load test.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Phase {
    pub(crate) name: String,
    pub(crate) load: Load,
    pub(crate) duration: Millis,
    /// In the place of the path of the URL.
    pub(crate) path: Option<String>,
}

/// How requests are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// So many each second.
    Rate(u32),
    /// By so many callers, each one request at a time.
    Callers(u32),
}

impl FromStr for Phase {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not NAME=LOAD@DURATION, such as warm=200/s@10s or busy=16@10s");
        let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
        let (load, duration) = rest.split_once('@').ok_or_else(wrong)?;
        let count =
            |text: &str| text.parse::<u32>().ok().filter(|count| (1..=100_000).contains(count)).ok_or_else(wrong);
        let load = match load.strip_suffix("/s") {
            Some(rate) => Load::Rate(count(rate)?),
            None => Load::Callers(count(load)?),
        };
        let (duration, path) = match duration.split_once('@') {
            Some((duration, path)) if path.starts_with('/') => (duration, Some(path.to_owned())),
            Some(_) => return Err(wrong()),
            None => (duration, None),
        };
        let duration = duration.parse::<Millis>().map_err(|error| error.to_string())?;
        Ok(Self { name: name.to_owned(), load, duration, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_read() {
        let phase: Phase = "warm=200/s@10s".parse().unwrap();
        assert_eq!((phase.load, phase.duration), (Load::Rate(200), Millis(10_000)));
        assert_eq!("x=16@500ms".parse::<Phase>().unwrap().load, Load::Callers(16));
        let other = "on-demand=5/s@2s@/f/web@prod/".parse::<Phase>().unwrap();
        assert_eq!((other.duration, other.path.as_deref()), (Millis(2_000), Some("/f/web@prod/")));
        for wrong in ["", "a=1@1s@x", "a=b", "a=0/s@1s", "a=1/s", "a=1@x"] {
            assert!(wrong.parse::<Phase>().is_err(), "{wrong}");
        }
    }
}
