//! Forms whose rows are not in the order of arrival are sorted in memory.

use std::io::BufRead;

use super::super::request::TraceRequest;
use super::table::Table;
use super::{Rows, TraceError};

/// 24 bytes each: 2.4 GB.
const MOST: usize = 100_000_000;

/// All rows by their arrival, from the first one on.
pub(super) fn sorted<R: BufRead>(mut table: Table<R>) -> Result<Rows<R>, TraceError> {
    let mut requests: Vec<TraceRequest> = Vec::new();
    for request in table.by_ref() {
        if requests.len() == MOST {
            return Err(TraceError::TooMany { most: MOST });
        }
        requests.push(request?);
    }
    // The order of rows decides among those of the same millisecond.
    requests.sort_by_key(|request| request.at);
    let first = requests.first().map_or(0, |request| request.at);
    requests.iter_mut().for_each(|request| request.at -= first);
    Ok(Rows::Sorted(table.names.in_order(), requests.into_iter()))
}
