//! Collects what is wrong, with places, and keeps the answer small whatever the text is.

use std::collections::BTreeSet;

use kip_spec::Problem;
use kip_spec::problem::Place;
use kip_spec::secret::masked_text;

use crate::deployer::Deployer;
use crate::tree::Position;
use crate::{Manifest, ManifestContent};

/// Problems that are told one by one.
const MOST_PROBLEMS: usize = 50;
/// A longer line is not shown: nobody finds the place in it.
const LONGEST_LINE: usize = 400;
/// Characters of the user's text that a message repeats.
const LONGEST_QUOTE: usize = 60;

/// The problems and warnings of a document so far.
#[derive(Debug)]
pub struct Report<'a> {
    file: &'a str,
    lines: Vec<&'a str>,
    problems: Vec<(Position, Problem)>,
    warnings: Vec<Problem>,
    seen: BTreeSet<(u64, u64, String)>,
    deployer: Option<Deployer<'a>>,
    /// Problems beyond those that are told.
    omitted: usize,
}

impl<'a> Report<'a> {
    /// Of a file by the name that problems show, with its text.
    pub fn new(file: &'a str, text: &'a str) -> Self {
        Self {
            file,
            lines: text.lines().collect(),
            problems: Vec::new(),
            warnings: Vec::new(),
            seen: BTreeSet::new(),
            deployer: None,
            omitted: 0,
        }
    }

    /// From here on values are taken from the deployer. Before, and again with none, references stay as they are written.
    pub(crate) fn take_from(&mut self, deployer: Option<Deployer<'a>>) {
        self.deployer = deployer;
    }

    /// The deployer that values are taken from.
    pub(crate) fn deployer(&self) -> Option<Deployer<'a>> {
        self.deployer
    }

    /// How many problems there are.
    pub fn count(&self) -> usize {
        self.problems.len() + self.omitted
    }

    /// A problem; the same one at the same place counts once.
    pub fn add(&mut self, at: Position, problem: Problem) {
        if self.problems.len() >= MOST_PROBLEMS {
            self.omitted += 1;
        } else if self.is_new(at, &problem) {
            let place = self.place(at);
            self.problems.push((at, problem.place(place)));
        }
    }

    /// Something that is allowed but hardly meant.
    pub fn warn(&mut self, at: Position, problem: Problem) {
        if self.warnings.len() < MOST_PROBLEMS && self.is_new(at, &problem) {
            let place = self.place(at);
            self.warnings.push(problem.place(place));
        }
    }

    /// The functions, if nothing was wrong.
    pub(crate) fn finish(self, declared: ManifestContent) -> Result<Manifest, Vec<Problem>> {
        let ManifestContent { functions, traffic, rollouts } = declared;
        self.close().map(|warnings| Manifest { functions, traffic, rollouts, warnings })
    }

    /// The warnings, if nothing was wrong; else the problems, in the order of the file.
    pub fn close(self) -> Result<Vec<Problem>, Vec<Problem>> {
        let Self { mut problems, warnings, omitted, .. } = self;
        if problems.is_empty() {
            return Ok(warnings);
        }
        problems.sort_by_key(|(at, _)| (at.line, at.column));
        let mut problems: Vec<Problem> = problems.into_iter().map(|(_, problem)| problem).collect();
        if omitted > 0
            && let Some(last) = problems.last()
        {
            let message = format!("{omitted} more problems are not shown: settle these first");
            problems.push(Problem::new(last.code, message));
        }
        Err(problems)
    }

    /// The text of a line.
    pub(crate) fn line(&self, at: Position) -> Option<&'a str> {
        usize::try_from(at.line).ok().and_then(|line| self.lines.get(line.checked_sub(1)?)).copied()
    }

    fn is_new(&mut self, at: Position, problem: &Problem) -> bool {
        self.seen.insert((at.line, at.column, problem.message.clone()))
    }

    /// A position as problems show it.
    pub fn place(&self, at: Position) -> Place {
        let text = self.line(at).filter(|line| line.len() <= LONGEST_LINE);
        let text = text.map(|line| masked_text(line).into_owned());
        Place { file: self.file.to_owned(), line: at.line.max(1), column: at.column.max(1), text }
    }
}

/// A piece of the user's text fit for a one-line message.
pub fn shown(text: &str) -> String {
    shortened(text, LONGEST_QUOTE)
}

/// At most so many characters, and none that would break a line or a terminal.
pub(crate) fn shortened(text: &str, most: usize) -> String {
    let mut short: String = text.chars().take(most).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(most).is_some() {
        short.push('…');
    }
    short
}
