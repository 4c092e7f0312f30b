//! What is learnt outlives a core and a server.

use std::sync::Arc;

use kip_spec::scaling::Scaling;
use kip_spec::{InstanceId, VersionId};

use crate::function::tests::policy;
use crate::recording::{Recording, STEPS};
use crate::{
    Call, CoreHost, CoreNumber, Effect, Event, History, Now, Operate, OperationOutcome, Place, Policy, Ticket, ToPlacer,
};
use crate::{FoundState, FromPlacer, Rung, State};

fn auto() -> Arc<Policy> {
    Arc::new(Policy { scaling: Scaling::Auto(Box::default()), ..policy() })
}

/// A shell without time: starts take 30 s, everything else none.
struct Shell {
    host: CoreHost,
    now: Now,
    tickets: u64,
}

impl Shell {
    fn new(boot: u32, now: Now) -> Self {
        Self { host: CoreHost::new(boot, CoreNumber(1), Some((VersionId(1), auto()))), now, tickets: 0 }
    }

    fn step(&mut self, event: Event) {
        let mut effects = Vec::new();
        assert_eq!(self.host.step(self.now, event, &mut effects), None);
        for effect in effects {
            match effect {
                Effect::Tell(ToPlacer::Ask { instance, number, .. }) => {
                    let grant = FromPlacer::Grant { instance, place: Place::default(), number, from: None };
                    self.step(Event::Placer(grant));
                }
                Effect::Operate { instance, operation, what, .. } => {
                    let seen = match what {
                        Operate::Start { .. } => {
                            self.pass(30_000);
                            OperationOutcome::Started
                        }
                        Operate::Pause => OperationOutcome::Paused,
                        Operate::Resume { .. } => OperationOutcome::Resumed,
                        _ => OperationOutcome::Stopped,
                    };
                    self.step(Event::Observed { instance, operation, seen });
                }
                _ => {}
            }
        }
    }

    fn pass(&mut self, time: u64) {
        self.now = Now { boot: self.now.boot + time, wall: self.now.wall + i64::try_from(time).unwrap() };
    }

    /// A request of a second, and then nothing for so long.
    fn request(&mut self, gap: u64) {
        let ticket = Ticket(self.tickets);
        self.tickets += 1;
        self.step(Event::Arrive { ticket, call: Call::default() });
        self.pass(1_000);
        self.step(Event::Leave { ticket });
        self.pass(gap);
        self.step(Event::Tick);
    }

    /// So many requests, some of them at once.
    fn traffic(&mut self, requests: u64) {
        for number in 0..requests {
            self.request(if number % 3 == 0 { 90_000 } else { 700 });
        }
    }

    fn states(&self) -> Vec<State> {
        self.host.core().into_iter().flat_map(|core| core.instances().map(|instance| instance.state)).collect()
    }
}

fn used_every_forty_minutes() -> (Shell, History) {
    let mut shell = Shell::new(1, Now { boot: 5_000_000, wall: 1_700_000_000_000 });
    (0..8).for_each(|_| shell.request(2_400_000));
    let history = shell.host.history(shell.now).expect("something was learnt");
    (shell, history)
}

#[test]
fn a_function_without_instances_remembers() {
    let (mut shell, _) = used_every_forty_minutes();
    shell.pass(86_400_000);
    shell.step(Event::Tick);
    assert_eq!(shell.states(), [], "nobody came for a day");
    assert!(shell.host.core().is_none(), "nothing of the core is left");
    let kept = shell.host.history(shell.now).expect("what was learnt is kept");
    shell.request(2_300_000);
    let gone_on = shell.host.history(shell.now).unwrap();
    assert!(gone_on.costs.start > 20_000 && kept.costs.start > 20_000, "{:?}", gone_on.costs);
    assert_eq!(shell.states(), [State::Paused], "the next request comes every forty minutes");
}

#[test]
fn the_server_after_it_goes_on_even_on_another_boot_of_the_host() {
    let (shell, history) = used_every_forty_minutes();
    let text = serde_json::to_string(&history).unwrap();
    assert!(text.len() < 8_192, "{} bytes", text.len());
    let read: History = serde_json::from_str(&text).unwrap();
    assert_eq!(read, history);
    // The host was started again, and its boot time with it.
    let now = Now { boot: 90_000, wall: shell.now.wall + 90_000 };
    let mut next = Shell::new(2, now);
    next.host.remember(&Event::Learnt { history: Box::new(read.moved(now)) });
    assert_eq!(next.host.history(now).map(|history| history.costs), Some(history.costs));
    next.request(2_300_000);
    assert_eq!(next.states(), [State::Paused], "kept by the gaps that the server before has seen");
    // One that knows nothing lets it go when its sleep has cost as much as a start.
    let mut fresh = Shell::new(2, now);
    fresh.request(100_000_000);
    assert_eq!(fresh.states(), []);
}

#[test]
fn a_new_version_goes_on_from_the_one_before() {
    let (mut shell, history) = used_every_forty_minutes();
    shell.step(Event::Deploy { version: VersionId(2), policy: auto() });
    assert_eq!(shell.host.serving(), Some(VersionId(2)));
    assert_eq!(shell.host.history(shell.now).map(|now| now.costs.start > 20_000), Some(true));
    assert!(history.costs.start > 20_000);
}

#[test]
fn a_removed_function_is_forgotten() {
    let (mut shell, _) = used_every_forty_minutes();
    shell.step(Event::Remove);
    assert_eq!(shell.host.history(shell.now), None);
}

#[test]
fn an_instance_that_was_found_is_not_ended_because_nothing_is_known_of_its_use() {
    let now = Now { boot: 5_000_000, wall: 1_700_000_000_000 };
    let mut shell = Shell::new(2, now);
    let instance = InstanceId { boot: 1, core: 1, sequence: 1 };
    let found = FoundState {
        place: Place::default(),
        asleep: Some(Rung::Paused),
        busy: 0,
        provisioned: false,
        born: now.boot - 1_000,
    };
    shell.step(Event::Adopt { instance, version: VersionId(1), policy: auto(), found });
    let mut effects = Vec::new();
    shell.host.serve(shell.now, &mut effects);
    shell.step(Event::Tick);
    assert_eq!(shell.states(), [State::Paused]);
}

#[test]
fn a_recording_is_decided_again_the_same_and_is_bounded() {
    let mut shell = Shell::new(1, Now { boot: 5_000_000, wall: 1_700_000_000_000 });
    shell.traffic(20);
    shell.host.record();
    shell.traffic(50);
    let text = serde_json::to_string(shell.host.recording().unwrap()).unwrap();
    let recording: Recording = serde_json::from_str(&text).unwrap();
    let replayed = recording.replay();
    assert_eq!((replayed.steps, replayed.divergence), (recording.len(), None));
    assert!(replayed.steps > 150 && replayed.decisions > 150, "{} of {}", replayed.decisions, replayed.steps);
    assert!(recording.span().is_some_and(|(first, last)| last > first));
    // Over several snapshots.
    shell.traffic(5_000);
    let recording = shell.host.recording().unwrap();
    assert!((STEPS..=2 * STEPS).contains(&recording.len()), "{}", recording.len());
    assert_eq!(recording.replay().divergence, None);
    assert!(shell.host.end_recording() && !shell.host.end_recording());
}

#[test]
fn a_recording_that_does_not_fit_is_found_out() {
    let mut shell = Shell::new(1, Now { boot: 5_000_000, wall: 1_700_000_000_000 });
    shell.host.record();
    shell.traffic(10);
    let mut value = serde_json::to_value(shell.host.recording().unwrap()).unwrap();
    let steps = value["parts"][0]["steps"].as_array_mut().unwrap();
    let at = steps.iter().rposition(|step| !step["effects"].as_array().unwrap().is_empty()).unwrap();
    steps[at]["effects"].as_array_mut().unwrap().pop();
    let replayed = serde_json::from_value::<Recording>(value).unwrap().replay();
    assert_eq!(replayed.steps, at, "up to the decision that is another one");
    let (step, found) = *replayed.divergence.unwrap();
    assert_eq!(found.len(), step.effects.len() + 1);
}
