//! What the next server must know of an instance beside its devices: why it is there, and where its memory is.

use std::fmt;

use kip_fleet::{Kind, Rung};

/// Where the memory of an idle instance is, as far as this server knows. It is written down before each step that changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub(crate) enum MemoryState {
    /// With the instance.
    #[default]
    Held = 0,
    /// A step is under way, or broke off: the program must take its memory again before it serves.
    Unknown = 1,
    /// Its device memory is given back.
    Parked = 2,
    /// Its host memory as well.
    Spilled = 3,
}

impl MemoryState {
    /// From its number.
    pub(crate) const fn numbered(number: u8) -> Self {
        match number {
            0 => Self::Held,
            2 => Self::Parked,
            3 => Self::Spilled,
            _ => Self::Unknown,
        }
    }

    /// The rung of an instance that sleeps so. One whose state is not known holds everything, as far as others are concerned.
    pub(crate) const fn rung(self) -> Rung {
        match self {
            Self::Held | Self::Unknown => Rung::Paused,
            Self::Parked => Rung::Parked,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Memo {
    pub(crate) kind: Kind,
    pub(crate) memory: MemoryState,
}

impl Memo {
    /// Reads what an earlier server wrote. What cannot be read is what costs least to be wrong about.
    pub(crate) fn read(text: &str) -> Self {
        let mut words = text.split(' ');
        let kind = if words.next() == Some(Kind::Provisioned.name()) { Kind::Provisioned } else { Kind::OnDemand };
        let all = [MemoryState::Held, MemoryState::Parked, MemoryState::Spilled];
        let memory = words.next().map_or(MemoryState::Held, |word| {
            all.into_iter().find(|memory| memory.name() == word).unwrap_or(MemoryState::Unknown)
        });
        Self { kind, memory }
    }
}

impl fmt::Display for Memo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.memory.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memo_is_read_back_and_old_ones_hold_their_memory() {
        for memory in [MemoryState::Held, MemoryState::Unknown, MemoryState::Parked, MemoryState::Spilled] {
            for kind in [Kind::Provisioned, Kind::OnDemand] {
                let memo = Memo { kind, memory };
                assert_eq!(Memo::read(&memo.to_string()), memo);
                assert_eq!(MemoryState::numbered(memory as u8), memory);
            }
        }
        assert_eq!(Memo::read("provisioned"), Memo { kind: Kind::Provisioned, memory: MemoryState::Held });
        assert_eq!(Memo::read(""), Memo::default());
        assert_eq!(Memo::read("on-demand frozen").memory, MemoryState::Unknown);
    }
}
