//! Who a request's caller is, where an alias keeps callers on their version.

use http::HeaderMap;
use http::header::COOKIE;
use kip_spec::sticky::Sticky;

/// None where the request does not say: it is drawn by itself then.
pub fn caller(by: &Sticky, headers: &HeaderMap, key: Option<&str>) -> Option<u64> {
    let value = match by {
        Sticky::Key => key?.as_bytes(),
        Sticky::Header(name) => headers.get(name)?.as_bytes(),
        Sticky::Cookie(name) => {
            let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
            let pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
            pairs.filter(|(found, _)| *found == name.as_str()).map(|(_, value)| value.as_bytes()).next()?
        }
    };
    // An empty value names nobody.
    (!value.is_empty()).then(|| Sticky::caller(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_known_by_what_was_declared() {
        let (head, ()) = http::Request::builder()
            .header("X-User", "ann")
            .header("cookie", "a=1; session=s1")
            .header("cookie", "b=2")
            .body(())
            .unwrap()
            .into_parts();
        let of = |by: &str, key| caller(&by.parse().unwrap(), &head.headers, key);
        assert_eq!(of("header:x-user", None), Some(Sticky::caller(b"ann")));
        assert_eq!(of("cookie:session", None), Some(Sticky::caller(b"s1")));
        assert_eq!(of("cookie:b", None), Some(Sticky::caller(b"2")));
        assert_eq!(of("key", Some("team")), Some(Sticky::caller(b"team")));
        for nobody in ["header:x-other", "cookie:sess", "key"] {
            assert_eq!(of(nobody, None), None, "{nobody}");
        }
    }
}
