//! Storage that a function mounts: NAS and buckets of a configuration as folders of this machine.

use kip_spec::code;
use kip_spec::container::Mount;
use kip_spec::function::{FunctionSpec, Program};
use kip_spec::share::{ShareName, refused_target};
use serde_json::{Map, Value};

use crate::Fc;
use crate::config::object;
use crate::error::{FcError, FcResult};
use crate::request::text;

/// Fields of a configuration that say what is mounted.
pub(crate) const FIELDS: [&str; 2] = ["nasConfig", "ossMountConfig"];
/// Mounts of a function at most.
const MOST: usize = 16;

/// A share and where a function sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct MountPoint {
    share: ShareName,
    target: String,
    writable: bool,
}

/// The mounts of a configuration.
///
/// # Errors
/// A mount that can be none.
fn points(config: &Map<String, Value>) -> FcResult<Vec<MountPoint>> {
    let in_container = text(config, "runtime")? == Some("custom-container");
    let mut all: Vec<MountPoint> = Vec::new();
    for field in FIELDS {
        let given = match object(config, field)?.and_then(|of| of.get("mountPoints")) {
            None | Some(Value::Null) => continue,
            Some(Value::Array(given)) => given,
            Some(_) => return Err(FcError::invalid(format!("{field}.mountPoints is a list"))),
        };
        for one in given {
            let one = one.as_object().ok_or_else(|| FcError::invalid(format!("{field}.mountPoints has objects")))?;
            let point = point(one, field == "ossMountConfig")?;
            if let Some(why) = refused_target(&point.target, in_container) {
                let said = format!("mountDir cannot be used: {why}; mount below /mnt");
                return Err(FcError::new(code::MOUNT_TARGET, "InvalidArgument", said));
            }
            let path = |target: &str| std::path::PathBuf::from(target);
            let clash = |other: &&MountPoint| {
                path(&other.target).starts_with(&point.target) || path(&point.target).starts_with(&other.target)
            };
            if let Some(other) = all.iter().find(clash) {
                let said = format!("mountDir {} and {} are one inside of the other", other.target, point.target);
                return Err(FcError::new(code::MOUNT_TARGET, "InvalidArgument", said));
            }
            all.push(point);
        }
    }
    if all.len() > MOST {
        return Err(FcError::invalid(format!("a function has at most {MOST} mounts")));
    }
    Ok(all)
}

fn point(given: &Map<String, Value>, is_bucket: bool) -> FcResult<MountPoint> {
    let field = |name: &str| text(given, name).map(Option::unwrap_or_default);
    let share = match is_bucket {
        true => ShareName::bucket(field("bucketName")?, field("bucketPath")?),
        false => ShareName::nas(field("serverAddr")?),
    };
    let share = share.map_err(|error| FcError::new(code::SHARE_INVALID, "InvalidArgument", error.to_string()))?;
    let target = field("mountDir")?.trim_end_matches('/').to_owned();
    let read_only = given.get("readOnly").and_then(Value::as_bool).unwrap_or(false);
    Ok(MountPoint { share, target, writable: !read_only })
}

/// Checks the mounts of a configuration.
///
/// # Errors
/// As [`points`].
pub(crate) fn check(config: &Map<String, Value>) -> FcResult<()> {
    points(config).map(drop)
}

/// The folders of this machine that a configuration mounts; those below the storage root are made.
///
/// # Errors
/// A share without a folder, or a host on which instances have no mounts.
pub(crate) async fn resolve(fc: &Fc, config: &Map<String, Value>) -> FcResult<Vec<Mount>> {
    let points = points(config)?;
    let in_container = text(config, "runtime")? == Some("custom-container");
    let mut mounts = Vec::with_capacity(points.len());
    for point in points {
        let folder = fc.control.share_folder(&point.share).await?;
        if !in_container && !fc.mounts {
            let said = format!(
                "{} of {} cannot be mounted at {}: this host gives instances no mounts; run the server as root, or allow user namespaces (`kip doctor` says why they are refused), or run the program in a container: runtime custom-container",
                folder.display(),
                point.share,
                point.target
            );
            return Err(FcError::new(code::MOUNT_IMPOSSIBLE, "InvalidArgument", said));
        }
        mounts.push(Mount { source: folder.display().to_string(), target: point.target, writable: point.writable });
    }
    Ok(mounts)
}

/// Sets what a function mounts.
pub(crate) fn place(spec: &mut FunctionSpec, mounts: Vec<Mount>) {
    match &mut spec.program {
        Program::Image(container) => container.mounts = mounts,
        Program::Command { .. } => spec.folders.extend(mounts),
        _ => {}
    }
}

/// What a function mounts, from its declaration.
pub(crate) fn placed(spec: &FunctionSpec) -> Vec<Mount> {
    match &spec.program {
        Program::Image(container) => container.mounts.clone(),
        _ => {
            let is_share = |folder: &&Mount| !["/code", "/opt"].contains(&folder.target.as_str());
            spec.folders.iter().filter(is_share).cloned().collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(config: Value) -> FcResult<Vec<MountPoint>> {
        points(config.as_object().unwrap())
    }

    #[test]
    fn mounts_of_both_kinds_are_read() {
        let config = json!({
            "nasConfig": {"userId": 0, "mountPoints": [{"serverAddr": "a.nas.example.com:/models", "mountDir": "/mnt/auto/"}]},
            "ossMountConfig": {"mountPoints": [{"bucketName": "b", "bucketPath": "/x", "mountDir": "/mnt/oss", "readOnly": true}]},
        });
        let all = read(config).unwrap();
        let shown: Vec<String> =
            all.iter().map(|point| format!("{} {} {}", point.share, point.target, point.writable)).collect();
        assert_eq!(shown, ["a.nas.example.com:/models /mnt/auto true", "oss://b/x /mnt/oss false"]);
        assert!(read(json!({"nasConfig": {"mountPoints": []}, "ossMountConfig": {}})).unwrap().is_empty());
    }

    #[test]
    fn programs_and_images_mount_alike() {
        let mount = |target: &str| Mount { source: "/s".to_owned(), target: target.to_owned(), writable: true };
        let program = |config: Value| {
            let name = "f".parse().unwrap();
            crate::declaration::fresh(name, config.as_object().unwrap(), std::path::Path::new("/tree")).unwrap()
        };
        let mut image = program(json!({"runtime": "custom-container", "customContainerConfig": {"image": "a"}}));
        place(&mut image, vec![mount("/mnt/a")]);
        let Program::Image(container) = &image.program else { panic!("{image:?}") };
        assert_eq!((container.mounts.as_slice(), image.folders.len()), ([mount("/mnt/a")].as_slice(), 0));
        assert_eq!(placed(&image), [mount("/mnt/a")]);
        let mut custom = program(json!({"runtime": "custom"}));
        custom.folders = vec![mount("/code"), mount("/opt")];
        place(&mut custom, vec![mount("/mnt/a")]);
        assert_eq!((custom.folders.len(), placed(&custom)), (3, vec![mount("/mnt/a")]));
    }

    #[test]
    fn mounts_that_can_be_none_are_refused_with_their_code() {
        let nas = |address: &str, target: &str| json!({"serverAddr": address, "mountDir": target});
        let refused = |points: Vec<Value>| read(json!({"nasConfig": {"mountPoints": points}})).map_err(|e| e.own);
        assert_eq!(refused(vec![nas("a:/b", "/tmp/x")]), Err(code::MOUNT_TARGET));
        assert_eq!(refused(vec![nas("a:/b", "mnt")]), Err(code::MOUNT_TARGET));
        assert_eq!(refused(vec![nas("a:/../b", "/mnt/x")]), Err(code::SHARE_INVALID));
        assert_eq!(refused(vec![nas("", "/mnt/x")]), Err(code::SHARE_INVALID));
        assert_eq!(refused(vec![nas("a:/b", "/mnt/x"), nas("a:/c", "/mnt/x/y")]), Err(code::MOUNT_TARGET));
        assert_eq!(refused(vec![json!("x")]), Err(code::API_BAD_REQUEST));
        let many = (0..20).map(|number| nas("a:/b", &format!("/mnt/{number}"))).collect();
        assert_eq!(refused(many), Err(code::API_BAD_REQUEST));
        let image = json!({"runtime": "custom-container", "nasConfig": {"mountPoints": [nas("a:/b", "/opt/models")]}});
        assert!(read(image).is_ok());
    }
}
