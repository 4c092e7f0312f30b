//! Code that is not in the project: an archive at an address, or an object of a bucket, which is a folder of this machine.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use kip_host::http_client;
use kip_host::tls::Trust;
use kip_serverless::{CodeSource, Project, RemoteCode};
use kip_spec::share::ShareName;
use kip_spec::{Problem, code};
use kip_wire::ShareInfo;
use tempfile::TempDir;

use crate::client::{Client, segment};
use crate::output::Output;
use crate::progress::Progress;

/// Bytes of an archive that are taken.
const LARGEST: u64 = 100 << 20;
/// Addresses that one may lead to, one after the other.
const MOST_REDIRECTS: usize = 5;
/// How long nothing may come.
const IDLE: Duration = Duration::from_secs(60);

/// Brings the code of a project's functions to this machine. What is downloaded is in `fetched`, and gone with it.
pub(crate) async fn bring(
    client: &Client,
    project: &mut Project,
    fetched: &mut Option<TempDir>,
    output: Output,
) -> anyhow::Result<()> {
    for (number, function) in project.functions.iter_mut().enumerate() {
        let Some(source) = &mut function.code else { continue };
        match source.from.clone() {
            None => {}
            Some(RemoteCode::Bucket { bucket, object }) => {
                let problem = |what: String| {
                    refused(source, what, "`kip nas info` shows folders of buckets; put the archive there")
                };
                let share = ShareName::bucket(&bucket, &object).map_err(|error| problem(error.to_string()))?;
                let there: ShareInfo = client.get(&format!("/api/v1/shares/{}", segment(&share.to_string()))).await?;
                if !Path::new(&there.folder).is_file() {
                    return Err(problem(format!("the code {share} is not there: no file {}", there.folder)).into());
                }
                source.path = there.folder.into();
            }
            Some(RemoteCode::Address(address)) => {
                let folder = match fetched {
                    Some(folder) => &*folder,
                    None => &*fetched.insert(tempfile::tempdir()?),
                };
                let path = folder.path().join(format!("{number}.zip"));
                let mut progress = Progress::new(output);
                let done = download(&address, &path, &mut progress).await;
                done.map_err(|what| {
                    let hint =
                        "check it with `curl -fLO ADDRESS`, or download it and write the path: `code: ./code.zip`";
                    refused(source, format!("the code at {address} is not fetched: {what}"), hint)
                })?;
                source.path = path;
            }
        }
    }
    Ok(())
}

fn refused(source: &CodeSource, what: String, hint: &str) -> Problem {
    Problem::new(code::FILE_CODE, what).place(source.place.clone()).hint(hint.to_owned())
}

/// Downloads what is at an address into a file.
async fn download(address: &str, path: &Path, progress: &mut Progress) -> Result<(), String> {
    let mut address = address.to_owned();
    for _ in 0..=MOST_REDIRECTS {
        let answer = tokio::time::timeout(IDLE, open(&address)).await.map_err(|_| "no answer in time".to_owned())??;
        let (head, mut body) = answer.into_parts();
        if head.status.is_redirection() {
            let to = head.headers.get(http::header::LOCATION).and_then(|to| to.to_str().ok());
            address = followed(&address, to.ok_or("it leads elsewhere and does not say where")?)?;
            continue;
        }
        if head.status != StatusCode::OK {
            return Err(format!("the answer is {}", head.status));
        }
        let mut file = std::fs::File::create(path).map_err(|error| error.to_string())?;
        let mut taken = 0u64;
        loop {
            let frame =
                tokio::time::timeout(IDLE, body.frame()).await.map_err(|_| "it stopped in the middle".to_owned())?;
            let Some(frame) = frame else { return Ok(()) };
            let Ok(data) = frame.map_err(|error| error.to_string())?.into_data() else { continue };
            taken += data.len() as u64;
            if taken > LARGEST {
                return Err("it has more than 100 MiB".to_owned());
            }
            file.write_all(&data).map_err(|error| error.to_string())?;
            progress.say(&format!("fetching the code: {}", kip_spec::people::size(taken)));
        }
    }
    Err(format!("it leads on more than {MOST_REDIRECTS} times"))
}

/// Where an address leads. From `https` nothing leads to `http`.
fn followed(from: &str, to: &str) -> Result<String, String> {
    let (scheme, rest) = from.split_once("://").unwrap_or((from, ""));
    let whole = match to.strip_prefix('/') {
        Some(path) => format!("{scheme}://{}/{path}", rest.split('/').next().unwrap_or_default()),
        None => to.to_owned(),
    };
    match (scheme, whole.split_once("://").map(|(scheme, _)| scheme)) {
        ("https", Some("http")) => Err(format!("it leads to {to}, which is not encrypted")),
        (_, Some("http" | "https")) => Ok(whole),
        _ => Err(format!("it leads to {to}, which is no address")),
    }
}

async fn open(address: &str) -> Result<http::Response<hyper::body::Incoming>, String> {
    let (scheme, rest) = address.split_once("://").ok_or("it is no address")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let port = match (authority.rsplit_once(':'), scheme) {
        (Some((_, port)), _) if port.bytes().all(|byte| byte.is_ascii_digit()) => "",
        (_, "https") => ":443",
        _ => ":80",
    };
    let whole = format!("{authority}{port}");
    let request = Request::builder()
        .method(Method::GET)
        .uri(format!("/{path}"))
        .header(http::header::HOST, authority)
        .body(Full::<Bytes>::default())
        .map_err(|error| error.to_string())?;
    let answer = match scheme {
        "http" => http_client::open(&whole, request).await,
        "https" => {
            let trust = Trust::of(None).map_err(|error| error.to_string())?;
            http_client::open_tls(&trust, &whole, request).await
        }
        _ => return Err("only http and https are fetched".to_owned()),
    };
    answer.map_err(|error| match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_leads_on_but_never_out_of_encryption() {
        assert_eq!(followed("http://a:1/x", "/y/z").unwrap(), "http://a:1/y/z");
        assert_eq!(followed("http://a/x", "https://b/y").unwrap(), "https://b/y");
        assert!(followed("https://a/x", "http://b/y").is_err() && followed("http://a/x", "file:///etc").is_err());
        assert!(followed("http://a/x", "y").is_err());
    }
}
