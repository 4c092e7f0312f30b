//! How instances are kept from the server and from each other. What this host gives is tried out once, feature by feature.
//!
//! A server of root gives each function an id of its own. An ordinary user's server has one id only: there, instances are in a user
//! namespace, from which the server's processes cannot be looked at, and in a mount namespace in which the data directory is empty. Where
//! neither is possible, a function can do what its server can.

use std::collections::{BTreeSet, HashMap};
use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use kip_spec::container::Mount;
use parking_lot::Mutex;

use super::cgroup;
use super::entrance::Entrance;
use super::root;
use super::unsafe_folder::{self, OwnFolder, Owners};
use super::unsafe_isolate::{self, Cover, Ids, MOST_SHOWN, Maps, Steps};
use super::view::Views;

/// Functions that have an id of their own at once, and that many ids from the first one on.
const IDS: u32 = 1 << 16;
/// How much sooner than its server the kernel ends an instance that memory is short for.
const OOM_SCORE: i32 = 500;
const HIGHEST_OOM_SCORE: i32 = 1_000;

/// As whom instances run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstanceUser {
    /// Each function as an id of its own where the server is root, in namespaces where it is not.
    Own,
    /// As this user.
    Named {
        /// Its number.
        uid: u32,
        /// The number of its group.
        gid: u32,
        /// Its other groups.
        groups: Vec<u32>,
    },
    /// As the server itself: functions can do whatever the server can.
    Server,
}

impl InstanceUser {
    /// A user of this host, by name or number.
    pub fn named(name: &str) -> Option<Self> {
        let read = |file: &str| std::fs::read_to_string(Path::new("/etc").join(file)).unwrap_or_default();
        lookup(name, &read("passwd"), &read("group"))
    }
}

fn lookup(name: &str, passwd: &str, group: &str) -> Option<InstanceUser> {
    let entry = passwd.lines().map(|line| line.split(':').collect::<Vec<&str>>()).find(|fields| {
        fields.first() == Some(&name) || (name.parse::<u32>().is_ok() && fields.get(2) == Some(&name))
    })?;
    let (uid, gid) = (entry.get(2)?.parse().ok()?, entry.get(3)?.parse().ok()?);
    let member = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let own = fields.get(3)?.split(',').any(|member| Some(&member) == entry.first());
        if own { fields.get(2)?.parse().ok() } else { None }
    };
    Some(InstanceUser::Named { uid, gid, groups: group.lines().filter_map(member).collect() })
}

/// What is asked of isolation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsolationOptions {
    /// As whom instances run.
    pub user: InstanceUser,
    /// The first of the ids that functions have.
    pub first: u32,
    /// Processes and threads that an id, or an instance in namespaces, may have.
    pub processes: u64,
    /// Bytes of a file that an instance may write.
    pub file_size: u64,
}

impl Default for IsolationOptions {
    fn default() -> Self {
        Self { user: InstanceUser::Own, first: 1_900_000_000, processes: 32_768, file_size: 1 << 40 }
    }
}

/// How instances are kept from the server here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By other ids; with mount namespaces, what a function may read is shown below folders that it may not.
    Ids { mounts: bool },
    /// By namespaces.
    Namespaces,
    /// By nothing.
    Nothing,
}

/// What keeps instances from the server, found out once.
#[derive(Debug)]
pub(super) struct Isolation {
    options: IsolationOptions,
    /// The data directory.
    data: PathBuf,
    way: Way,
    domain: Option<OwnedFd>,
    /// Trees of cgroups that instances of an ordinary user could leave theirs in.
    read_only: Vec<CString>,
    /// Namespaces with the maps of folders that instances may write, and whether a file system can map.
    maps: Mutex<HashMap<Owners, OwnedFd>>,
    mappable: Mutex<HashMap<u64, bool>>,
    /// Whether instances can have a root of their own; tried out by the first that needs one.
    rootable: OnceLock<bool>,
    /// Groups of devices, which an id of its own needs to open them.
    device_groups: Vec<u32>,
    /// In words.
    pub(super) method: String,
    /// Why there is less than there could be.
    pub(super) missing: Option<String>,
}

impl Isolation {
    /// Tries out what this host gives.
    pub(super) fn find(options: IsolationOptions, data: &Path) -> Self {
        let (domain, scopes) =
            unsafe_isolate::domain().map_or((None, false), |(domain, scopes)| (Some(domain), scopes));
        let root = rustix::process::geteuid().is_root();
        let mut found = Self {
            options,
            data: data.to_owned(),
            way: Way::Nothing,
            domain,
            read_only: Vec::new(),
            maps: Mutex::default(),
            mappable: Mutex::default(),
            rootable: OnceLock::new(),
            device_groups: device_groups(),
            method: String::new(),
            missing: None,
        };
        let signals = if scopes { "" } else { ", but signals reach them (no Landlock scopes)" };
        match (&found.options.user, root) {
            (InstanceUser::Server, _) => {
                found.method = "none: instances run as the server's own user".to_owned();
                found.missing =
                    Some("functions.user = \"server\" says so: a function can do whatever the server can".to_owned());
            }
            (_, true) => {
                match found.try_ids() {
                    Ok(mounts) => {
                        found.way = Way::Ids { mounts: mounts.is_ok() };
                        found.method = match &found.options.user {
                            InstanceUser::Named { uid, .. } => format!("instances run as user {uid}"),
                            _ => format!("each function has an id of its own, from {}", found.options.first),
                        };
                        found.missing = mounts.err().map(|error| {
                        format!("no mount namespaces ({error}): functions in folders that only root may search cannot start")
                    });
                    }
                    Err(error) => found.missing = Some(format!("instances cannot have other ids than root ({error})")),
                }
            }
            (InstanceUser::Named { .. }, false) => {
                found.missing = Some("only a server of root can run instances as another user".to_owned());
            }
            (InstanceUser::Own, false) => match unsafe_isolate::try_out(&found.trial(None)) {
                Ok(()) => {
                    found.way = Way::Namespaces;
                    found.protect_cgroups();
                    found.method = format!(
                        "user and mount namespaces: the data directory and the server's processes are out of reach{signals}"
                    );
                }
                Err(error) => {
                    let processes = if scopes { ", but cannot look at or signal its processes" } else { "" };
                    found.missing = Some(format!(
                        "this host gives no user namespaces ({error}): a function can read the data directory{processes}"
                    ));
                }
            },
        }
        if found.way == Way::Nothing && found.method.is_empty() {
            found.method = "none: instances run as the server's own user".to_owned();
        }
        found
    }

    /// Whether other ids are possible, and if so whether mounts are.
    fn try_ids(&self) -> io::Result<io::Result<()>> {
        let ids = Ids { uid: self.options.first, gid: self.options.first, groups: Vec::new() };
        let alone = Steps { ids: Some(ids.clone()), ..Steps::default() };
        unsafe_isolate::try_out(&alone)?;
        Ok(unsafe_isolate::try_out(&self.trial(Some(ids))))
    }

    /// All steps, with the data directory covered.
    fn trial(&self, ids: Option<Ids>) -> Steps {
        let user_namespace = ids.is_none().then(own_maps);
        let cover = Cover { folder: text(&self.data).unwrap_or_default(), made: Vec::new(), shown: Vec::new() };
        Steps { user_namespace, covers: vec![cover], ids, ..Steps::default() }
    }

    /// Lets instances look at cgroups only, where this host can mount them so: their files belong to the server's user.
    fn protect_cgroups(&mut self) {
        let read_only: Vec<CString> = cgroup::mount_points().iter().filter_map(|folder| text(folder).ok()).collect();
        match unsafe_isolate::try_out(&Steps { read_only: read_only.clone(), ..self.trial(None) }) {
            Ok(()) => self.read_only = read_only,
            Err(error) => {
                tracing::warn!(%error, "instances can write the files of cgroups; what leaves its own is searched for")
            }
        }
    }

    /// Whether a function is kept from the server.
    pub(super) fn holds(&self) -> bool {
        self.way != Way::Nothing
    }

    /// Whether instances have mounts of their own.
    pub(super) fn mounts(&self) -> bool {
        matches!(self.way, Way::Ids { mounts: true } | Way::Namespaces)
    }

    /// Who an instance of this function is to be; none where it is its server's user.
    pub(super) fn ids(&self, function: u64) -> Option<(u32, u32)> {
        match (self.way, &self.options.user) {
            (Way::Ids { .. }, InstanceUser::Named { uid, gid, .. }) => Some((*uid, *gid)),
            (Way::Ids { .. }, _) => {
                // The numbers of functions are never given again, so an id comes back after 65,536 functions only.
                let number = u32::try_from(function % u64::from(IDS)).unwrap_or_default();
                Some((self.options.first + number, self.options.first + number))
            }
            _ => None,
        }
    }

    /// Whether two functions would be one user.
    pub(super) fn is_shared(&self, one: u64, other: u64) -> bool {
        self.options.user == InstanceUser::Own
            && one != other
            && self.ids(one).is_some_and(|ids| Some(ids) == self.ids(other))
    }

    /// Who an instance is whose function names a user.
    ///
    /// # Errors
    /// In words, why it cannot be that.
    pub(super) fn named(&self, name: &str) -> Result<Ids, String> {
        if !matches!(self.way, Way::Ids { .. }) {
            return Err(format!("it cannot run as user `{name}`: {}", self.method));
        }
        match InstanceUser::named(name) {
            Some(InstanceUser::Named { uid: 0, .. }) => Err("functions do not run as root".to_owned()),
            Some(InstanceUser::Named { uid, gid, groups }) => Ok(Ids { uid, gid, groups }),
            _ => Err(format!("this host has no user `{name}`")),
        }
    }

    /// Who an instance is, with the groups that it has.
    pub(super) fn identity(&self, function: u64) -> Option<Ids> {
        self.ids(function).map(|(uid, gid)| {
            let groups = match &self.options.user {
                InstanceUser::Named { groups, .. } => groups.clone(),
                _ => self.device_groups.clone(),
            };
            Ids { uid, gid, groups }
        })
    }

    /// What an instance does to itself at its start. `reads` are the folders that it needs: those among them that are below what it cannot
    /// search are shown to it, and nothing else there. `own` is one of them that it may write, as far as this host can arrange that.
    ///
    /// # Errors
    /// Where a path cannot be told to the kernel.
    pub(super) fn steps(
        &self,
        ids: Option<Ids>,
        reads: &[PathBuf],
        own: Option<&Path>,
        folders: &[Mount],
    ) -> io::Result<Steps> {
        let covers = match self.way {
            Way::Namespaces => vec![cover(&self.data, reads.iter().filter(|path| path.starts_with(&self.data)))?],
            Way::Ids { mounts: true } => self.covers_for(ids.as_ref(), reads)?,
            Way::Ids { mounts: false } | Way::Nothing => Vec::new(),
        };
        let mut limits = vec![(libc::RLIMIT_CORE, 0)];
        if self.options.file_size != u64::MAX {
            limits.push((libc::RLIMIT_FSIZE, self.options.file_size));
        }
        // Where it would be counted with all that the server's user does, it could keep others from starting.
        if self.holds() {
            limits.push((libc::RLIMIT_NPROC, self.options.processes));
        }
        let folder = match (self.way, own, &ids) {
            (Way::Ids { mounts: true }, Some(own), Some(ids)) => self.own_folder(own, ids),
            _ => None,
        };
        let root = match (folders, &ids) {
            ([], _) => None,
            (folders, ids) => Some(root::plan(folders, &|path| self.share(path, ids.as_ref()))?),
        };
        Ok(Steps {
            user_namespace: (self.way == Way::Namespaces).then(own_maps),
            covers,
            read_only: if self.way == Way::Namespaces { self.read_only.clone() } else { Vec::new() },
            limits,
            oom_score: oom_score(),
            ids,
            folder,
            views: Views::default(),
            root,
            domain: self.domain.as_ref().map(OwnedFd::try_clone).transpose()?,
            ..Steps::default()
        })
    }

    /// What a program does to itself that a person runs in an instance: it joins the instance's namespaces, and gives up the same rights.
    ///
    /// # Errors
    /// Where file descriptors are short.
    pub(super) fn steps_inside(&self, ids: Option<Ids>, entrance: Option<Entrance>) -> io::Result<Steps> {
        let steps = self.steps(ids, &[], None, &[])?;
        let (filter, domain) = match self.way {
            // An id of its own keeps it from the server, so that it can look at and signal the instance's processes.
            Way::Ids { mounts } => (if mounts { unsafe_folder::filter() } else { Vec::new() }, None),
            Way::Namespaces | Way::Nothing => (Vec::new(), steps.domain),
        };
        Ok(Steps { user_namespace: None, covers: Vec::new(), read_only: Vec::new(), entrance, filter, domain, ..steps })
    }

    /// Whether an instance can see folders at other paths than theirs. In a user namespace, none with devices: their drivers may refuse it.
    pub(super) fn places(&self, has_devices: bool) -> bool {
        match self.way {
            Way::Ids { mounts: true } => {}
            Way::Namespaces if !has_devices => {}
            _ => return false,
        }
        *self.rootable.get_or_init(|| {
            let folder = Mount { source: "/usr".to_owned(), target: "/kipwake/trial".to_owned(), writable: false };
            let tried = root::plan(&[folder], &|_| None).and_then(|root| {
                let ids = match self.way {
                    Way::Ids { .. } => {
                        Some(Ids { uid: self.options.first, gid: self.options.first, groups: Vec::new() })
                    }
                    _ => None,
                };
                unsafe_isolate::try_out(&Steps { root: Some(root), ..self.trial(ids) })
            });
            if let Err(error) = &tried {
                tracing::warn!(%error, "functions see their code and layers at the server's paths: this host gives no roots of their own");
            }
            tried.is_ok()
        })
    }

    /// A folder for somebody who may not write it by its mode. None where that is not needed, or not possible: the file system must
    /// be able to map ids, which ext4, XFS, Btrfs and tmpfs can and an overlay cannot.
    pub(super) fn own_folder(&self, folder: &Path, ids: &Ids) -> Option<OwnFolder> {
        if folder.starts_with(&self.data) || self.data.starts_with(folder) || is_of_the_host(folder) {
            return None;
        }
        self.mapped(folder, ids)
    }

    /// The folder of a share that a function may write, where its mode does not let it.
    fn share(&self, folder: &Path, ids: Option<&Ids>) -> Option<OwnFolder> {
        let ids = ids?;
        if self.data.starts_with(folder) || is_of_the_host(folder) {
            return None;
        }
        let mapped = self.mapped(folder, ids);
        if mapped.is_none() && folder.starts_with(&self.data) && !may(folder, ids, 0o2) {
            // Nobody else can enter the data directory. Files of one function cannot be changed by others then.
            let _ = std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777));
        }
        mapped
    }

    fn mapped(&self, folder: &Path, ids: &Ids) -> Option<OwnFolder> {
        if may(folder, ids, 0o2) {
            return None;
        }
        let about = std::fs::metadata(folder).ok()?;
        let owners = Owners { disk: (about.uid(), about.gid()), instance: (ids.uid, ids.gid) };
        let filter = unsafe_folder::filter();
        if filter.is_empty() {
            return None;
        }
        let made = || -> io::Result<OwnFolder> {
            let mut maps = self.maps.lock();
            let namespace = match maps.get(&owners) {
                Some(known) => known.try_clone()?,
                None => {
                    let namespace = unsafe_folder::namespace_of(owners)?;
                    maps.insert(owners, namespace.try_clone()?);
                    namespace
                }
            };
            Ok(OwnFolder { path: text(folder)?, below: None, namespace, filter: filter.clone() })
        };
        let mut mappable = self.mappable.lock();
        match mappable.get(&about.dev()) {
            Some(true) => made().ok(),
            Some(false) => None,
            None => {
                let tried = made().and_then(|folder| {
                    let steps = Steps { ids: Some(ids.clone()), folder: Some(folder), ..Steps::default() };
                    unsafe_isolate::try_out(&steps)?;
                    steps.folder.ok_or_else(|| io::ErrorKind::NotFound.into())
                });
                if let Err(error) = &tried {
                    let folder = folder.display();
                    tracing::warn!(%error, "functions cannot be given their folders to write on the file system of {folder}");
                }
                mappable.insert(about.dev(), tried.is_ok());
                tried.ok()
            }
        }
    }

    /// What must be covered so that somebody can read what is below folders that it may not search.
    fn covers_for(&self, ids: Option<&Ids>, reads: &[PathBuf]) -> io::Result<Vec<Cover>> {
        let Some(ids) = ids else { return Ok(Vec::new()) };
        let blocked: Vec<(PathBuf, &PathBuf)> =
            reads.iter().filter_map(|path| Some((first_closed(path, ids)?, path))).collect();
        // One that is below another is covered with it.
        let folders: BTreeSet<&PathBuf> = blocked.iter().map(|(closed, _)| closed).collect();
        let outer =
            folders.iter().filter(|folder| !folders.iter().any(|other| other != *folder && folder.starts_with(other)));
        outer.map(|folder| cover(folder, reads.iter().filter(|path| path.starts_with(folder)))).collect()
    }
}

/// A folder with only these shown below it.
fn cover<'path>(folder: &Path, shown: impl Iterator<Item = &'path PathBuf>) -> io::Result<Cover> {
    let mut shown: BTreeSet<&Path> = shown.map(PathBuf::as_path).filter(|path| *path != folder).collect();
    let all = shown.clone();
    shown.retain(|path| !all.iter().any(|other| other != path && path.starts_with(other)));
    if shown.len() > MOST_SHOWN {
        return Err(io::Error::other("it needs too many folders that are not open to it: shorten its PATH"));
    }
    let made: BTreeSet<&Path> =
        shown.iter().flat_map(|path| path.ancestors().take_while(|above| *above != folder)).collect();
    Ok(Cover {
        folder: text(folder)?,
        made: made.into_iter().map(text).collect::<io::Result<_>>()?,
        shown: shown.into_iter().map(text).collect::<io::Result<_>>()?,
    })
}

fn text(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// Whether a folder is the system's or somebody's home: whoever writes there becomes its owner, or root.
fn is_of_the_host(folder: &Path) -> bool {
    const WHOLE: [&str; 13] =
        ["etc", "usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "boot", "dev", "proc", "sys", "run"];
    const ITSELF: [&str; 5] = ["/", "/var", "/home", "/root", "/opt"];
    WHOLE.iter().any(|name| folder.starts_with(Path::new("/").join(name)))
        || ITSELF.iter().any(|itself| folder == Path::new(itself))
        || folder.join(".ssh").exists()
}

/// The outermost folder above a path that somebody may not search.
fn first_closed(path: &Path, ids: &Ids) -> Option<PathBuf> {
    let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
    above.reverse();
    above.into_iter().find(|folder| !may(folder, ids, 0o1)).map(Path::to_owned)
}

/// Whether somebody may do this with a file, by its mode: 4 is to read, 1 to run or search.
fn may(path: &Path, ids: &Ids, what: u32) -> bool {
    let Ok(metadata) = std::fs::metadata(path) else { return false };
    let mode = metadata.permissions().mode();
    let granted = match () {
        () if metadata.uid() == ids.uid => mode >> 6,
        () if metadata.gid() == ids.gid || ids.groups.contains(&metadata.gid()) => mode >> 3,
        () => mode,
    };
    granted & what == what
}

/// In a user namespace of its own, somebody is who it was.
fn own_maps() -> Maps {
    let line = |id: u32| CString::new(format!("{id} {id} 1")).unwrap_or_default();
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Maps { uid: line(uid), gid: line(gid) }
}

/// The kernel is to end an instance before its server.
fn oom_score() -> Option<CString> {
    let own: i32 = std::fs::read_to_string("/proc/self/oom_score_adj").ok()?.trim().parse().ok()?;
    CString::new((own + OOM_SCORE).min(HIGHEST_OOM_SCORE).to_string()).ok()
}

/// The groups that may open devices for computing. Root's own group is nothing that an instance should have.
fn device_groups() -> Vec<u32> {
    let folders = ["/dev", "/dev/dri", "/dev/accel"]
        .into_iter()
        .flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten());
    let computes = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        ["nvidia", "renderD", "kfd", "accel"].iter().any(|beginning| name.starts_with(beginning))
    };
    let group = |path: PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        (metadata.gid() != 0 && metadata.permissions().mode() & 0o060 == 0o060).then_some(metadata.gid())
    };
    let groups: BTreeSet<u32> =
        folders.map(|entry| entry.path()).filter(|path| computes(path)).filter_map(group).collect();
    groups.into_iter().collect()
}

/// Why a program cannot be run by who an instance is, if its mode says so.
pub(super) fn refused(program: &Path, ids: Option<(u32, u32)>) -> Option<String> {
    let (uid, gid) = ids?;
    let ids = Ids { uid, gid, groups: Vec::new() };
    (!may(program, &ids, 0o1)).then(|| format!("user {uid}, as whom its function runs, may not run it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(cover: &Cover) -> (String, Vec<String>, Vec<String>) {
        let all = |list: &[CString]| list.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        (cover.folder.to_string_lossy().into_owned(), all(&cover.made), all(&cover.shown))
    }

    #[test]
    fn a_cover_shows_what_is_needed_and_the_way_to_it() {
        let shown: Vec<PathBuf> = ["/d/jobs/a", "/d/code/1/x", "/d/code/1", "/d"].map(PathBuf::from).into();
        let (folder, made, seen) = paths(&cover(Path::new("/d"), shown.iter()).unwrap());
        assert_eq!(folder, "/d");
        assert_eq!(made, ["/d/code", "/d/code/1", "/d/jobs", "/d/jobs/a"]);
        assert_eq!(seen, ["/d/code/1", "/d/jobs/a"]);
        let many: Vec<PathBuf> = (0..=MOST_SHOWN).map(|number| PathBuf::from(format!("/d/{number}"))).collect();
        assert!(cover(Path::new("/d"), many.iter()).is_err());
    }

    #[test]
    fn what_is_closed_to_somebody_is_found_from_above() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b/c");
        std::fs::create_dir_all(&deep).unwrap();
        let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        let nobody = Ids { uid: 1_900_000_007, gid: 1_900_000_007, groups: Vec::new() };
        mode(folder.path(), 0o755);
        assert_eq!(first_closed(&deep, &nobody), None);
        mode(&folder.path().join("a/b"), 0o700);
        assert_eq!(first_closed(&deep, &nobody), Some(folder.path().join("a/b")));
        mode(folder.path(), 0o700);
        assert_eq!(first_closed(&deep, &nobody), Some(folder.path().to_owned()));
        let owner = Ids { uid: rustix::process::geteuid().as_raw(), ..nobody };
        assert_eq!(first_closed(&deep, &owner), None);
    }

    #[test]
    fn a_user_is_found_by_name_and_by_number_with_its_groups() {
        let (passwd, group) =
            ("root:x:0:0::/root:/bin/sh\nai:x:1001:1002::/:/bin/sh\n", "video:x:44:ai,eve\nx:x:9:eve\n");
        let expected = InstanceUser::Named { uid: 1_001, gid: 1_002, groups: vec![44] };
        assert_eq!(lookup("ai", passwd, group), Some(expected.clone()));
        assert_eq!(lookup("1001", passwd, group), Some(expected));
        assert_eq!(lookup("eve", passwd, group), None);
    }

    #[test]
    fn folders_of_the_host_are_nobodys_own() {
        for (folder, host) in [
            ("/", true),
            ("/etc/cron.d", true),
            ("/usr/local/app", true),
            ("/var", true),
            ("/var/lib/app", false),
            ("/workspace", false),
            ("/etcetera", false),
            ("/home", true),
        ] {
            assert_eq!(is_of_the_host(Path::new(folder)), host, "{folder}");
        }
        let home = tempfile::tempdir().unwrap();
        assert!(!is_of_the_host(home.path()));
        std::fs::create_dir(home.path().join(".ssh")).unwrap();
        assert!(is_of_the_host(home.path()));
    }

    #[test]
    fn each_function_has_an_id_of_its_own_that_stays() {
        let data = tempfile::tempdir().unwrap();
        let found = Isolation::find(IsolationOptions::default(), data.path());
        if !rustix::process::geteuid().is_root() {
            assert_eq!(found.ids(7), None);
            println!("skipped: ids of their own need root");
            return;
        }
        assert_eq!(found.ids(7), Some((1_900_000_007, 1_900_000_007)));
        let ids: BTreeSet<u32> = (1..=1_000).filter_map(|function| Some(found.ids(function)?.0)).collect();
        assert_eq!(ids.len(), 1_000);
        assert!(found.ids(u64::MAX).is_some_and(|(uid, _)| uid < 1_900_065_536));
    }

    #[test]
    fn where_it_is_not_wanted_it_is_said() {
        let data = tempfile::tempdir().unwrap();
        let options = IsolationOptions { user: InstanceUser::Server, ..IsolationOptions::default() };
        let found = Isolation::find(options, data.path());
        assert!(!found.holds() && found.missing.is_some() && found.method.starts_with("none"), "{found:?}");
        assert_eq!(found.ids(1), None);
        assert!(found.named("nobody").is_err());
        let steps = found.steps(None, &[], None, &[]).unwrap();
        assert!(steps.covers.is_empty() && steps.user_namespace.is_none());
        assert!(steps.limits.contains(&(libc::RLIMIT_CORE, 0)));
    }
}
