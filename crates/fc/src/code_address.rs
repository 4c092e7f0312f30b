//! The address of an archive, which clients fetch without a signature: it carries one of ours, for ten minutes.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use data_encoding::HEXLOWER;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use kip_spec::code;
use ring::hmac;

use crate::error::{FcError, FcResult};
use crate::query::QueryFields;
use crate::{Fc, PREFIX};

/// Below the prefix.
pub(crate) const PATH: &str = "kipwake/code/";
/// Seconds for which an address works.
const VALID: i64 = 600;

fn seconds() -> i64 {
    kip_host::clock::wall_millis().div_euclid(1_000)
}

fn text(sha256: &str, expires: i64) -> String {
    format!("{sha256} {expires}")
}

/// The address by which a client that reached us as `host` fetches an archive.
pub(crate) fn of(fc: &Fc, host: &str, sha256: &str) -> String {
    let authority = host.split_once("://").map_or(host, |(_, rest)| rest);
    let expires = seconds() + VALID;
    let tag = hmac::sign(&fc.address_key, text(sha256, expires).as_bytes());
    let signature = HEXLOWER.encode(tag.as_ref());
    format!("http://{authority}{PREFIX}/{PATH}{sha256}?expires={expires}&signature={signature}")
}

/// Serves an archive.
pub(crate) async fn serve(fc: &Fc, sha256: &str, query: &str) -> FcResult<Response> {
    let refused =
        || FcError::new(code::FC_SIGNATURE, "AccessDenied", "the address has expired; ask for the code again");
    let query = QueryFields::read(query);
    let expires = query.number("expires")?.ok_or_else(refused)?;
    let signature = HEXLOWER.decode(query.get("signature").unwrap_or_default().as_bytes()).map_err(|_| refused())?;
    let is_ours = hmac::verify(&fc.address_key, text(sha256, expires).as_bytes(), &signature).is_ok();
    // A digest that is signed is one of ours: it leads nowhere else.
    if !is_ours || seconds() > expires {
        return Err(refused());
    }
    let gone = |error: std::io::Error| {
        FcError::new(code::CODE_ARCHIVE, "InvalidArgument", format!("the archive cannot be read: {error}"))
    };
    let path = fc.codes.archive(sha256);
    let read = kip_host::tasks::blocking("read code", move || std::fs::read(path)).await;
    let bytes = read.unwrap_or_else(|| Err(std::io::Error::other("the server is about to end"))).map_err(gone)?;
    let length = bytes.len().to_string();
    Ok(([(CONTENT_TYPE, "application/zip".to_owned()), (CONTENT_LENGTH, length)], Body::from(bytes)).into_response())
}
