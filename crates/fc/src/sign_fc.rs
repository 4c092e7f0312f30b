//! Signatures of the scheme `FC`: what a client signed. Pure.
//!
//! Source of the format: the shared reference on the FC 3.0 API, section 1.3.

use http::HeaderMap;
use kip_spec::{Problem, code};

use crate::query::{self, decoded};

/// The text that is signed. The query is signed where clients call functions, and has a line for each field then.
pub(crate) fn canonical(method: &str, path: &str, query: Option<&str>, headers: &HeaderMap) -> String {
    let value = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().trim();
    let mut own: Vec<(&str, &str)> = headers
        .keys()
        .map(http::HeaderName::as_str)
        .filter(|name| name.starts_with("x-fc-"))
        .map(|name| (name, value(name)))
        .collect();
    own.sort_unstable();
    let own: String = own.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let [digest, kind, date] = ["content-md5", "content-type", "date"].map(value);
    let query = query.map(|query| {
        let mut fields: Vec<String> =
            query::pairs(query).iter().map(|(name, value)| format!("{name}={value}")).collect();
        fields.sort_unstable();
        format!("\n{}", fields.join("\n"))
    });
    let path = decoded(path, false);
    format!("{method}\n{digest}\n{kind}\n{date}\n{own}{path}{}", query.unwrap_or_default())
}

/// A date as in HTTP, `Mon, 30 Nov 2026 12:00:00 GMT`, in seconds since 1970.
///
/// # Errors
/// It is no time.
pub(crate) fn time(date: &str) -> Result<i64, Problem> {
    let read = jiff::fmt::rfc2822::parse(date.trim()).map(|at| at.timestamp().as_second());
    read.map_err(|_| Problem::new(code::SIGNATURE_HEADER, "date is a time such as Mon, 30 Nov 2026 12:00:00 GMT"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_text_has_the_path_decoded_and_the_headers_of_the_vendor_sorted() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-fc-b", "2"), ("x-fc-a", " 1 "), ("date", "D"), ("content-type", "T"), ("host", "h")] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let text = "GET\n\nT\nD\nx-fc-a:1\nx-fc-b:2\n/2016-08-15/a b";
        assert_eq!(canonical("GET", "/2016-08-15/a%20b", None, &headers), text);
        let with_query = |query| canonical("GET", "/2016-08-15/a%20b", Some(query), &headers);
        assert_eq!(with_query("b=2%2F&a=1&a=0"), format!("{text}\na=0\na=1\nb=2/"));
        assert_eq!(with_query(""), format!("{text}\n"));
    }
}
