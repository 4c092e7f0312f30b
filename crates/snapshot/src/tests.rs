use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;

use super::*;
use crate::{FileChangeKind, changed};

struct World {
    _root: tempfile::TempDir,
    folder: PathBuf,
    snapshots: Snapshots,
}

impl World {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("app");
        fs::create_dir(&folder).unwrap();
        Self { folder, snapshots: Snapshots::new(root.path().join("snapshots")), _root: root }
    }

    fn write(&self, path: &str, text: &str) -> PathBuf {
        let file = self.folder.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        file
    }

    /// A file without contents that takes no room.
    fn large(&self, path: &str, size: u64) -> PathBuf {
        let file = self.write(path, "");
        OpenOptions::new().write(true).open(&file).unwrap().set_len(size).unwrap();
        file
    }

    fn request(&self) -> Request {
        Request {
            folder: self.folder.clone(),
            writable: Vec::new(),
            beside: vec!["kip.yaml".to_owned()],
            without: Vec::new(),
            open: true,
            moved: false,
            limits: Limits::default(),
            keep: true,
            before: None,
        }
    }

    fn capture(&self) -> Captured {
        self.snapshots.capture(&self.request()).unwrap()
    }

    fn tree(&self, captured: &Captured) -> PathBuf {
        self.snapshots.tree(&captured.snapshot.digest)
    }
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn a_snapshot_keeps_what_the_folder_had() {
    let world = World::new();
    let program = world.write("bin/run", "one");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    symlink("bin/run", world.folder.join("start")).unwrap();
    fs::create_dir(world.folder.join("empty")).unwrap();
    let first = world.capture();
    fs::write(&program, "two").unwrap();
    let second = world.capture();
    fs::remove_dir_all(&world.folder).unwrap();

    assert_ne!(first.snapshot.digest, second.snapshot.digest);
    let (one, two) = (world.tree(&first), world.tree(&second));
    assert_eq!((text(&one.join("start")).as_str(), text(&two.join("start")).as_str()), ("one", "two"));
    assert_eq!(one.join("bin/run").metadata().unwrap().permissions().mode() & 0o777, 0o755);
    assert!(one.join("empty").is_dir());
    assert_eq!((first.files, first.bytes), (1, 3));
    let changes = world.snapshots.difference(&first.snapshot.digest, &second.snapshot.digest).unwrap();
    assert_eq!(changes.len(), 1);
    assert_eq!((changes[0].path.as_str(), changes[0].kind), ("bin/run", FileChangeKind::Changed));
}

#[test]
fn the_same_files_are_the_same_snapshot_and_unchanged_files_take_room_once() {
    let world = World::new();
    let shared = world.write("a.txt", "a");
    world.write("b.txt", "b");
    world.write("kip.yaml", "functions: {}");
    // A file is trusted by its time when it is old enough.
    let old = kip_host::clock::wall_millis() - 60_000;
    let times =
        FileTimes::new().set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_millis(old.unsigned_abs()));
    File::open(&shared).unwrap().set_times(times).unwrap();
    let first = world.capture();
    world.write("kip.yaml", "functions: {f: {}}");
    world.write("__pycache__/x.pyc", "made");
    assert_eq!(world.capture().snapshot, first.snapshot, "neither the manifest nor compiled files make a version");
    world.write("b.txt", "c");
    let second = world.capture();
    assert_ne!(first.snapshot.digest, second.snapshot.digest);
    assert_eq!(text(&world.tree(&second).join("__pycache__/x.pyc")), "made");
    let age = |captured: &Captured| world.tree(captured).join("a.txt").metadata().unwrap().mtime();
    assert_eq!(age(&first), old / 1_000, "times are kept");
    assert_eq!(age(&second), old / 1_000);
    world.write("b.txt", "b");
    assert_eq!(world.capture().snapshot, first.snapshot, "back to what it was");
}

#[test]
fn unchanged_files_are_linked_once_their_times_are_trusted() {
    let world = World::new();
    world.write("a.txt", "a");
    world.write("b.txt", "b");
    let first = world.capture();
    let known = world.folder.join("a.txt").metadata().unwrap();
    let stamp = Stamp::of(&known);
    let sum = sum_of(&world.folder.join("a.txt")).unwrap();
    // As a capture writes it down two seconds later.
    world
        .snapshots
        .remember(&world.folder, &first.snapshot.digest, [("a.txt".to_owned(), (stamp, sum))].into())
        .unwrap();
    world.write("b.txt", "c");
    let second = world.capture();
    let inode = |captured: &Captured, name: &str| world.tree(captured).join(name).metadata().unwrap().ino();
    assert_eq!(inode(&first, "a.txt"), inode(&second, "a.txt"));
    assert_ne!(inode(&first, "a.txt"), known.ino(), "never the user's own file");
    assert_ne!(inode(&first, "b.txt"), inode(&second, "b.txt"));
    let moved = world.snapshots.capture(&Request { moved: true, ..world.request() }).unwrap();
    assert_ne!(inode(&moved, "a.txt"), inode(&first, "a.txt"), "whoever runs in it could write the other's");
}

#[test]
fn what_is_ignored_is_left_out_and_environments_stay_live() {
    let world = World::new();
    world.write("app.py", "x");
    world.write("secret.txt", "x");
    world.write("sub/notes.md", "x");
    world.write(".kipignore", "secret.txt\n*.md\n!keep.md\n");
    world.write("keep.md", "x");
    world.write(".gitignore", ".venv/\ndist/\n*.log\nlocal.env\n");
    world.write(".venv/pyvenv.cfg", "x");
    world.write("dist/server.js", "x");
    world.write("out.log", "x");
    world.write("local.env", "x");
    world.write(".git/HEAD", "x");
    world.write("web/.gitignore", "node_modules\n");
    world.write("web/node_modules/left-pad/index.js", "x");
    let captured = world.capture();
    let tree = world.tree(&captured);
    assert_eq!(captured.snapshot.live, [".venv", "web/node_modules"]);
    let has = |path: &str| tree.join(path).exists();
    for path in ["app.py", "keep.md", "dist/server.js", "local.env", "sub", ".venv"] {
        assert!(has(path), "{path}");
    }
    for path in ["secret.txt", "sub/notes.md", "out.log", ".git", ".venv/pyvenv.cfg"] {
        assert!(!has(path), "{path}");
    }
    world.write(".venv/lib/new.py", "x");
    assert_eq!(world.capture().snapshot, captured.snapshot);
}

#[test]
fn large_files_are_pinned_and_a_change_of_them_is_seen() {
    let world = World::new();
    world.write("app.py", "x");
    let model = world.large("models/m.gguf", (64 << 20) + 1);
    let captured = world.capture();
    let pinned = &captured.snapshot.pinned;
    assert_eq!((pinned.len(), pinned[0].path.as_str(), pinned[0].size), (1, "models/m.gguf", (64 << 20) + 1));
    assert_eq!(world.tree(&captured).join("models/m.gguf").metadata().unwrap().len(), 0, "a place for it only");
    assert_eq!(changed(&world.folder, pinned), None);
    fs::remove_file(&model).unwrap();
    assert_eq!(changed(&world.folder, pinned), Some(&pinned[0]));
    world.large("models/m.gguf", (64 << 20) + 1);
    assert_eq!(changed(&world.folder, pinned), Some(&pinned[0]), "another file of the same size");
    let again = world.capture();
    assert_eq!(
        (&again.snapshot.digest, changed(&world.folder, &again.snapshot.pinned)),
        (&captured.snapshot.digest, None)
    );
}

#[test]
fn what_not_everybody_may_read_is_left_out_where_the_deployer_may_not_give_it_away() {
    let world = World::new();
    let mode =
        |path: &str, mode| fs::set_permissions(world.folder.join(path), fs::Permissions::from_mode(mode)).unwrap();
    world.write("app.py", "x");
    world.write("key.pem", "x");
    world.write("private/notes", "x");
    mode("key.pem", 0o600);
    mode("private", 0o700);
    let closed = Request { open: false, ..world.request() };
    let captured = world.snapshots.capture(&closed).unwrap();
    assert_eq!(captured.skipped, ["key.pem", "private"]);
    assert!(world.tree(&captured).join("app.py").exists() && !world.tree(&captured).join("key.pem").exists());
    assert!(world.capture().skipped.is_empty());
    // What an administrator's capture knows of files is no way around it.
    assert_eq!(world.snapshots.capture(&closed).unwrap().snapshot, captured.snapshot);
    fs::set_permissions(&world.folder, fs::Permissions::from_mode(0o700)).unwrap();
    let refused = world.snapshots.capture(&closed);
    assert!(matches!(refused, Err(CaptureError::Io { .. })), "{refused:?}");
}

#[test]
fn the_data_directory_is_no_part_of_it_whatever_path_leads_there() {
    let world = World::new();
    world.write("app.py", "x");
    world.write("data/control.db", "x");
    let link = world.folder.parent().unwrap().join("link");
    symlink(&world.folder, &link).unwrap();
    let request = Request { folder: link, without: vec![world.folder.join("data")], ..world.request() };
    let captured = world.snapshots.capture(&request).unwrap();
    assert_eq!(captured.files, 1);
    assert!(!world.tree(&captured).join("data").exists());
}

#[test]
fn pipes_and_names_that_are_no_text_hold_nothing_up() {
    use std::os::unix::ffi::OsStrExt;

    let world = World::new();
    world.write("app.py", "x");
    for name in [".kipignore", ".gitignore", "pipe"] {
        let path = world.folder.join(name);
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    }
    fs::write(world.folder.join(std::ffi::OsStr::from_bytes(b"bad\xff")), "x").unwrap();
    let captured = world.capture();
    assert_eq!((captured.files, captured.skipped.len()), (1, 1), "{captured:?}");
}

#[test]
fn what_instances_write_is_a_place_in_the_snapshot() {
    let world = World::new();
    world.write("app.py", "x");
    world.write("outputs/1.png", "x");
    world.write("data/db.sqlite", "x");
    let request = Request { writable: vec!["outputs".to_owned(), "data/db.sqlite".to_owned()], ..world.request() };
    let captured = world.snapshots.capture(&request).unwrap();
    let tree = world.tree(&captured);
    assert!(tree.join("outputs").is_dir() && !tree.join("outputs/1.png").exists());
    assert_eq!(text(&tree.join("data/db.sqlite")), "");
    assert!(captured.snapshot.live.is_empty(), "what was declared is not told");
    world.write("outputs/2.png", "x");
    assert_eq!(world.snapshots.capture(&request).unwrap().snapshot, captured.snapshot);
}

#[test]
fn one_that_is_run_where_it_is_has_links_to_what_stays_live() {
    let world = World::new();
    world.write("app.py", "x");
    world.write("outputs/1.png", "x");
    let request = Request { writable: vec!["outputs".to_owned()], moved: true, ..world.request() };
    let captured = world.snapshots.capture(&request).unwrap();
    let tree = world.tree(&captured);
    assert_eq!(tree.join("outputs").read_link().unwrap(), world.folder.join("outputs"));
    assert_eq!(tree.metadata().unwrap().permissions().mode() & 0o222, 0);
    assert_eq!(world.snapshots.collect(&BTreeSet::new()).unwrap(), 0, "it stays for a day");
}

#[test]
fn too_large_foreign_and_missing_folders_are_refused() {
    let world = World::new();
    world.write("a", "12345");
    let limited = |limits| world.snapshots.capture(&Request { limits, ..world.request() });
    let small = limited(Limits { bytes: 4, entries: 9 });
    assert!(matches!(small, Err(CaptureError::TooLarge { .. })), "{small:?}");
    world.write("b", "1");
    let few = limited(Limits { bytes: 9, entries: 1 });
    assert!(matches!(few, Err(CaptureError::TooLarge { .. })), "{few:?}");
    for folder in ["/", "/usr/bin", "/home"] {
        let refused = world.snapshots.capture(&Request { folder: folder.into(), ..world.request() });
        assert!(matches!(refused, Err(CaptureError::NotOwn { .. })), "{folder}: {refused:?}");
    }
    let missing = world.snapshots.capture(&Request { folder: world.folder.join("no"), ..world.request() });
    assert!(matches!(missing, Err(CaptureError::Io { .. })), "{missing:?}");
    for number in 0..=MOST_LIVE {
        world.write(&format!("{number}/.gitignore"), "env\n");
        world.write(&format!("{number}/env/pyvenv.cfg"), "x");
    }
    let many = world.snapshots.capture(&world.request());
    assert!(matches!(many, Err(CaptureError::TooManyLive { found: 25, .. })), "{many:?}");
}

#[test]
fn a_folder_that_changes_all_the_time_is_told_and_never_mixed() {
    let world = World::new();
    for number in 0..200 {
        world.write(&format!("f{number}"), "0");
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut round = 0u64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                round += 1;
                world.write("f0", &round.to_string());
                world.write("f199", &round.to_string());
            }
        });
        let refused = world.snapshots.capture(&world.request());
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        match refused {
            Err(CaptureError::Changing { path, .. }) => assert!(["f0", "f199"].contains(&path.as_str()), "{path}"),
            // The writer may have slept all the while.
            Ok(captured) => assert!(world.tree(&captured).join("f199").is_file()),
            Err(other) => panic!("{other}"),
        }
    });
    assert_eq!(world.capture().files, 200);
    let left = fs::read_dir(world.snapshots.tree("x").parent().unwrap().parent().unwrap()).unwrap();
    let staged = left.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(".new-")).count();
    assert_eq!(staged, 0, "nothing is left of attempts");
}
