//! Questions about tasks.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};

use super::apply::{BY_ID, signed};
use super::events;
use super::model::{Delivery, StoredEvent, Task, TaskFilter};
use crate::ids::FunctionId;
use kip_spec::task::{TaskNumber, TaskProgress, TaskState};

type Result<T> = std::result::Result<T, rusqlite::Error>;

const COLUMNS: &str = "number, function, qualifier, tenant, id, kind, priority, order_key, created, expires_at, state,
    epoch, boot, lease_until, run_at, started, ended, errors, crashes, refusals, instance, status, error_kind, error,
    function_id, server, revision, size";

/// Names of the row before: those of the next are mostly the same, and then shared.
#[derive(Debug, Default)]
struct Names([Option<Arc<str>>; 4]);

impl Names {
    fn of(&mut self, row: &Row<'_>, column: usize, place: usize) -> Result<Arc<str>> {
        let text = row.get_ref(column)?.as_str()?;
        let Some(last) = self.0.get_mut(place) else { return Ok(Arc::from(text)) };
        match last {
            Some(name) if **name == *text => Ok(name.clone()),
            last => Ok(last.insert(Arc::from(text)).clone()),
        }
    }
}

fn task_of(row: &Row<'_>, names: &mut Names) -> Result<Task> {
    let state: u8 = row.get(10)?;
    let state = TaskState::of_number(state).ok_or(rusqlite::Error::IntegralValueOutOfRange(10, state.into()))?;
    Ok(Task {
        number: TaskNumber(row.get::<_, i64>(0)?.unsigned_abs()),
        function: names.of(row, 1, 0)?,
        function_id: FunctionId(row.get::<_, i64>(24)?.unsigned_abs()),
        qualifier: names.of(row, 2, 1)?,
        tenant: names.of(row, 3, 2)?,
        id: row.get(4)?,
        kind: row.get(5)?,
        priority: row.get(6)?,
        order: row.get(7)?,
        created: row.get(8)?,
        size: row.get::<_, i64>(27)?.unsigned_abs(),
        now: TaskProgress {
            state,
            epoch: row.get(11)?,
            server: names.of(row, 25, 3)?,
            boot: row.get(12)?,
            revision: row.get::<_, i64>(26)?.unsigned_abs(),
            lease_until: row.get::<_, i64>(13)?.unsigned_abs(),
            run_at: row.get(14)?,
            expires_at: row.get(9)?,
            started: row.get(15)?,
            ended: row.get(16)?,
            errors: row.get(17)?,
            crashes: row.get(18)?,
            refusals: row.get(19)?,
            instance: row.get(20)?,
            status: row.get(21)?,
            error_kind: row.get(22)?,
            error: row.get(23)?,
        },
        events: Vec::new(),
        destinations: String::new(),
        progress: None,
        envelope: String::new(),
    })
}

/// Bytes of answers by function and tenant. `of_file` says how large the file of a name is.
pub(super) fn kept_results(c: &Connection, of_file: impl Fn(&str) -> u64) -> Result<Vec<(String, String, u64)>> {
    let mut query = c.prepare_cached(
        "SELECT t.function, t.tenant, coalesce(length(o.bytes), 0), o.blob FROM outputs o JOIN tasks t ON t.number = o.number",
    )?;
    let mut rows = query.query([])?;
    let mut kept: BTreeMap<(String, String), u64> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let file = row.get_ref(3)?.as_str_or_null()?.map_or(0, &of_file);
        let bytes = row.get::<_, i64>(2)?.unsigned_abs() + file;
        *kept.entry((row.get(0)?, row.get(1)?)).or_default() += bytes;
    }
    Ok(kept.into_iter().map(|((function, tenant), bytes)| (function, tenant, bytes)).collect())
}

/// A task with the number of its last event.
fn whole_task_of(row: &Row<'_>) -> Result<(Task, u64)> {
    let mut task = task_of(row, &mut Names::default())?;
    let text = row.get_ref(28)?.as_str()?;
    (task.events, task.destinations) = (events::read(text), row.get(29)?);
    (task.progress, task.envelope) = (row.get(30)?, row.get(31)?);
    let last: i64 = row.get(32)?;
    Ok((task, last.unsigned_abs()))
}

const WHOLE: &str = "events, destinations, progress, envelope, last_event FROM tasks JOIN inputs USING (number)";

pub(super) fn task(c: &Connection, number: TaskNumber) -> Result<Option<Task>> {
    c.prepare_cached(&format!("SELECT {COLUMNS}, {WHOLE} WHERE number = ?1"))?
        .query_row([signed(number.0)], whole_task_of)
        .optional()?
        .map(|(task, last)| with_reports(c, task, last))
        .transpose()
}

/// Adds the reports of progress to the events, if there are some.
fn with_reports(c: &Connection, mut task: Task, last: u64) -> Result<Task> {
    if task.events.len() as u64 + 1 < last {
        let report = |row: &Row<'_>| {
            let text: String = row.get(2)?;
            let value = serde_json::json!({ "Progress": { "text": text } }).to_string();
            Ok(StoredEvent { number: row.get::<_, i64>(0)?.unsigned_abs(), at: row.get(1)?, value })
        };
        let mut query = c.prepare_cached("SELECT event, at, text FROM progress WHERE task = ?1")?;
        for report in query.query_map([signed(task.number.0)], report)? {
            task.events.push(report?);
        }
        task.events.sort_by_key(|event| event.number);
    }
    Ok(task)
}

/// Tenants with the same id that one question finds at most.
const MOST_TENANTS: u32 = 20;

pub(super) fn find(
    c: &Connection,
    function: &str,
    tenant: Option<&str>,
    id: &str,
) -> Result<Vec<(String, TaskNumber)>> {
    c.prepare_cached(&format!(
        "SELECT tenant, number FROM ids WHERE function = ?1 AND kind = ?2 AND id = ?3 AND (?4 IS NULL OR tenant = ?4)
         ORDER BY tenant LIMIT {MOST_TENANTS}"
    ))?
    .query_map((function, BY_ID, id, tenant), |row| {
        Ok((row.get(0)?, TaskNumber(row.get::<_, i64>(1)?.unsigned_abs())))
    })?
    .collect()
}

/// Bytes as they are stored: in the row, or in the file of this name.
#[derive(Debug)]
pub(super) enum StoredBytes {
    Inline(Bytes),
    Blob(String),
}

fn stored(bytes: Option<Vec<u8>>, blob: Option<String>) -> StoredBytes {
    blob.map_or_else(|| StoredBytes::Inline(bytes.unwrap_or_default().into()), StoredBytes::Blob)
}

pub(super) fn payload(c: &Connection, number: TaskNumber) -> Result<Option<StoredBytes>> {
    c.prepare_cached("SELECT bytes, blob FROM inputs WHERE number = ?1")?
        .query_row([signed(number.0)], |row| Ok(stored(row.get(0)?, row.get(1)?)))
        .optional()
}

pub(super) fn output(c: &Connection, number: TaskNumber) -> Result<Option<(String, StoredBytes)>> {
    c.prepare_cached("SELECT head, bytes, blob FROM outputs WHERE number = ?1")?
        .query_row([signed(number.0)], |row| Ok((row.get(0)?, stored(row.get(1)?, row.get(2)?))))
        .optional()
}

/// A filter as SQL and what is to be put into it.
fn condition(filter: &TaskFilter) -> (String, Vec<Value>) {
    let mut parts: Vec<String> = Vec::new();
    let mut values: Vec<Value> = Vec::new();
    let mut add = |part: &str, value: Value| {
        values.push(value);
        parts.push(part.replace('?', &format!("?{}", values.len())));
    };
    let equal = [("function", &filter.function), ("qualifier", &filter.qualifier), ("tenant", &filter.tenant)];
    for (column, value) in equal {
        if let Some(value) = value {
            add(&format!("{column} = ?"), value.clone().into());
        }
    }
    if let Some(among) = &filter.among {
        let names = serde_json::to_string(among).unwrap_or_default();
        add("function IN (SELECT value FROM json_each(?))", names.into());
    }
    if let Some(kind) = filter.kind {
        add("kind = ?", i64::from(kind).into());
    }
    if let Some(prefix) = &filter.prefix {
        add("substr(coalesce(id, 't' || number), 1, length(?)) = ?", prefix.clone().into());
    }
    if let Some(from) = filter.started_from {
        add("started >= ?", from.into());
    }
    if let Some(to) = filter.started_to {
        add("started <= ?", to.into());
    }
    match (filter.after, filter.ascending) {
        (Some(after), true) => add("number > ?", signed(after.0).into()),
        (Some(after), false) => add("number < ?", signed(after.0).into()),
        (None, _) => {}
    }
    if !filter.states.is_empty() {
        let numbers: Vec<String> = filter.states.iter().map(|state| state.number().to_string()).collect();
        parts.push(format!("state IN ({})", numbers.join(", ")));
        // Said on its own, so that the index of open tasks is used.
        if filter.states.iter().all(|state| !state.is_terminal()) {
            parts.push("state < 10".to_owned());
        }
    }
    let text = if parts.is_empty() { "1".to_owned() } else { parts.join(" AND ") };
    (text, values)
}

pub(super) fn list(c: &Connection, filter: &TaskFilter) -> Result<Vec<Task>> {
    let (condition, values) = condition(filter);
    let order = if filter.ascending { "ASC" } else { "DESC" };
    let text = format!("SELECT {COLUMNS}, {WHOLE} WHERE {condition} ORDER BY number {order} LIMIT {}", filter.limit);
    let rows: Vec<(Task, u64)> =
        c.prepare(&text)?.query_map(params_from_iter(values), whole_task_of)?.collect::<Result<_>>()?;
    rows.into_iter().map(|(task, last)| with_reports(c, task, last)).collect()
}

pub(super) fn count(c: &Connection, filter: &TaskFilter, most: u64) -> Result<u64> {
    let (condition, values) = condition(filter);
    let text = format!("SELECT count(*) FROM (SELECT 1 FROM tasks WHERE {condition} LIMIT {most})");
    c.query_row(&text, params_from_iter(values), |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
}

pub(super) fn open(c: &Connection, after: TaskNumber, most: u32) -> Result<Vec<Task>> {
    let mut names = Names::default();
    c.prepare_cached(&format!("SELECT {COLUMNS} FROM tasks WHERE state < 10 AND number > ?1 ORDER BY number LIMIT ?2"))?
        .query_map((signed(after.0), most), |row| task_of(row, &mut names))?
        .collect()
}

pub(super) fn deliveries(c: &Connection) -> Result<Vec<Delivery>> {
    c.prepare("SELECT id, task, target, attempts, run_at FROM deliveries ORDER BY id")?
        .query_map([], |row| {
            Ok(Delivery {
                id: row.get::<_, i64>(0)?.unsigned_abs(),
                task: TaskNumber(row.get::<_, i64>(1)?.unsigned_abs()),
                target: row.get(2)?,
                attempts: row.get(3)?,
                run_at: row.get(4)?,
            })
        })?
        .collect()
}

pub(super) fn configs(c: &Connection) -> Result<Vec<(String, String, String)>> {
    c.prepare("SELECT function, qualifier, text FROM configs ORDER BY function, qualifier")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect()
}

/// Every file that a row refers to.
pub(super) fn blobs(c: &Connection) -> Result<std::collections::HashSet<String>> {
    c.prepare("SELECT hash FROM blobs")?.query_map([], |row| row.get(0))?.collect()
}
