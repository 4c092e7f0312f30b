//! Signatures ACS3-HMAC-SHA256: what a client signed, from the list of headers that it names itself. Pure.

use data_encoding::HEXLOWER_PERMISSIVE;
use http::HeaderMap;
use ring::hmac;
use sha2::{Digest, Sha256};

use crate::query::{self, encoded};

/// The scheme.
pub(crate) const SCHEME: &str = "ACS3-HMAC-SHA256";
/// Header of the request's time, such as `2026-11-29T12:00:00Z`.
pub(crate) const DATE: &str = "x-acs-date";
/// Header of the nonce.
pub(crate) const NONCE: &str = "x-acs-signature-nonce";
/// Header of the body's SHA-256, in hexadecimal digits.
pub(crate) const CONTENT: &str = "x-acs-content-sha256";
/// What a signature must cover at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coverage {
    /// Host, time, nonce and body: without these a signature could be sent again, later or with another body. Clients of the API sign them.
    Request,
    /// The time, as the vendor's library signs calls of triggers.
    Time,
}

impl Coverage {
    fn headers(self) -> &'static [&'static str] {
        match self {
            Self::Request => &["host", DATE, NONCE, CONTENT],
            Self::Time => &[DATE],
        }
    }
}

/// Whether a signature that was accepted covers a header.
pub(crate) fn covers(parameters: &str, header: &str) -> bool {
    parse(parameters, Coverage::Time).is_ok_and(|signature| signature.headers.contains(&header))
}

/// A signature as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signature<'a> {
    /// The access-key id.
    pub(crate) access_id: &'a str,
    /// The headers that it covers, in lower case, in their order.
    pub(crate) headers: Vec<&'a str>,
    bytes: Vec<u8>,
}

/// Reads what follows the scheme in `Authorization`. The error is a sentence.
pub(crate) fn parse(parameters: &str, coverage: Coverage) -> Result<Signature<'_>, String> {
    let (mut access_id, mut headers, mut signature) = (None, None, None);
    for part in parameters.split(',') {
        let Some((name, value)) = part.trim().split_once('=') else {
            return Err("Authorization is Credential=…,SignedHeaders=…,Signature=…".to_owned());
        };
        let slot = match name {
            "Credential" => &mut access_id,
            "SignedHeaders" => &mut headers,
            "Signature" => &mut signature,
            _ => continue,
        };
        if slot.replace(value).is_some() {
            return Err(format!("Authorization has {name} twice"));
        }
    }
    let missing = |name: &str| format!("Authorization has no {name}");
    let headers: Vec<&str> = headers.ok_or_else(|| missing("SignedHeaders"))?.split(';').collect();
    let is_name = |name: &&str| !name.is_empty() && name.bytes().all(|byte| !byte.is_ascii_uppercase());
    if !headers.iter().all(is_name) || headers.windows(2).any(|pair| pair[0] >= pair[1]) {
        return Err("SignedHeaders is a sorted list of names in lower case, each once".to_owned());
    }
    if let Some(name) = coverage.headers().iter().find(|name| !headers.contains(*name)) {
        return Err(format!("SignedHeaders lacks {name}"));
    }
    let bytes = HEXLOWER_PERMISSIVE.decode(signature.ok_or_else(|| missing("Signature"))?.as_bytes());
    let bytes = bytes.map_err(|_| "Signature is not hexadecimal".to_owned())?;
    Ok(Signature { access_id: access_id.ok_or_else(|| missing("Credential"))?, headers, bytes })
}

/// The text that is signed: method, path as it was sent, query, headers, hash of the body.
pub(crate) fn canonical(
    method: &str,
    path: &str,
    raw_query: &str,
    headers: &HeaderMap,
    signature: &Signature<'_>,
) -> Result<String, String> {
    let mut pairs = query::pairs(raw_query);
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    let query: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    let mut text = format!("{method}\n{path}\n{}\n", query.join("&"));
    for name in &signature.headers {
        let mut values = Vec::new();
        for value in headers.get_all(*name) {
            // Clients sign text; what is none cannot have been signed.
            values.push(std::str::from_utf8(value.as_bytes()).map_err(|_| format!("{name} is not text"))?.trim());
        }
        if values.is_empty() {
            return Err(format!("{name} is signed and was not sent"));
        }
        text.push_str(&format!("{name}:{}\n", values.join(",")));
    }
    let content = headers.get(CONTENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.push_str(&format!("\n{}\n{content}", signature.headers.join(";")));
    Ok(text)
}

impl Signature<'_> {
    /// Whether it is this secret's signature of the text.
    pub(crate) fn is_of(&self, secret: &str, canonical: &str) -> bool {
        let to_sign = format!("{SCHEME}\n{}", HEXLOWER_PERMISSIVE.encode(&Sha256::digest(canonical.as_bytes())));
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        hmac::verify(&key, to_sign.as_bytes(), &self.bytes).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const HEADERS: &str = "host;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce";

    fn sent() -> HeaderMap {
        let mut headers = HeaderMap::new();
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for (name, value) in [
            ("host", "127.0.0.1:5471"),
            (CONTENT, empty),
            (DATE, "2026-11-29T12:00:00Z"),
            (NONCE, " abc "),
            ("x-other", "not signed"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers
    }

    fn signature(text: &str) -> Signature<'_> {
        parse(text, Coverage::Request).unwrap()
    }

    #[test]
    fn the_text_is_made_of_what_the_client_names() {
        let authorization = format!("Credential=id,SignedHeaders={HEADERS},Signature=00");
        let text =
            canonical("GET", "/2023-03-30/a%2Fb", "b=1+2&a=%2A*&c", &sent(), &signature(&authorization)).unwrap();
        let expected = "GET\n/2023-03-30/a%2Fb\na=%2A%2A&b=1%202&c=\nhost:127.0.0.1:5471\n\
            x-acs-content-sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n\
            x-acs-date:2026-11-29T12:00:00Z\nx-acs-signature-nonce:abc\n\n\
            host;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce\n\
            e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_signature_is_of_its_text_and_its_secret_only() {
        let plain = format!("Credential=id,SignedHeaders={HEADERS},Signature=00");
        let text = canonical("GET", "/", "", &sent(), &signature(&plain)).unwrap();
        let to_sign = format!("{SCHEME}\n{}", HEXLOWER_PERMISSIVE.encode(&Sha256::digest(text.as_bytes())));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"secret"), to_sign.as_bytes());
        let signed =
            format!("Credential=id, SignedHeaders={HEADERS}, Signature={}", HEXLOWER_PERMISSIVE.encode(tag.as_ref()));
        assert!(signature(&signed).is_of("secret", &text));
        assert!(!signature(&signed).is_of("other", &text));
        assert!(!signature(&signed).is_of("secret", &format!("{text} ")));
        assert!(!signature(&plain).is_of("secret", &text));
    }

    #[test]
    fn what_is_no_signature_is_refused() {
        for wrong in [
            "",
            "Credential=id",
            "Credential=id,SignedHeaders=host,Signature=00",
            "Credential=id,SignedHeaders=host;host;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce,Signature=00",
            "Credential=id,SignedHeaders=Host;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce,Signature=00",
            "Credential=id,SignedHeaders=host;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce,Signature=0g",
            "Credential=id,Credential=id,SignedHeaders=host;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce,Signature=00",
            "SignedHeaders=host;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce,Signature=00",
        ] {
            assert!(parse(wrong, Coverage::Request).is_err(), "{wrong}");
        }
        let of = signature(
            "Credential=a,SignedHeaders=absent;host;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce,Signature=00",
        )
        .headers
        .len();
        assert_eq!(of, 5);
        let absent = signature(
            "Credential=a,SignedHeaders=absent;host;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce,Signature=00",
        );
        assert!(canonical("GET", "/", "", &sent(), &absent).is_err());
    }

    #[test]
    fn callers_of_triggers_may_sign_the_time_alone() {
        let plain = "Credential=id,SignedHeaders=x-acs-date;x-acs-security-token,Signature=00";
        assert!(parse(plain, Coverage::Request).is_err());
        assert_eq!(parse(plain, Coverage::Time).unwrap().headers, ["x-acs-date", "x-acs-security-token"]);
        assert!(covers(plain, DATE) && !covers(plain, CONTENT));
        assert!(parse("Credential=id,SignedHeaders=host,Signature=00", Coverage::Time).is_err());
        let mut headers = sent();
        headers.insert("x-acs-security-token", HeaderValue::from_static(""));
        headers.remove(CONTENT);
        let text = canonical("GET", "/f/web/", "", &headers, &parse(plain, Coverage::Time).unwrap()).unwrap();
        let expected = "GET\n/f/web/\n\nx-acs-date:2026-11-29T12:00:00Z\nx-acs-security-token:\n\nx-acs-date;x-acs-security-token\n";
        assert_eq!(text, expected);
    }
}
