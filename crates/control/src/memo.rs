//! What the next server must know of an instance beside its devices: why it is there, and where its memory is.

use std::fmt;

use kip_fleet::{Kind, Rung};
use kip_freezer::journal::Entry;

/// Where the memory of an idle instance is, as far as this server knows. It is written down before each step that changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum MemoryState {
    /// With the instance.
    #[default]
    Held,
    /// A step is under way, or broke off: the program must take its memory again before it serves.
    Unknown,
    /// Its device memory is given back.
    Parked,
    /// Its host memory as well.
    Spilled,
}

impl MemoryState {
    /// The rung of an instance that sleeps so. One whose state is not known wakes as one that gave its device memory back.
    pub(crate) const fn rung(self) -> Rung {
        match self {
            Self::Held => Rung::Paused,
            Self::Unknown | Self::Parked => Rung::Parked,
            Self::Spilled => Rung::Spilled,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Unknown => "unknown",
            Self::Parked => "parked",
            Self::Spilled => "spilled",
        }
    }
}

/// A line in the journal of a body.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Memo {
    pub(crate) kind: Kind,
    /// The name of its pool, where there is more than one.
    pub(crate) pool: Option<String>,
    pub(crate) memory: MemoryState,
    /// The processes that the driver freezes, and how far it has come with them.
    pub(crate) tree: Option<Box<Entry>>,
}

impl Memo {
    /// Reads what an earlier server wrote. What cannot be read is what costs least to be wrong about.
    pub(crate) fn read(text: &str) -> Self {
        let mut words = text.splitn(3, ' ');
        let first = words.next().unwrap_or_default();
        let (kind, pool) = first.split_once('@').map_or((first, None), |(kind, pool)| (kind, Some(pool.to_owned())));
        let kind = if kind == Kind::Provisioned.name() { Kind::Provisioned } else { Kind::OnDemand };
        let all = [MemoryState::Held, MemoryState::Parked, MemoryState::Spilled];
        let memory = words.next().map_or(MemoryState::Held, |word| {
            all.into_iter().find(|memory| memory.name() == word).unwrap_or(MemoryState::Unknown)
        });
        let tree = words.next().and_then(|text| serde_json::from_str(text).ok());
        Self { kind, pool, memory, tree }
    }
}

impl fmt::Display for Memo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        if let Some(pool) = &self.pool {
            write!(f, "@{pool}")?;
        }
        write!(f, " {}", self.memory.name())?;
        match &self.tree {
            Some(tree) => write!(f, " {}", serde_json::to_string(tree).map_err(|_| fmt::Error)?),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use kip_freezer::journal::{Member, Step};
    use kip_spec::InstanceId;

    use super::*;

    #[test]
    fn a_memo_is_read_back_and_old_ones_hold_their_memory() {
        for memory in [MemoryState::Held, MemoryState::Unknown, MemoryState::Parked, MemoryState::Spilled] {
            for kind in [Kind::Provisioned, Kind::OnDemand] {
                for pool in [None, Some("rack-2".to_owned())] {
                    let memo = Memo { kind, pool, memory, tree: None };
                    assert_eq!(Memo::read(&memo.to_string()), memo);
                }
            }
        }
        let entry = Entry {
            instance: InstanceId { boot: 1, core: 2, sequence: 3 },
            operation: 4,
            step: Step::Parked,
            members: vec![Member { pid: 5, started: 6 }],
            devices: vec!["GPU-1 and a space".to_owned()],
            bytes: 7,
            was_restored: true,
            boot_id: "boot".to_owned(),
            until: 8,
        };
        let memo = Memo { memory: MemoryState::Parked, tree: Some(Box::new(entry)), ..Memo::default() };
        assert_eq!(Memo::read(&memo.to_string()), memo);
        assert_eq!(Memo::read("provisioned"), Memo { kind: Kind::Provisioned, ..Memo::default() });
        assert_eq!(Memo::read(""), Memo::default());
        assert_eq!(Memo::read("on-demand frozen").memory, MemoryState::Unknown);
    }
}
