//! Bugs planted on purpose. Each breaks what a core is told or answers, so that the product's code has no switches for
//! tests; a simulator that does not find them does not look.

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlantedBug {
    /// In one of seven milliseconds the end of a request is not told.
    ForgottenLeave,
    /// Room is not always given back.
    ForgottenRelease,
    /// The placer's wish to have room back is lost.
    ForgottenEvict,
    /// An instance is asleep, but its core is told that pausing failed.
    SwallowedPause,
    /// A wake is answered by an older wake's answer, with the number of the present one.
    StaleAnswer,
    /// A start is reported before the program is ready.
    EagerStart,
    /// The placer believes that everybody needs nothing.
    BlindLedger,
    /// Some timers never fire.
    LostTick,
    /// Whoever is asked says that bytes came just now.
    BlindWatchdog,
    /// A restarted server overlooks some instances.
    LostAdoption,
    /// An adopted sleeper is taken for one that is awake.
    AdoptedAwake,
    /// Nobody is told that there is no room for it now.
    SwallowedWaits,
    /// Some asks for room never reach the placer.
    LostAsk,
    /// An ask for room is never withdrawn.
    ForgottenCancel,
    /// Some instances end, and their core never hears of it.
    EndlessStop,
    /// A function that is asked for room of a sleeper always declines.
    Stubborn,
    /// Some tasks are accepted on the disk, and memory never hears of them.
    LostAdmit,
    /// A claim is written whatever has become of its task meanwhile.
    UnfencedClaim,
    /// The book is not told of ordering keys.
    ForgottenOrder,
    /// The book takes all tenants for one.
    OneTenant,
    /// Nobody tells cores that tasks wait.
    DeafBacklog,
    /// A restarted server runs held tasks again, though their runs go on.
    DoubleRun,
    /// Nobody starts the instances that a step of a rollout needs.
    ForgottenPrepare,
    /// The placer is not told of ports.
    ForgottenPort,
}

/// All of them.
pub const PLANTS: [PlantedBug; 24] = [
    PlantedBug::ForgottenLeave,
    PlantedBug::ForgottenRelease,
    PlantedBug::ForgottenEvict,
    PlantedBug::SwallowedPause,
    PlantedBug::StaleAnswer,
    PlantedBug::EagerStart,
    PlantedBug::BlindLedger,
    PlantedBug::LostTick,
    PlantedBug::BlindWatchdog,
    PlantedBug::LostAdoption,
    PlantedBug::AdoptedAwake,
    PlantedBug::SwallowedWaits,
    PlantedBug::LostAsk,
    PlantedBug::ForgottenCancel,
    PlantedBug::EndlessStop,
    PlantedBug::Stubborn,
    PlantedBug::LostAdmit,
    PlantedBug::UnfencedClaim,
    PlantedBug::ForgottenOrder,
    PlantedBug::OneTenant,
    PlantedBug::DeafBacklog,
    PlantedBug::DoubleRun,
    PlantedBug::ForgottenPrepare,
    PlantedBug::ForgottenPort,
];
