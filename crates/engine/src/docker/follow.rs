//! What the engine reports: each connection to its event stream lists our containers first and then follows from that time, so that
//! nothing that happened in between is missed.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::StreamExt as _;
use kip_spec::InstanceId;

use super::connect::{self, Engine};
use super::failure::Failure;
use super::inspect::{self, Listed};
use super::instance::Instance;
use super::{Shared, labels, start};
use crate::body::{BodyEvent, InstanceEnd, Liveness};

/// From the end of a stream to the next connection; twice as long each time that fails.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Exit codes from here on say which signal ended a program.
const SIGNALLED: i64 = 128;

/// Our containers, by what their labels say.
pub(super) async fn list(engine: &Engine, server: &str) -> Result<Vec<(Listed, labels::Labels)>, Failure> {
    let all = inspect::list(engine, &format!("{}={server}", labels::SERVER)).await?;
    let ours = |container: Listed| {
        let labels = labels::read(container.labels.as_ref()?)?;
        Some((container, labels))
    };
    Ok(all.into_iter().filter_map(ours).collect())
}

/// Follows the engine for as long as the body is there.
pub(super) async fn follow(shared: Weak<Shared>, mut engine: Arc<Engine>) {
    let mut pause = FIRST_PAUSE;
    let mut away_since = None;
    loop {
        let Some(body) = shared.upgrade() else { return };
        let since = kip_host::clock::wall_millis();
        match list(&engine, &body.options.server).await {
            Ok(found) => {
                (pause, away_since) = (FIRST_PAUSE, None);
                body.forward_again().await;
                body.reconcile(&engine, &found).await;
                body.reach(true).await;
                body.tell_pool(true).await;
                let server = body.options.server.clone();
                drop(body);
                stream(&shared, &engine, &server, since).await;
            }
            Err(error) => {
                if away_since.is_none() {
                    tracing::warn!(%error, "the container engine is away; what runs as processes of this host goes on");
                }
                let since = *away_since.get_or_insert_with(kip_host::clock::boot_millis);
                body.tell_pool(false).await;
                body.reach(false).await;
                body.give_up(since).await;
                drop(body);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                let Some(body) = shared.upgrade() else { return };
                // Another version of it may answer.
                if let Ok(again) = connect::connect(&body.options.address, body.tunnel.as_deref()).await {
                    engine = Arc::new(again);
                    body.connected(engine.clone());
                }
                continue;
            }
        }
        tokio::time::sleep(FIRST_PAUSE).await;
    }
}

async fn stream(shared: &Weak<Shared>, engine: &Arc<Engine>, server: &str, since: i64) {
    let filters = HashMap::from([
        ("type".to_owned(), vec!["container".to_owned()]),
        ("label".to_owned(), vec![format!("{}={server}", labels::SERVER)]),
    ]);
    let since = (since / 1_000).to_string();
    let options = EventsOptionsBuilder::default().since(&since).filters(&filters).build();
    let mut events = std::pin::pin!(engine.docker.events(Some(options)));
    while let Some(Ok(event)) = events.next().await {
        let Some(body) = shared.upgrade() else { return };
        if let Some(instance) = ended(&event)
            && let Ok(instance) = body.roster.known(instance)
        {
            let engine = engine.clone();
            // Each by itself: the engine may take a moment to say how it ended.
            kip_host::tasks::spawn("container ended", async move { body.look_at_end(&engine, &instance).await });
        }
    }
}

/// The instance whose end an event reports.
fn ended(event: &EventMessage) -> Option<InstanceId> {
    // Podman's words and Docker's.
    let ends = ["die", "died", "destroy", "remove", "cleanup"];
    event.action.as_deref().filter(|action| ends.contains(action))?;
    labels::read(event.actor.as_ref()?.attributes.as_ref()?).map(|labels| labels.instance)
}

impl Shared {
    /// Compares what the engine has with what we know: ends that were missed, and containers of ours that nobody owns.
    async fn reconcile(self: &Arc<Self>, engine: &Engine, found: &[(Listed, labels::Labels)]) {
        for instance in self.roster.all() {
            let seen = found.iter().find(|(container, _)| container.id == instance.container);
            if !seen.is_some_and(|(container, _)| container.lives()) {
                self.look_at_end(engine, &instance).await;
            }
        }
        for (container, labels) in found {
            if !self.roster.has(labels.instance) {
                let id = &container.id;
                tracing::warn!(
                    instance = %labels.instance, container = id,
                    "a container of this server that nobody owns is removed"
                );
                if let Err(error) = start::remove(engine, id).await {
                    tracing::error!(container = id, %error, "it is still there");
                }
            }
        }
    }

    /// The engine is there, or away. Instances that are processes of this host are looked at directly meanwhile.
    async fn reach(&self, there: bool) {
        for instance in self.roster.all() {
            if instance.has_ended() {
                continue;
            }
            let process = instance.process.lock().as_ref().map(|(process, _)| *process);
            let lives = process.map(|process| !kip_host::sockets::is_ending(process));
            match (there, lives) {
                (false, Some(false)) => self.finish(&instance, (None, None), false).await,
                (false, None) if *instance.life.borrow() == Liveness::Alive => {
                    instance.life.send_replace(Liveness::Unreachable);
                    let _ = self.events.send(BodyEvent::Unreachable(instance.id)).await;
                }
                (true, _) if instance.is_lost() => {
                    instance.life.send_replace(Liveness::Alive);
                    let _ = self.events.send(BodyEvent::Reachable(instance.id)).await;
                }
                _ => {}
            }
        }
    }

    /// Asks the engine how a container ended, if it has.
    pub(super) async fn look_at_end(&self, engine: &Engine, instance: &Instance) {
        match inspect::inspect(engine, &instance.container).await {
            Ok(found) => {
                if found.state.running || !found.was_started() {
                    return;
                }
                let how = match found.state.exit_code {
                    Some(code @ 129..=192) => (None, i32::try_from(code - SIGNALLED).ok()),
                    Some(code) => (i32::try_from(code).ok(), None),
                    None => (None, None),
                };
                self.finish(instance, how, found.state.oom_killed).await;
            }
            // Removed by somebody.
            Err(Failure::Missing(_)) => self.finish(instance, (None, None), false).await,
            Err(error) => tracing::debug!(instance = %instance.id, %error, "how it ended is not known yet"),
        }
    }

    /// Its main process has ended. Reported once.
    pub(super) async fn finish(&self, instance: &Instance, (code, signal): (Option<i32>, Option<i32>), oom: bool) {
        let counted = || {
            let process = instance.process.lock();
            process.as_ref().is_some_and(|(_, cgroups)| cgroups.out_of_memory() > 0)
        };
        let out_of_memory = if oom || counted() { instance.journal.lock().memory } else { None };
        let end = InstanceEnd { instance: instance.id, code, signal, out_of_memory };
        let first = instance.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            if first {
                *ended = Some(end);
            }
            first
        });
        if first {
            instance.life.send_replace(Liveness::Ended);
            let _ = self.events.send(BodyEvent::Ended(end)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_in_the_words_of_both_engines() {
        let event = |action: &str| {
            let text = format!(
                r#"{{"Type":"container","Action":"{action}","Actor":{{"ID":"ab","Attributes":{{"dev.kipwake.instance":"i-1-2-3"}}}}}}"#
            );
            ended(&serde_json::from_str(&text).expect("an event"))
        };
        let id = "i-1-2-3".parse().ok();
        assert_eq!((event("die"), event("died"), event("destroy"), event("start")), (id, id, id, None));
    }
}
