//! The code of a request: within its body, or uploaded before.

use std::io::Read;
use std::path::PathBuf;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use kip_spec::share::ShareName;
use kip_spec::{Problem, code};
use serde_json::Value;

use crate::Fc;
use crate::code::CodeInfo;
use crate::code::archive::ArchiveError;
use crate::error::{FcError, FcResult};
use crate::request::{Request, required, text};

/// Bytes of an archive that is sent within a body.
const LARGEST_INLINE: usize = 100 << 20;
/// Keeps the code of a request.
pub(crate) async fn keep(fc: &Fc, request: &Request, code: Value) -> FcResult<CodeInfo> {
    let wrong = |what: String| FcError::from(Problem::new(code::CODE_ARCHIVE, what));
    let Value::Object(mut given) = code else { return Err(FcError::invalid("code is an object")) };
    // Only few are in memory at once; an inline one has its turn already.
    let mut turn = None;
    let archive = match given.remove("zipFile") {
        Some(Value::String(encoded)) => {
            let decoded = BASE64_STANDARD.decode(encoded.as_bytes());
            let decoded = decoded.map_err(|_| FcError::invalid("code.zipFile is not base64"))?;
            if decoded.len() > LARGEST_INLINE {
                return Err(wrong(format!("the archive has {} bytes; {LARGEST_INLINE} at most", decoded.len())));
            }
            decoded.into()
        }
        _ => match text(&given, "ossBucketName")?.filter(|bucket| !bucket.is_empty()) {
            Some(bucket) if bucket != crate::uploads::BUCKET => {
                turn = fc.turns.clone().acquire_owned().await.ok();
                of_bucket(fc, bucket, required(&given, "ossObjectName")?).await?
            }
            Some(bucket) => {
                turn = fc.turns.clone().acquire_owned().await.ok();
                fc.places.take(&request.key, bucket, required(&given, "ossObjectName")?).await?
            }
            None => return Err(FcError::invalid("code.zipFile, or code.ossBucketName and ossObjectName, is required")),
        },
    };
    let kept = fc.codes.keep(archive).await;
    drop(turn);
    let kept = kept.map_err(|ArchiveError(what)| wrong(format!("the code archive is not taken: {what}")))?;
    match text(&given, "checksum")?.filter(|sent| !sent.is_empty() && *sent != kept.checksum) {
        None => Ok(kept),
        Some(sent) => {
            fc.codes.release(&kept.sha256);
            Err(wrong(format!("code.checksum is {sent}, and the archive's CRC-64 is {}", kept.checksum)))
        }
    }
}

/// An object of a bucket, whose folder is on this machine.
async fn of_bucket(fc: &Fc, bucket: &str, object: &str) -> FcResult<Bytes> {
    let name = ShareName::bucket(bucket, object);
    let name = name.map_err(|error| FcError::new(code::SHARE_INVALID, "InvalidArgument", error.to_string()))?;
    let path = PathBuf::from(fc.control.share(&name).await?.folder);
    let root = PathBuf::from(fc.control.share(&ShareName::bucket(bucket, "").unwrap_or(name)).await?.folder);
    let shown = path.display().to_string();
    let read = move || -> std::io::Result<Vec<u8>> {
        // A link in the bucket leads nowhere else.
        if !path.canonicalize()?.starts_with(root.canonicalize()?) {
            return Err(std::io::Error::other("it leads out of the bucket"));
        }
        let mut bytes = Vec::new();
        let read = std::fs::File::open(&path)?.take(crate::uploads::LARGEST + 1).read_to_end(&mut bytes)?;
        match u64::try_from(read) {
            Ok(read) if read <= crate::uploads::LARGEST => Ok(bytes),
            _ => Err(std::io::Error::other("it is larger than 500 MiB")),
        }
    };
    let read = kip_host::tasks::blocking("read code", read).await;
    let read = read.unwrap_or_else(|| Err(std::io::Error::other("the server is about to end")));
    read.map(Bytes::from).map_err(|error| {
        let said = format!("there is no object `{object}` in bucket `{bucket}`: {shown}: {error}");
        FcError::new(code::CODE_ARCHIVE, "InvalidArgument", said)
    })
}
