//! Timer triggers: each time of theirs makes a task, with an id made of the time, so that it comes once over restarts too.

use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use kip_host::clock::wall_millis;
use kip_spec::Millis;
use kip_spec::scaling::{Cron, zone};
use kip_store::StoredTrigger;
use kip_tasks::Submission;
use kip_tasks::envelope::Call;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use crate::Fc;
use crate::error::{FcError, FcResult};
use crate::request::{required, text, time};

/// The longest sleep: clocks are set, and a timer may be missed by a change that is not seen.
const LONGEST: i64 = 60_000;
/// A time that is so late is still kept: the server was busy.
const IN_TIME: i64 = 60_000;

/// A timer trigger as it was sent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Timer {
    when: Schedule,
    enabled: bool,
    payload: String,
}

#[derive(Debug, Clone, PartialEq)]
enum Schedule {
    Every(i64),
    Cron(Box<Cron>, TimeZone),
}

impl Timer {
    /// Reads the settings of a trigger: `@every 4m`, or six fields with a zone before them if there is one.
    pub(crate) fn read(settings: &Map<String, Value>) -> FcResult<Self> {
        let expression = required(settings, "cronExpression")?.trim();
        let wrong = |why: String| FcError::invalid(format!("cronExpression: {why}"));
        let when = match expression.strip_prefix("@every") {
            Some(every) => {
                let every: Millis =
                    every.trim().parse().map_err(|error: kip_spec::units::UnitError| wrong(error.to_string()))?;
                let millis = i64::try_from(every.0).unwrap_or(i64::MAX);
                if millis < 1_000 {
                    return Err(wrong("the shortest interval is 1s".to_owned()));
                }
                Schedule::Every(millis)
            }
            None => {
                let (zone, fields) = match expression.strip_prefix("CRON_TZ=") {
                    Some(rest) => rest.split_once(' ').unwrap_or((rest, "")),
                    None => ("UTC", expression),
                };
                let zone = zone::find(zone).ok_or_else(|| wrong(format!("there is no time zone `{zone}`")))?;
                if fields.split_whitespace().count() != 6 {
                    return Err(wrong("write @every 4m, or six fields that begin with the seconds".to_owned()));
                }
                // The vendor writes `?` for a day that the other day field says.
                let fields = fields.replace('?', "*");
                let cron: Cron = fields.parse().map_err(|error| wrong(format!("{error}")))?;
                Schedule::Cron(Box::new(cron), zone)
            }
        };
        let enabled = settings.get("enable").is_none_or(|enable| enable.as_bool() != Some(false));
        Ok(Self { when, enabled, payload: text(settings, "payload")?.unwrap_or_default().to_owned() })
    }

    /// The next time after `after`, of a timer that was set at `since`. Milliseconds since 1970.
    pub(crate) fn next(&self, since: i64, after: i64) -> Option<i64> {
        match &self.when {
            _ if !self.enabled => None,
            Schedule::Every(every) => {
                let passed =
                    after.checked_sub(since).filter(|passed| *passed >= 0).map_or(0, |passed| passed / every + 1);
                since.checked_add(passed.max(1).checked_mul(*every)?)
            }
            Schedule::Cron(cron, zone) => cron.next(after, zone),
        }
    }
}

/// Woken when triggers change.
#[derive(Debug, Clone, Default)]
pub(crate) struct TimerSignal(Arc<Notify>);

impl Fc {
    /// Timers are read again.
    pub(crate) fn timers_changed(&self) {
        self.timers.0.notify_one();
    }

    /// Runs timers for as long as the server does.
    pub(crate) async fn run_timers(self) {
        let mut behind = wall_millis();
        loop {
            let timers = match self.timers_now().await {
                Ok(timers) => timers,
                Err(error) => {
                    tracing::error!(error = error.message, "timer triggers cannot be read; tried again in a second");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            let now = wall_millis();
            for (trigger, timer) in &timers {
                let since = trigger.changed;
                // A clock that was put forward, or a server that was held up, makes one task of each timer and not a thousand.
                let from = behind.max(now - IN_TIME).max(since);
                let mut due = None;
                let mut at = timer.next(since, from.min(now));
                while let Some(next) = at.filter(|next| *next <= now) {
                    due = Some(next);
                    at = timer.next(since, next);
                }
                if let Some(due) = due.filter(|due| *due > behind || behind > now) {
                    self.fire(trigger, timer, due).await;
                }
            }
            behind = now;
            let next = timers.iter().filter_map(|(trigger, timer)| timer.next(trigger.changed, now)).min();
            let wait = next.map_or(LONGEST, |next| (next - now).clamp(1, LONGEST));
            let wait = Duration::from_millis(u64::try_from(wait).unwrap_or_default());
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.timers.0.notified() => {}
            }
        }
    }

    async fn timers_now(&self) -> FcResult<Vec<(StoredTrigger, Timer)>> {
        let all = self.control.triggers(None).await?;
        let timer = |trigger: StoredTrigger| {
            let timer = Timer::read(&crate::triggers::settings_of_stored(&trigger)).ok()?;
            Some((trigger, timer))
        };
        Ok(all.into_iter().filter(|trigger| trigger.kind == "timer").filter_map(timer).collect())
    }

    async fn fire(&self, trigger: &StoredTrigger, timer: &Timer, due: i64) {
        let event = json!({
            "triggerTime": time(due),
            "triggerName": trigger.name,
            "payload": timer.payload,
        });
        let submission = Submission {
            function: trigger.function.to_string(),
            qualifier: Some(trigger.qualifier.clone()),
            id: Some(format!("timer-{}-{due}", trigger.id)),
            call: Some(Call::event(Some("application/octet-stream".to_owned()))),
            payload: event.to_string().into(),
            request: kip_spec::RequestId::from_bits(kip_host::random::unique()).as_str().to_owned(),
            ..Submission::default()
        };
        match self.tasks.submit(submission).await {
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(function = %trigger.function, trigger = trigger.name, %error, "a timer trigger made no task");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timer(settings: Value) -> FcResult<Timer> {
        Timer::read(settings.as_object().unwrap())
    }

    #[test]
    fn both_forms_are_read_and_tell_their_next_time() {
        let every = timer(json!({"cronExpression": "@every 4m", "enable": true})).unwrap();
        assert_eq!(every.next(1_000, 1_000), Some(241_000));
        assert_eq!(every.next(1_000, 241_000), Some(481_000));
        assert_eq!(every.next(1_000, 0), Some(241_000));
        let nightly = timer(json!({"cronExpression": "0 0 4 * * *"})).unwrap();
        assert_eq!(nightly.next(0, 0), Some(4 * 3_600_000));
        let shanghai = timer(json!({"cronExpression": "CRON_TZ=Asia/Shanghai 0 0 12 * * ?"})).unwrap();
        assert_eq!(shanghai.next(0, 0), Some(4 * 3_600_000));
        let off = timer(json!({"cronExpression": "@every 1h", "enable": false})).unwrap();
        assert_eq!(off.next(0, 0), None);
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for wrong in
            ["", "@every", "@every x", "@every 10ms", "0 4 * * *", "a b c d e f", "CRON_TZ=Mars/Base 0 0 4 * * *"]
        {
            assert!(timer(json!({"cronExpression": wrong})).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_change_of_clocks_neither_doubles_nor_loses_a_day() {
        let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_millisecond();
        // Berlin puts its clocks forward on 29 March 2026, from 2 to 3, and back on 25 October, from 3 to 2.
        for (from, expression) in [
            ("2026-03-26T12:00:00Z", "CRON_TZ=Europe/Berlin 0 30 2 * * *"),
            ("2026-10-22T12:00:00Z", "CRON_TZ=Europe/Berlin 0 30 2 * * *"),
        ] {
            let daily = timer(json!({"cronExpression": expression})).unwrap();
            let (mut now, mut days) = (at(from), Vec::new());
            for _ in 0..6 {
                let next = daily.next(0, now).unwrap();
                assert!(next > now);
                let local = jiff::Timestamp::from_millisecond(next).unwrap().in_tz("Europe/Berlin").unwrap();
                days.push(local.date());
                now = next;
            }
            let mut once = days.clone();
            once.dedup();
            assert_eq!(once, days, "no day has two");
            let span = days.last().unwrap().since(days[0]).unwrap().get_days();
            assert!((5..=6).contains(&span), "a day is left out at most where its time is not there: {days:?}");
        }
        // What is asked by an interval goes by elapsed time.
        let every = timer(json!({"cronExpression": "@every 1h"})).unwrap();
        let since = at("2026-03-28T23:30:00Z");
        assert_eq!(every.next(since, since + 3_600_000), Some(since + 7_200_000));
    }

    #[test]
    fn a_server_that_begins_anew_does_not_fire_again() {
        // The server looks from its start on; the time that it had fired before is behind it.
        let every = timer(json!({"cronExpression": "@every 10s"})).unwrap();
        let fired = every.next(1_000, 1_000).unwrap();
        assert_eq!((fired, every.next(1_000, fired)), (11_000, Some(21_000)));
        let daily = timer(json!({"cronExpression": "0 0 4 * * *"})).unwrap();
        let first = daily.next(0, 0).unwrap();
        assert_eq!(daily.next(0, first), Some(first + 86_400_000), "the same millisecond is not next");
    }
}
