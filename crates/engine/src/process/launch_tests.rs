use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::super::cgroup;
use super::*;

/// What a child says of itself.
/// Signals are read by the shell itself: while it starts another program it holds all of them off.
const LOOK: &str = "echo \"$$ $1 $(pwd) $(ulimit -n)\"; cat /proc/$$/stat; env; ls -l /proc/$$/fd; \
    while IFS= read -r line; do case $line in SigBlk*|SigIgn*|NoNewPrivs*) echo \"$line\";; esac; done < /proc/$$/status; \
    cat /proc/$$/cgroup";

fn plan(folder: &Path, program: &Path, arguments: &[&str], cgroup: Option<&Path>) -> Plan {
    let environment = [("NAME", "value"), ("PATH", "/usr/bin:/bin")].map(|(name, value)| (name.into(), value.into()));
    let output = File::create(folder.join("output")).expect("a file");
    Launch {
        program,
        is_own: false,
        steps: Steps::default(),
        arguments: &arguments.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>(),
        environment: &environment.into(),
        directory: folder,
        stdout: output.try_clone().expect("a copy"),
        stderr: output,
        cgroup,
        limits: &[],
    }
    .plan()
    .expect("a plan")
}

fn end(child: Pid) -> rustix::process::WaitIdStatus {
    rustix::process::waitid(WaitId::Pid(child), WaitIdOptions::EXITED).expect("waits").expect("an end")
}

fn look(cgroup: Option<&Path>, change: impl FnOnce(&mut Plan)) -> (Pid, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let _open = File::open(folder.path()).expect("the folder");
    let mut plan = plan(folder.path(), Path::new("/bin/sh"), &["name", "-c", LOOK, "zero", "one"], cgroup);
    change(&mut plan);
    let child = launch(plan).expect("starts");
    assert_eq!(end(child).exit_status(), Some(0));
    let said = fs::read_to_string(folder.path().join("output")).expect("its output");
    let number = child.as_raw_nonzero().get();
    let limit =
        kip_host::limits::open_files_at_start().current.map_or_else(|| "unlimited".to_owned(), |most| most.to_string());
    let place = folder.path().canonicalize().expect("a path");
    assert!(said.starts_with(&format!("{number} one {} {limit}\n", place.display())), "{said}");
    // Its group is the third number after its name.
    let group = said.lines().nth(1).and_then(|stat| stat.rsplit(") ").next()?.split(' ').nth(2)?.parse().ok());
    assert_eq!(group, Some(number), "{said}");
    assert!(said.contains("NAME=value\n") && !said.contains("CARGO"), "{said}");
    // Not the files that were opened for its start, nor those of the rest of this process, of which the folder is one.
    assert!(said.contains(" 0 -> /dev/null\n"), "{said}");
    assert_eq!(said.matches(&format!("-> {}/output\n", place.display())).count(), 2, "{said}");
    assert!(!said.contains(&format!("-> {}\n", place.display())), "{said}");
    for clear in ["SigBlk:\t0000000000000000", "NoNewPrivs:\t1"] {
        assert!(said.contains(clear), "{said}");
    }
    let ignored = said.split("SigIgn:\t").nth(1).and_then(|rest| u64::from_str_radix(rest.get(..16)?, 16).ok());
    assert_eq!(ignored.map(|set| set & (1 << (libc::SIGPIPE - 1))), Some(0), "{said}");
    (child, said)
}

#[test]
fn a_child_has_what_it_was_given_and_nothing_else() {
    look(None, |_| {});
}

#[test]
fn a_child_is_in_its_cgroup_from_the_first_instruction() {
    let name = format!("test-{}-{:x}", std::process::id(), kip_host::random::bits());
    let Ok(root) = cgroup::prepare(&name) else {
        println!("skipped: no cgroup v2 here");
        return;
    };
    let folder = root.join("instance");
    cgroup::create(&folder).expect("a cgroup");
    let place = format!("kipwake-{name}/instance\n");
    let (_, cloned) = look(Some(&folder), |_| {});
    assert!(cloned.contains(&place), "{cloned}");
    // What is not a cgroup cannot be cloned into, as on a kernel without clone3: the child joins by itself.
    let (_, joined) = look(Some(&folder), |plan| {
        if let Some(cgroup) = &mut plan.cgroup {
            cgroup.folder = File::open("/").expect("a folder");
        }
    });
    assert!(joined.contains(&place), "{joined}");
    cgroup::remove(&root);
}

#[test]
fn what_hinders_a_program_is_told_with_its_step() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str, mode: u32| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
        path
    };
    let no_interpreter = file("no-interpreter", "#!/no/such\n", 0o700);
    let not_executable = file("not-executable", "#!/bin/sh\n", 0o600);
    let why = |program: &Path, gone: bool| {
        let mut plan = plan(folder.path(), program, &["x"], None);
        if gone {
            plan.directory = c"/no/such".to_owned();
        }
        let failed = launch(plan).expect_err("does not start");
        (failed.step, failed.error.kind())
    };
    assert_eq!(why(&no_interpreter, false), (Step::Program, io::ErrorKind::NotFound));
    assert_eq!(why(&not_executable, false), (Step::Program, io::ErrorKind::PermissionDenied));
    assert_eq!(why(&no_interpreter, true), (Step::Directory, io::ErrorKind::NotFound));
}

#[test]
fn a_file_without_a_first_line_is_run_by_the_shell() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("script");
    fs::write(&script, "exit $1\n").expect("written");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).expect("a mode");
    let child = launch(plan(folder.path(), &script, &["name", "7"], None)).expect("starts");
    assert_eq!(end(child).exit_status(), Some(7));
}
