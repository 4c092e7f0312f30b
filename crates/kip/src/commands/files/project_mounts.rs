//! The mounts of a project, and the places that people name in them.

use std::path::{Path, PathBuf};

use kip_serverless::DeclaredFunction;
use kip_spec::share::ShareName;
use kip_spec::{Problem, code};
use serde_json::{Map, Value};

use super::project_file::ProjectFile;

/// A share that a function mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProjectMount {
    pub(crate) function: String,
    /// The service of the function, where the file has services.
    pub(crate) service: Option<String>,
    pub(crate) share: ShareName,
    /// Where the function sees it.
    pub(crate) target: String,
    pub(crate) read_only: bool,
    /// The copy of the project, absolute.
    pub(crate) twin: PathBuf,
}

/// The mounts of all functions of a file, in its order.
pub(crate) fn mounts(file: &ProjectFile) -> anyhow::Result<Vec<ProjectMount>> {
    let mut all = Vec::new();
    for function in &file.project.functions {
        all.extend(of_function(function, &file.directory)?);
    }
    Ok(all)
}

/// The mounts of a function.
pub(crate) fn of_function(function: &DeclaredFunction, directory: &Path) -> Result<Vec<ProjectMount>, Problem> {
    let points = |field: &str| {
        let of = function.config.get(field).and_then(|of| of["mountPoints"].as_array());
        of.into_iter().flatten().filter_map(Value::as_object).cloned().collect::<Vec<Map<String, Value>>>()
    };
    let text =
        |point: &Map<String, Value>, name: &str| point.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let nas = points("nasConfig").into_iter().map(|point| (ShareName::nas(&text(&point, "serverAddr")), point));
    let buckets = points("ossMountConfig")
        .into_iter()
        .map(|point| (ShareName::bucket(&text(&point, "bucketName"), &text(&point, "bucketPath")), point));
    let mut all = Vec::new();
    for (share, point) in nas.chain(buckets) {
        let share = share
            .map_err(|error| Problem::new(code::SHARE_INVALID, error.to_string()).place(function.place.clone()))?;
        all.push(ProjectMount {
            function: function.name.to_string(),
            service: function.key.split_once('/').map(|(service, _)| service.to_owned()),
            target: text(&point, "mountDir").trim_end_matches('/').to_owned(),
            read_only: point.get("readOnly").and_then(Value::as_bool).unwrap_or(false),
            twin: directory.join(share.twin()),
            share,
        });
    }
    Ok(all)
}

/// The mount that a place is in, and the path below it: `nas://SERVICE:/mnt/auto/x` or `nas:///mnt/auto/x`.
pub(crate) fn find_place(mounts: &[ProjectMount], place: &str) -> Result<(ProjectMount, PathBuf), Problem> {
    let wrong = |said: String| {
        Problem::new(code::SHARE_UNKNOWN, said)
            .hint("write nas://SERVICE:/mnt/auto/ or nas:///mnt/auto/; `kip nas info` lists the shares")
    };
    let rest = place.strip_prefix("nas://").ok_or_else(|| wrong(format!("`{place}` is no place on a share")))?;
    let (service, path) = match rest.split_once(':') {
        Some((service, path)) => (Some(service), path),
        None => (None, rest),
    };
    let path = Path::new(path);
    if !path.is_absolute() || path.components().any(|part| matches!(part, std::path::Component::ParentDir)) {
        return Err(wrong(format!("`{place}` is no place on a share")));
    }
    let of_service = |mount: &&ProjectMount| {
        service.is_none_or(|service| mount.service.as_deref() == Some(service) || mount.function == service)
    };
    let found = mounts.iter().filter(of_service).find_map(|mount| {
        let below = path.strip_prefix(&mount.target).ok()?;
        Some((mount.clone(), below.to_owned()))
    });
    found.ok_or_else(|| wrong(format!("nothing of the file is mounted at `{place}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_place_are_found() {
        let mount = |service: &str, share: &str| ProjectMount {
            function: format!("{service}-f"),
            service: Some(service.to_owned()),
            share: share.parse().unwrap(),
            target: "/mnt/auto".to_owned(),
            read_only: false,
            twin: PathBuf::from("/p"),
        };
        let all = [mount("shop", "auto-default:/shop"), mount("classify", "auto-default:/classify")];
        let share =
            |place: &str| find_place(&all, place).map(|(mount, below)| format!("{} {}", mount.share, below.display()));
        assert_eq!(share("nas://classify:/mnt/auto/").unwrap(), "auto-default:/classify ");
        assert_eq!(share("nas://classify:/mnt/auto/model/x").unwrap(), "auto-default:/classify model/x");
        assert_eq!(share("nas:///mnt/auto").unwrap(), "auto-default:/shop ");
        for wrong in ["/mnt/auto", "nas://none:/mnt/auto", "nas:///mnt/other", "nas:///mnt/auto/../x", "nas://classify"]
        {
            assert_eq!(share(wrong).unwrap_err().code, code::SHARE_UNKNOWN, "{wrong}");
        }
    }
}
