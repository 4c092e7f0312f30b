//! What an earlier server of this data directory left behind when it was killed. Until instances can be adopted, they
//! are ended: nobody would use them and they hold memory.

use std::time::Duration;

use super::{cgroup, contract, members};

/// Ends them all and says how many processes there were.
pub(super) fn end_all(server: &str) -> usize {
    let mut count = 0;
    // Twice, because what is being killed may be forking.
    for _ in 0..2 {
        // A server that was itself started inside an instance carries the mark and is no leftover.
        let mut left = members::marked(contract::SERVER, server);
        left.retain(|process| *process != std::process::id());
        count = count.max(left.len());
        left.into_iter().for_each(members::kill);
    }
    if let Ok(folder) = cgroup::prepare(server) {
        let _ = cgroup::kill(&folder);
        for _ in 0..100 {
            if cgroup::processes(&folder).is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        cgroup::remove(&folder);
    }
    count
}
