//! Request bodies, read whole and within a limit.

use bytes::Bytes;
use http::request::Parts;
use http::{Request, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};

use crate::error::Error;

/// Reads the body. A declared length beyond the limit is refused before anything is read.
pub(super) async fn read(request: Request<Incoming>, limit: u64) -> Result<(Parts, Bytes), Error> {
    let (head, body) = request.into_parts();
    let too_large = |given: String| {
        let limit = kip_spec::Bytes(limit);
        Error::TooLarge(format!("the body {given}; the limit is {limit}"))
    };
    if let Some(encoding) = head.headers.get(header::CONTENT_ENCODING).filter(|value| *value != "identity") {
        return Err(Error::Unreadable {
            message: format!("the body is encoded as {encoding:?}, which is not read here"),
            hint: Some("send it without Content-Encoding"),
        });
    }
    if body.size_hint().lower() > limit {
        return Err(too_large(format!("has {} bytes", body.size_hint().lower())));
    }
    let limited = Limited::new(body, usize::try_from(limit).unwrap_or(usize::MAX));
    match limited.collect().await {
        Ok(collected) => Ok((head, collected.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large("is too large".to_owned())),
        Err(error) => Err(Error::unreadable(format!("the body broke off: {error}"))),
    }
}
