//! The tables, and changes of them inside the writer's transaction.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::blobs::{INLINE, Pin};
use super::events;
use super::model::{DeliveryOutcome, NewTask, Output, Step, StepOutcome, SubmitOutcome};
use super::writer::Scratch;
use kip_spec::task::{OPEN_BELOW, TaskNumber};

/// `tasks_open` is the one index: what is ready, claimed or expiring is found through it and ordered in memory. `ids` holds
/// only what callers chose; a generated id is the row's number. A delivery's number never comes back: receivers tell
/// repetitions by it. What is given and answered is apart, because a row is written anew at each step.
pub(crate) const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE meta (one INTEGER PRIMARY KEY CHECK (one = 1), next INTEGER NOT NULL) STRICT;
    INSERT INTO meta VALUES (1, 1);
    CREATE TABLE tasks (
        number INTEGER PRIMARY KEY,
        function TEXT NOT NULL,
        qualifier TEXT NOT NULL,
        tenant TEXT NOT NULL,
        id TEXT,
        kind INTEGER NOT NULL,
        priority INTEGER NOT NULL,
        order_key TEXT,
        created INTEGER NOT NULL,
        expires_at INTEGER NOT NULL,
        state INTEGER NOT NULL,
        epoch INTEGER NOT NULL,
        boot INTEGER NOT NULL,
        lease_until INTEGER NOT NULL,
        run_at INTEGER NOT NULL,
        started INTEGER NOT NULL,
        ended INTEGER NOT NULL,
        errors INTEGER NOT NULL,
        crashes INTEGER NOT NULL,
        refusals INTEGER NOT NULL,
        instance TEXT,
        status INTEGER NOT NULL,
        error_kind TEXT,
        error TEXT,
        events TEXT NOT NULL,
        destinations TEXT NOT NULL,
        progress TEXT
    ) STRICT;
    CREATE INDEX tasks_open ON tasks (number) WHERE state < 10;
    CREATE TABLE inputs (
        number INTEGER PRIMARY KEY, envelope TEXT NOT NULL, bytes BLOB, blob TEXT, key TEXT, fingerprint BLOB NOT NULL
    ) STRICT;
    CREATE TABLE outputs (number INTEGER PRIMARY KEY, head TEXT NOT NULL, bytes BLOB, blob TEXT) STRICT;
    CREATE TABLE ids (
        function TEXT NOT NULL, kind INTEGER NOT NULL, id TEXT NOT NULL, number INTEGER NOT NULL,
        PRIMARY KEY (function, kind, id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE deliveries (
        id INTEGER PRIMARY KEY, task INTEGER NOT NULL, target TEXT NOT NULL, attempts INTEGER NOT NULL,
        run_at INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE configs (function TEXT NOT NULL, qualifier TEXT NOT NULL, text TEXT NOT NULL,
        PRIMARY KEY (function, qualifier)) STRICT, WITHOUT ROWID;
    CREATE TABLE blobs (hash TEXT PRIMARY KEY, refs INTEGER NOT NULL) STRICT, WITHOUT ROWID;
",
    "
    ALTER TABLE deliveries RENAME TO earlier;
    CREATE TABLE deliveries (
        id INTEGER PRIMARY KEY AUTOINCREMENT, task INTEGER NOT NULL, target TEXT NOT NULL, attempts INTEGER NOT NULL,
        run_at INTEGER NOT NULL
    ) STRICT;
    INSERT INTO deliveries SELECT id, task, target, attempts, run_at FROM earlier;
    DROP TABLE earlier;
",
    // `server`: claims of another server are not ours to void. `last_event` counts what happened, and reports of progress are apart,
    // because a row is written anew at each step and may not grow with them.
    "
    ALTER TABLE tasks ADD COLUMN function_id INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE tasks ADD COLUMN server TEXT NOT NULL DEFAULT '';
    ALTER TABLE tasks ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE tasks ADD COLUMN last_event INTEGER NOT NULL DEFAULT 1;
    UPDATE tasks SET last_event = 1 + length(events) - length(replace(events, char(10), ''));
    CREATE TABLE progress (
        task INTEGER NOT NULL, event INTEGER NOT NULL, at INTEGER NOT NULL, text TEXT NOT NULL, PRIMARY KEY (task, event)
    ) STRICT, WITHOUT ROWID;
",
];

/// In `ids`: an id that a caller chose, or its idempotency key.
pub(super) const BY_ID: u8 = 0;
const BY_KEY: u8 = 1;

type Result<T> = std::result::Result<T, rusqlite::Error>;

/// SQLite counts with a sign; our numbers never come near its limit.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The next task's number, and the mark in `meta` that keeps numbers from being used again after their rows went.
pub(super) fn next_number(c: &Connection) -> Result<u64> {
    let next: i64 = c.query_row(
        "SELECT max((SELECT next FROM meta), (SELECT coalesce(max(number), 0) + 1 FROM tasks))",
        [],
        |row| row.get(0),
    )?;
    Ok(next.unsigned_abs())
}

pub(super) fn accept(c: &Connection, task: &NewTask, blob: Option<&Pin>, next: &mut u64) -> Result<SubmitOutcome> {
    for (kind, id) in [(BY_ID, &task.id), (BY_KEY, &task.key)] {
        let Some(id) = id else { continue };
        let known = c
            .prepare_cached(
                "SELECT ids.number, inputs.fingerprint FROM ids JOIN inputs USING (number)
                 WHERE function = ?1 AND kind = ?2 AND id = ?3",
            )?
            .query_row(params![task.function, kind, id], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))
            .optional()?;
        if let Some((number, fingerprint)) = known {
            let number = TaskNumber(number.unsigned_abs());
            let same = fingerprint == task.fingerprint;
            return Ok(if same { SubmitOutcome::Known(number) } else { SubmitOutcome::Conflict(number) });
        }
    }
    let number = signed(*next);
    c.prepare_cached(
        "INSERT INTO tasks (number, function, qualifier, tenant, id, kind, priority, order_key, created, expires_at, run_at,
             function_id, state, epoch, boot, lease_until, started, ended, errors, crashes, refusals, status, events,
             destinations)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, '', '')",
    )?
    .execute(params![
        number,
        task.function,
        task.qualifier,
        task.tenant,
        task.id,
        task.kind,
        task.priority,
        task.order,
        task.created,
        task.expires_at,
        task.run_at,
        signed(task.function_id.0)
    ])?;
    let inline = blob.is_none().then_some(&task.payload[..]);
    let hash = blob.map(|pin| pin.hash.as_str());
    c.prepare_cached("INSERT INTO inputs VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?.execute(params![
        number,
        task.envelope,
        inline,
        hash,
        task.key,
        &task.fingerprint[..]
    ])?;
    refer(c, hash)?;
    for (kind, id) in [(BY_ID, &task.id), (BY_KEY, &task.key)] {
        let Some(id) = id else { continue };
        c.prepare_cached("INSERT INTO ids VALUES (?1, ?2, ?3, ?4)")?.execute(params![
            task.function,
            kind,
            id,
            number
        ])?;
    }
    *next += 1;
    Ok(SubmitOutcome::New(TaskNumber(number.unsigned_abs())))
}

fn refer(c: &Connection, hash: Option<&str>) -> Result<()> {
    if let Some(hash) = hash {
        c.prepare_cached("INSERT INTO blobs VALUES (?1, 1) ON CONFLICT (hash) DO UPDATE SET refs = refs + 1")?
            .execute([hash])?;
    }
    Ok(())
}

/// Takes a reference away. Files that lost their last one are added to `loose`.
fn release(c: &Connection, hash: Option<String>, loose: &mut Vec<String>) -> Result<()> {
    let Some(hash) = hash else { return Ok(()) };
    c.prepare_cached("UPDATE blobs SET refs = refs - 1 WHERE hash = ?1")?.execute([&hash])?;
    if c.prepare_cached("DELETE FROM blobs WHERE hash = ?1 AND refs <= 0")?.execute([&hash])? > 0 {
        loose.push(hash);
    }
    Ok(())
}

pub(super) fn is_referred_to(c: &Connection, hash: &str) -> bool {
    // In doubt it stays; the next start sweeps.
    c.query_row("SELECT count(*) FROM blobs WHERE hash = ?1", [hash], |row| row.get::<_, i64>(0)).unwrap_or(1) > 0
}

pub(super) fn advance(c: &Connection, step: &Step, blob: Option<&Pin>, scratch: &mut Scratch) -> Result<StepOutcome> {
    let (to, loose) = (&step.to, &mut scratch.loose);
    let changed = c
        .prepare_cached(
            "UPDATE tasks SET state = ?4, epoch = ?5, boot = ?6, lease_until = ?7, run_at = ?8, started = ?9, ended = ?10,
             errors = ?11, crashes = ?12, refusals = ?13, instance = ?14, status = ?15, error_kind = ?16, error = ?17,
             events = events || iif(?20 = 0, '', (last_event + 1) || ?18), expires_at = ?19, last_event = last_event + ?20,
             server = ?21, revision = ?22
             WHERE number = ?1 AND state = ?2 AND epoch = ?3 AND (?23 IS NULL OR function_id IN (0, ?23))",
        )?
        .execute(params![
            signed(step.number.0),
            step.from.number(),
            step.epoch,
            to.state.number(),
            to.epoch,
            to.boot,
            signed(to.lease_until),
            to.run_at,
            to.started,
            to.ended,
            to.errors,
            to.crashes,
            to.refusals,
            to.instance,
            to.status,
            to.error_kind,
            to.error,
            events::lines(&step.events),
            to.expires_at,
            i64::try_from(step.events.len()).unwrap_or(i64::MAX),
            to.server,
            signed(to.revision),
            step.function.map(|id| signed(id.0))
        ])?;
    if changed == 0 {
        return Ok(StepOutcome::default());
    }
    if let Some(Output { head, body }) = &step.output {
        forget_output(c, step.number, loose)?;
        let hash = blob.map(|pin| pin.hash.as_str());
        c.prepare_cached("INSERT INTO outputs VALUES (?1, ?2, ?3, ?4)")?.execute(params![
            signed(step.number.0),
            head,
            hash.is_none().then_some(&body[..]),
            hash
        ])?;
        refer(c, hash)?;
    }
    let mut deliveries = Vec::new();
    for delivery in &step.deliveries {
        c.prepare_cached("INSERT INTO deliveries (task, target, attempts, run_at) VALUES (?1, ?2, 0, ?3)")?
            .execute(params![signed(step.number.0), delivery.target, delivery.run_at])?;
        deliveries.push(c.last_insert_rowid().unsigned_abs());
    }
    scratch.steps += 1;
    Ok(StepOutcome { applied: true, order: scratch.steps, deliveries })
}

pub(super) fn renew(c: &Connection, claims: &[(TaskNumber, u32)], until: u64) -> Result<Vec<bool>> {
    let mut update =
        c.prepare_cached("UPDATE tasks SET lease_until = ?3 WHERE number = ?1 AND epoch = ?2 AND state IN (1, 3)")?;
    claims
        .iter()
        .map(|(number, epoch)| Ok(update.execute(params![signed(number.0), epoch, signed(until)])? > 0))
        .collect()
}

/// Reports of progress of a task that are kept.
const KEPT_REPORTS: u32 = 100;

pub(super) fn note_progress(c: &Connection, number: TaskNumber, epoch: u32, at: i64, text: &str) -> Result<bool> {
    let event: Option<i64> = c
        .prepare_cached(
            "UPDATE tasks SET progress = ?3, last_event = last_event + 1
             WHERE number = ?1 AND epoch = ?2 AND state IN (1, 3) RETURNING last_event",
        )?
        .query_row(params![signed(number.0), epoch, text], |row| row.get(0))
        .optional()?;
    let Some(event) = event else { return Ok(false) };
    c.prepare_cached("INSERT INTO progress VALUES (?1, ?2, ?3, ?4)")?.execute(params![
        signed(number.0),
        event,
        at,
        text
    ])?;
    c.prepare_cached(
        "DELETE FROM progress WHERE task = ?1
         AND event <= (SELECT event FROM progress WHERE task = ?1 ORDER BY event DESC LIMIT 1 OFFSET ?2)",
    )?
    .execute(params![signed(number.0), KEPT_REPORTS])?;
    Ok(true)
}

pub(super) fn delivered(c: &Connection, id: u64, result: &DeliveryOutcome) -> Result<()> {
    let (outcome, again) = match result {
        DeliveryOutcome::Done { outcome } => (outcome, None),
        DeliveryOutcome::Again { run_at, outcome } => (outcome, Some(*run_at)),
    };
    let task: Option<i64> = c
        .prepare_cached("SELECT task FROM deliveries WHERE id = ?1")?
        .query_row([signed(id)], |row| row.get(0))
        .optional()?;
    let Some(task) = task else { return Ok(()) };
    match again {
        None => c.prepare_cached("DELETE FROM deliveries WHERE id = ?1")?.execute([signed(id)])?,
        Some(run_at) => c
            .prepare_cached("UPDATE deliveries SET attempts = attempts + 1, run_at = ?2 WHERE id = ?1")?
            .execute(params![signed(id), run_at])?,
    };
    // One line for each word, the latest. Lines begin with the word's number.
    let lines: Option<String> = c
        .prepare_cached("SELECT destinations FROM tasks WHERE number = ?1")?
        .query_row([task], |row| row.get(0))
        .optional()?;
    let mark = format!("{id} ");
    let mut lines: Vec<String> =
        lines.unwrap_or_default().lines().filter(|line| !line.starts_with(&mark)).map(str::to_owned).collect();
    lines.push(mark + &outcome.replace('\n', " "));
    c.prepare_cached("UPDATE tasks SET destinations = ?2 WHERE number = ?1")?
        .execute(params![task, lines.join("\n")])?;
    Ok(())
}

pub(super) fn put_config(c: &Connection, function: &str, qualifier: &str, text: Option<&str>) -> Result<()> {
    match text {
        Some(text) => c
            .prepare_cached("INSERT INTO configs VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET text = ?3")?
            .execute([function, qualifier, text])?,
        None => c
            .prepare_cached("DELETE FROM configs WHERE function = ?1 AND qualifier = ?2")?
            .execute([function, qualifier])?,
    };
    Ok(())
}

fn forget_output(c: &Connection, number: TaskNumber, loose: &mut Vec<String>) -> Result<()> {
    let blob: Option<Option<String>> = c
        .prepare_cached("DELETE FROM outputs WHERE number = ?1 RETURNING blob")?
        .query_row([signed(number.0)], |row| row.get(0))
        .optional()?;
    release(c, blob.flatten(), loose)
}

/// Forgets one task that is over. Its words still to be sent go with it.
pub(super) fn forget(c: &Connection, number: TaskNumber, next: u64, loose: &mut Vec<String>) -> Result<bool> {
    let row = signed(number.0);
    let gone: Option<(String, Option<String>)> = c
        .prepare_cached("DELETE FROM tasks WHERE number = ?1 AND state >= ?2 RETURNING function, id")?
        .query_row(params![row, OPEN_BELOW], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((function, id)) = gone else { return Ok(false) };
    // The number must not come back, even if this was the last row.
    c.prepare_cached("UPDATE meta SET next = max(next, ?1)")?.execute([signed(next)])?;
    let input: Option<(Option<String>, Option<String>)> = c
        .prepare_cached("DELETE FROM inputs WHERE number = ?1 RETURNING blob, key")?
        .query_row([row], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (blob, key) = input.unwrap_or_default();
    release(c, blob, loose)?;
    forget_output(c, number, loose)?;
    for (kind, id) in [(BY_ID, id), (BY_KEY, key)] {
        let Some(id) = id else { continue };
        c.prepare_cached("DELETE FROM ids WHERE function = ?1 AND kind = ?2 AND id = ?3 AND number = ?4")?
            .execute(params![function, kind, id, row])?;
    }
    c.prepare_cached("DELETE FROM deliveries WHERE task = ?1")?.execute([row])?;
    c.prepare_cached("DELETE FROM progress WHERE task = ?1")?.execute([row])?;
    Ok(true)
}

/// Looks at the next rows for tasks whose time is over. See [`super::TaskStore::prune`].
pub(super) fn prune(
    c: &Connection,
    after: TaskNumber,
    ended_before: i64,
    next: u64,
    loose: &mut Vec<String>,
) -> Result<Option<TaskNumber>> {
    const LOOK: usize = 5_000;
    const TAKE: usize = 500;
    let mut seen = 0;
    let mut last = after;
    let mut over = Vec::new();
    let mut rows =
        c.prepare_cached("SELECT number, state, ended, created FROM tasks WHERE number > ?1 ORDER BY number LIMIT ?2")?;
    let mut rows = rows.query(params![signed(after.0), signed(LOOK as u64)])?;
    let number_of = |row: &Row<'_>| row.get::<_, i64>(0).map(|number| TaskNumber(number.unsigned_abs()));
    while let Some(row) = rows.next()? {
        // What was accepted later was over later.
        if row.get::<_, i64>(3)? >= ended_before {
            seen = 0;
            break;
        }
        seen += 1;
        last = number_of(row)?;
        if row.get::<_, u8>(1)? >= OPEN_BELOW && row.get::<_, i64>(2)? < ended_before {
            over.push(last);
            if over.len() == TAKE {
                break;
            }
        }
    }
    for number in &over {
        let sends = c.prepare_cached("SELECT 1 FROM deliveries WHERE task = ?1")?.exists([signed(number.0)])?;
        if !sends {
            forget(c, *number, next, loose)?;
        }
    }
    Ok((seen == LOOK || over.len() == TAKE).then_some(last))
}

/// Whether bytes go into a file of their own.
pub(super) fn is_large(bytes: &[u8]) -> bool {
    bytes.len() > INLINE
}
