//! The code of a request: within its body, or uploaded before.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
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
