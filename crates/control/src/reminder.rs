//! Provisioned instances that nobody uses: looked for now and then, told in the log, the decisions and by `kip why`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kip_fleet::Kind;
use kip_store::{DecisionRecord, Record, RequestFilter};

use crate::cell::{Cell, now};
use crate::error::Error;
use crate::shared::Shared;
use crate::unused::UnusedInstances;
use kip_records::decision::Decision;
use kip_spec::qualifier::LATEST;

/// So long without a request is worth a word, milliseconds.
const UNUSED: u64 = 2 * 3_600_000;
/// A server looks first when it has just begun, then less and less often, and at last this often.
const FIRST: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_secs(600);

impl Shared {
    /// Looks for what nobody uses, for ever.
    pub(crate) async fn remind(self: &Arc<Self>) {
        let mut pause = FIRST;
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 3).min(AGAIN);
            for cell in self.all_cells() {
                match self.unused(&cell).await {
                    Ok(unused) => self.note_unused(&cell, unused),
                    Err(error) => tracing::warn!(function = %cell.name(), %error, "whether it is used cannot be read"),
                }
            }
        }
    }

    fn note_unused(&self, cell: &Cell, unused: Option<UnusedInstances>) {
        let wall = now().wall;
        let known = std::mem::replace(&mut cell.lock().unused, unused.clone().map(Box::new));
        let Some(unused) = unused.filter(|unused| known.is_none_or(|known| known.since != unused.since)) else {
            return;
        };
        let why = unused.tell(wall);
        tracing::warn!(function = %cell.name(), why, "provisioned instances are unused");
        self.recorder.record(Record::Decision(DecisionRecord {
            at: wall,
            function: cell.name().to_string(),
            version: cell.lock().serving().id.0,
            label: None,
            instance: Some(unused.qualifier.clone()),
            from: None,
            to: "unused".to_owned(),
            why,
            detail: None,
            decision: Decision::Unused { since: unused.since, instances: unused.instances }.value(),
        }));
    }

    /// The provisioned instances of a function, if nothing was asked of it for long.
    pub(crate) async fn unused(&self, cell: &Cell) -> Result<Option<UnusedInstances>, Error> {
        let looked = {
            let inner = cell.lock();
            cell.look(&inner, |core| {
                let busy = core.instances().any(|instance| instance.in_flight > 0);
                let kept = core.provisions().iter().find(|provisioned| provisioned.current() > 0);
                let kept = kept.filter(|_| !busy)?;
                let of = core.instances().filter(|instance| instance.kind == Kind::Provisioned);
                let ids: BTreeSet<String> = of.map(|instance| instance.id.to_string()).collect();
                let born = core.usage(now()).filter(|usage| ids.contains(&usage.instance.to_string()));
                let born = born.map(|usage| usage.since).min();
                Some((inner.name_of(kept.qualifier), kept.declared_by.is_some(), kept.current(), ids, born))
            })
        };
        let Some((qualifier, declared, instances, ids, born)) = looked.flatten() else { return Ok(None) };
        self.recorder.flush().await;
        let (wall, function) = (now().wall, cell.name().to_string());
        let for_ms = |since: i64| u64::try_from(wall.saturating_sub(since)).unwrap_or(0);
        let filter = RequestFilter { function: Some(function.clone()), limit: 1, ..RequestFilter::default() };
        let last = self.records.requests(filter).await?.first().map(|request| request.at);
        if last.is_some_and(|last| for_ms(last) < UNUSED) {
            return Ok(None);
        }
        // One that outlived a server has a record of its time under that.
        let earlier = self.records.usage(function.clone()).await?;
        let wall_of = |boot: u64| wall - i64::try_from(now().boot.saturating_sub(boot)).unwrap_or(0);
        let earlier = earlier.iter().filter(|record| ids.contains(&record.instance)).map(|record| record.since);
        let there = earlier.chain(born.map(wall_of)).min();
        let Some(since) = last.max(there).filter(|since| for_ms(*since) >= UNUSED) else { return Ok(None) };
        let of = if qualifier == LATEST { String::new() } else { format!(" --qualifier {qualifier}") };
        let release = match declared {
            // What a version declares is not put, so it is put as nothing.
            true => format!("kip provision set {function}{of} --target 0"),
            false => format!("kip provision rm {function}{of}"),
        };
        Ok(Some(UnusedInstances { since, for_ms: for_ms(since), instances, qualifier, release }))
    }
}
