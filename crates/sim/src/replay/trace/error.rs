//! What is wrong with a trace or with what is asked of it.

/// Why a trace cannot be replayed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// It cannot be read.
    #[error("line {line}: {cause}")]
    Unreadable {
        /// Which line, from 1.
        line: u64,
        /// Why.
        cause: String,
    },
    /// A column that is needed is not there.
    #[error("the trace has no column `{column}`; its columns are: {known}")]
    NoColumn {
        /// Which.
        column: String,
        /// Those that are there.
        known: String,
    },
    /// A value is no number of the kind that is needed.
    #[error("line {line}: `{value}` in column `{column}` is not {expected}")]
    Value {
        /// Which line, from 1.
        line: u64,
        /// Which column.
        column: String,
        /// The value.
        value: String,
        /// What was expected.
        expected: &'static str,
    },
    /// A request comes before the one of the line above.
    #[error("line {line}: the request arrives {by_ms} ms before the one of the line above; sort the trace by arrival")]
    Unsorted {
        /// Which line, from 1.
        line: u64,
        /// By how much.
        by_ms: u64,
    },
    /// A formula is not understood.
    #[error("the formula `{formula}` is not understood at `{at}`")]
    Formula {
        /// As given.
        formula: String,
        /// Its part.
        at: String,
    },
    /// Its first line fits no form that is known.
    #[error("the form of the trace is not known; its columns are: {known}")]
    UnknownForm {
        /// Its columns.
        known: String,
    },
    /// The form says nothing about how long requests take.
    #[error("a trace of the form {form} does not say how long requests take; its columns are: {known}")]
    NoService {
        /// Which form.
        form: &'static str,
        /// Its columns.
        known: String,
    },
    /// More rows than can be sorted.
    #[error("the trace has more than {most} rows and its form must be sorted by arrival")]
    TooMany {
        /// How many can be.
        most: usize,
    },
    /// Nothing is in it.
    #[error("the trace has no requests")]
    Empty,
}
