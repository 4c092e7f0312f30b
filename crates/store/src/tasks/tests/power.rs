//! The power is lost: what a disk may hold then is everything that was synced and any part of the rest, with pages torn.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{claim, end, look, run_below, task};
use crate::tasks::{NewTask, Output, SqliteTasks, TaskNumber, TaskReader as _, TaskState, TaskStore, Tuning};

/// Cuts that are tried of one recording.
const CUTS: u64 = 60;

#[test]
fn a_loss_of_power_loses_nothing_that_was_answered() {
    let Some(losses) = losses_of("synced") else { return };
    assert_eq!(losses, Vec::<String>::new());
}

/// Proves that the test above can see.
#[test]
fn without_syncs_the_same_cuts_lose_something() {
    let Some(losses) = losses_of("unsynced") else { return };
    assert!(!losses.is_empty(), "a store that does not sync must lose something in {CUTS} cuts");
}

/// What was answered and is not there any more, over many cuts of one recording.
fn losses_of(how: &str) -> Option<Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("recorded")).unwrap();
    fs::write(folder.path().join("how"), how).unwrap();
    if !run_below("src/tasks/tests/record.c", "power::below::work", folder.path(), ("RECORD", "record")) {
        return None;
    }
    let record = parse(&fs::read(folder.path().join("record")).unwrap());
    assert!(
        record.iter().any(|entry| entry.path.ends_with("tasks.db-wal") && entry.kind == 'w'),
        "nothing was recorded"
    );
    let checkpointed = record.iter().any(|entry| entry.path.ends_with("tasks.db") && entry.kind == 'w' && entry.at > 0);
    assert!(checkpointed, "the recording must hold a checkpoint");
    let seed = u64::try_from(kip_host::random::bits() >> 64).unwrap();
    println!("seed {seed}");
    let mut dice = Random(seed | 1);
    let mut losses = Vec::new();
    for cut in 0..CUTS {
        // The end is always among them.
        let at = if cut == 0 { record.len() } else { usize::try_from(dice.below(record.len() as u64)).unwrap() };
        let image = tempfile::tempdir().unwrap();
        let answered = build(&record[..at], image.path(), &mut dice);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        losses
            .extend(runtime.block_on(missing(image.path(), &answered)).into_iter().map(|loss| format!("{at}: {loss}")));
    }
    Some(losses)
}

/// What was answered and is not in this image.
async fn missing(image: &Path, answered: &BTreeMap<u64, (String, char)>) -> Vec<String> {
    let path = image.join("recorded/tasks.db");
    if answered.is_empty() {
        return Vec::new();
    }
    let store = match SqliteTasks::open(&path) {
        Ok(store) => store,
        Err(error) => return vec![format!("the store does not open: {error}")],
    };
    let mut missing = Vec::new();
    for (number, (id, stage)) in answered {
        let number = TaskNumber(*number);
        let Some(found) = store.task(number).await.unwrap() else {
            missing.push(format!("task {id} is gone"));
            continue;
        };
        if found.id.as_deref() != Some(id) {
            missing.push(format!("task {id} is another"));
        }
        let reached = match found.now.state {
            TaskState::Enqueued => 'a',
            TaskState::Running => 'c',
            _ => 'e',
        };
        if reached < *stage {
            missing.push(format!("task {id} is back at {reached} from {stage}"));
        }
        if store.payload(number).await.ok().flatten() != Some(content(id)) {
            missing.push(format!("the payload of {id} is damaged"));
        }
        if *stage == 'e' && store.output(number).await.ok().flatten().map(|output| output.body) != Some(content(id)) {
            missing.push(format!("the result of {id} is damaged"));
        }
    }
    drop(store);
    let c = rusqlite::Connection::open(path).unwrap();
    let check: String = c.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    if check != "ok" {
        missing.push(check);
    }
    missing
}

/// What a task of this id is given, and answers. Some are large enough for a file.
fn content(id: &str) -> Bytes {
    let length = if id.ends_with('7') { 80_000 } else { 20_000 };
    id.bytes().cycle().take(length).collect()
}

struct Entry {
    kind: char,
    at: u64,
    path: PathBuf,
    bytes: Vec<u8>,
}

fn parse(mut record: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    while !record.is_empty() {
        let line = record.iter().position(|byte| *byte == b'\n').unwrap();
        let text = std::str::from_utf8(&record[..line]).unwrap();
        let words: Vec<&str> = text.splitn(4, ' ').collect();
        let length: usize = words[2].parse().unwrap();
        // The process was ended in the midst of its last line: that step was not taken.
        let Some(bytes) = record.get(line + 1..line + 1 + length).map(<[u8]>::to_vec) else { break };
        // Paths count from `recorded` on.
        let path = &words[3][words[3].find("recorded").unwrap()..];
        let kind = words[0].chars().next().unwrap();
        entries.push(Entry { kind, at: words[1].parse().unwrap(), path: PathBuf::from(path), bytes });
        record = &record[line + 1 + length..];
    }
    entries
}

struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most.max(1)
    }
}

/// A change of what names there are.
enum NameChange {
    Made(PathBuf, usize),
    Gone(PathBuf),
}

/// Writes what a disk may hold after these entries into a folder, and gives what was answered: number to id and stage.
fn build(record: &[Entry], image: &Path, dice: &mut Random) -> BTreeMap<u64, (String, char)> {
    let mut answered: BTreeMap<u64, (String, char)> = BTreeMap::new();
    // Files by number, since names change; each with its changes and how many of them are synced.
    let mut files: Vec<(Vec<&Entry>, usize)> = Vec::new();
    let mut names: BTreeMap<PathBuf, usize> = BTreeMap::new();
    let mut naming: Vec<NameChange> = Vec::new();
    let mut named = 0;
    for entry in record {
        match entry.kind {
            'w' if entry.path.ends_with("answers") => {
                let text = String::from_utf8(entry.bytes.clone()).unwrap();
                let words: Vec<&str> = text.split_whitespace().collect();
                answered.insert(words[1].parse().unwrap(), (words[2].to_owned(), words[0].chars().next().unwrap()));
            }
            'c' => {
                names.insert(entry.path.clone(), files.len());
                naming.push(NameChange::Made(entry.path.clone(), files.len()));
                files.push((Vec::new(), 0));
            }
            'w' | 't' => {
                if let Some(file) = names.get(&entry.path) {
                    files[*file].0.push(entry);
                }
            }
            's' => match names.get(&entry.path) {
                Some(file) => files[*file].1 = files[*file].0.len(),
                // A folder: all names in it. Names reach the disk in their order.
                None => named = naming.len(),
            },
            'r' => {
                let text = std::str::from_utf8(&entry.bytes).unwrap();
                let to = PathBuf::from(&text[text.find("recorded").unwrap()..]);
                if let Some(file) = names.remove(&entry.path) {
                    naming.push(NameChange::Gone(entry.path.clone()));
                    naming.push(NameChange::Made(to.clone(), file));
                    names.insert(to, file);
                }
            }
            _ => {
                names.remove(&entry.path);
                naming.push(NameChange::Gone(entry.path.clone()));
            }
        }
    }
    let kept = named + usize::try_from(dice.below((naming.len() - named + 1) as u64)).unwrap();
    let mut there: BTreeMap<PathBuf, usize> = BTreeMap::new();
    for change in &naming[..kept] {
        match change {
            NameChange::Made(path, file) => drop(there.insert(path.clone(), *file)),
            NameChange::Gone(path) => drop(there.remove(path)),
        }
    }
    fs::create_dir_all(image.join("recorded/tasks.blobs")).unwrap();
    for (path, file) in there {
        // Not kept by a disk: it is built anew.
        if path.ends_with("tasks.db-shm") {
            continue;
        }
        let (changes, synced) = &files[file];
        let mut content: Vec<u8> = Vec::new();
        for (number, change) in changes.iter().enumerate() {
            let safe = number < *synced;
            let at = usize::try_from(change.at).unwrap();
            if change.kind == 't' {
                if safe || dice.below(2) == 0 {
                    content.resize(at, 0);
                }
                continue;
            }
            for (page, bytes) in change.bytes.chunks(4096).enumerate() {
                if safe || dice.below(2) == 0 {
                    let from = at + page * 4096;
                    let to = from + bytes.len();
                    if content.len() < to {
                        content.resize(to, 0);
                    }
                    content[from..to].copy_from_slice(bytes);
                }
            }
        }
        fs::write(image.join(path), content).unwrap();
    }
    answered
}

mod below {
    use std::io::Write;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "run by the tests above in a process of its own"]
    async fn work() {
        let synced = fs::read_to_string("how").unwrap() == "synced";
        let path = std::env::current_dir().unwrap().join("recorded/tasks.db");
        let tuning = Tuning { synced, ..Tuning::default() };
        let store = Arc::new(SqliteTasks::open_with(&path, crate::DiskHealth::default(), tuning).unwrap());
        let answers = fs::OpenOptions::new().create(true).append(true).open("recorded/answers").unwrap();
        let answers = Arc::new(Mutex::new(answers));
        let callers: Vec<_> = (0..8)
            .map(|caller| {
                let (store, answers) = (store.clone(), answers.clone());
                kip_host::tasks::spawn("caller", async move {
                    for n in 0..50 {
                        let id = format!("task-{caller}-{n}");
                        let answer = |stage: &str, number: TaskNumber| {
                            let line = format!("{stage} {} {id}\n", number.0);
                            answers.lock().write_all(line.as_bytes()).unwrap();
                        };
                        let new = NewTask { id: Some(id.clone()), payload: content(&id), ..task() };
                        let number = store.accept(new).await.unwrap().number();
                        answer("a", number);
                        assert!(store.advance(claim(&look(store.as_ref(), number).await, 1)).await.unwrap().applied);
                        answer("c", number);
                        let mut over = end(&look(store.as_ref(), number).await, TaskState::Succeeded);
                        over.output = Some(Output { head: String::new(), body: content(&id) });
                        assert!(store.advance(over).await.unwrap().applied);
                        answer("e", number);
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap();
        }
    }
}
