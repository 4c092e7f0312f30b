//! What functions and the placer tell each other.

use kip_spec::{InstanceId, VersionId};
use serde::{Deserialize, Serialize};

use super::Offer;
use crate::room::{Gpu, Place, Quota, RoomNeed, Shortage};
use crate::state::Rung;
use crate::{CoreNumber, OperationNumber};

/// What functions tell the placer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToPlacer {
    /// An instance needs room: a new one, or one asleep that lacks what its rung gave back. Asked for again, it counts by
    /// the new urgency.
    Ask {
        /// Whose it is.
        function: CoreNumber,
        /// Which.
        instance: InstanceId,
        /// Of which version.
        version: VersionId,
        /// How much, when awake.
        need: RoomNeed,
        /// For what.
        urgency: Urgency,
        /// Echoed by the grant: one that answers an earlier ask is out of date.
        number: OperationNumber,
    },
    /// An instance of an earlier server has this room, whatever the ledger says.
    Hold {
        /// Whose it is.
        function: CoreNumber,
        /// Which.
        instance: InstanceId,
        /// Of which version.
        version: VersionId,
        /// How much, when awake.
        need: RoomNeed,
        /// Where.
        place: Place,
        /// Asleep on this rung.
        rung: Option<Rung>,
    },
    /// An instance needs none any more.
    Release {
        /// Which.
        instance: InstanceId,
    },
    /// An instance has come to rest and keeps only what its rung keeps.
    Rests {
        /// Which.
        instance: InstanceId,
        /// Where.
        rung: Rung,
    },
    /// An instance asleep does not want to wake any more; what it was granted for that is given back.
    Cancel {
        /// Which.
        instance: InstanceId,
    },
    /// Devices are not to be used: who holds any of their memory is asked for it, and told again asks those who could not give it
    /// before.
    Yield {
        /// The devices.
        place: Place,
        /// Until when, boot time; `u64::MAX` where nobody knows.
        until: u64,
    },
    /// Devices may be used again.
    Regain {
        /// The devices.
        place: Place,
    },
    /// A pool does not answer: nothing is granted in it.
    Lose {
        /// Its number in the inventory.
        pool: u16,
    },
    /// A pool answers again.
    Find {
        /// Its number in the inventory.
        pool: u16,
    },
    /// What all functions together may take from now on. Nobody is asked for what is beyond it.
    Limit(Quota),
    /// An instance needs so much of its device from now on, when awake: it was measured.
    Resize {
        /// Which.
        instance: InstanceId,
        /// What it needs of devices.
        gpu: Gpu,
    },
    /// From the placer to itself, behind what it told functions: their offers come before it does the second time. Only then it
    /// chooses among them.
    Weigh {
        /// It is the second time.
        again: bool,
    },
    /// An instance that was given room serves.
    Serving {
        /// Which.
        instance: InstanceId,
    },
    /// While pressed: this one's room could be given up.
    Offer {
        /// Which.
        instance: InstanceId,
        /// At what loss.
        offer: Offer,
    },
    /// Not any more.
    Withdraw {
        /// Which.
        instance: InstanceId,
    },
    /// An instance cannot be given up now, though it was asked for.
    Declined {
        /// Which.
        instance: InstanceId,
    },
    /// What an instance keeps of what its rung gives back, in bytes; told before it rests there.
    Residue {
        /// Which.
        instance: InstanceId,
        /// Host memory, of one that is spilled.
        memory: u64,
        /// Memory of its device, of one that is parked.
        gpu: u64,
    },
    /// How much memory an instance was seen to use, in bytes; what exceeds its declaration is counted too. What was not
    /// measured stays as it was.
    Observed {
        /// Which.
        instance: InstanceId,
        /// Host memory.
        memory: Option<u64>,
        /// Memory of its device.
        gpu: Option<u64>,
    },
}

/// What the placer tells functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromPlacer {
    /// There is room.
    Grant {
        /// For which instance.
        instance: InstanceId,
        /// Where.
        place: Place,
        /// Of the ask.
        number: OperationNumber,
        /// The function that gave room up for it.
        from: Option<CoreNumber>,
    },
    /// There never will be: it needs more than any host has.
    Refuse {
        /// Which instance.
        instance: InstanceId,
    },
    /// There is none now.
    Waits {
        /// For which instance.
        instance: InstanceId,
        /// Of what.
        lack: Shortage,
    },
    /// Somebody waits: offer what could be given up, until relaxed.
    Press {
        /// How many turns an idle instance has before it is offered, because too much time goes into changing hands in vain;
        /// 0 where it does not.
        stretch: u8,
        /// No turn is longer, milliseconds.
        longest: u64,
    },
    /// Nobody waits any more.
    Relax,
    /// Please give this one's room up.
    Evict {
        /// Which instance.
        instance: InstanceId,
        /// What is needed of it.
        lack: Shortage,
        /// The function that waits; none where its device is yielded.
        by: Option<CoreNumber>,
    },
    /// An instance of this version gave its room up for a new version that has failed: it may come back.
    Restore {
        /// Which version.
        version: VersionId,
    },
}

/// For what room is asked. The later ones count as having come later; the last two never cost a kept instance its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Urgency {
    /// Requests wait.
    Demand,
    /// A new version proves itself.
    Candidate,
    /// A successor of an instance that works.
    Rotation,
    /// `instances.min` wants it.
    Minimum,
}

impl Urgency {
    /// A new version takes its place in the order like a request: else the old one would take the room for its last requests.
    pub(super) fn steps(self) -> u64 {
        match self {
            Self::Demand | Self::Candidate => 0,
            Self::Rotation => 2,
            Self::Minimum => 3,
        }
    }
}
