use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::HeaderValue;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::json;

use super::*;

fn text(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn now() -> i64 {
    kip_host::clock::wall_millis() / 1_000
}

type Sign = dyn Fn(&[u8]) -> Vec<u8>;

/// A signer with its key as JSON.
struct Signer {
    algorithm: &'static str,
    jwk: Value,
    sign: Box<Sign>,
}

impl Signer {
    fn ec() -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap();
        let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
        let jwk = json!({"kty": "EC", "crv": "P-256", "x": text(x), "y": text(y), "kid": "ec", "use": "sig"});
        let sign = Box::new(move |message: &[u8]| pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec());
        Self { algorithm: "ES256", jwk, sign }
    }

    fn ed() -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": text(pair.public_key()), "kid": "ed", "alg": "EdDSA"});
        Self { algorithm: "EdDSA", jwk, sign: Box::new(move |message: &[u8]| pair.sign(message).as_ref().to_vec()) }
    }

    fn secret(secret: &'static [u8]) -> Self {
        let jwk = json!({"kty": "oct", "k": text(secret), "kid": "hs", "alg": "HS256"});
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
        Self {
            algorithm: "HS256",
            jwk,
            sign: Box::new(move |message: &[u8]| ring::hmac::sign(&key, message).as_ref().to_vec()),
        }
    }

    fn token_as(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", text(header.to_string()), text(claims.to_string()));
        let signature = text((self.sign)(message.as_bytes()));
        format!("{message}.{signature}")
    }

    fn token(&self, claims: &Value) -> String {
        self.token_as(&json!({"alg": self.algorithm, "typ": "JWT", "kid": self.jwk["kid"]}), claims)
    }
}

fn policy(settings: Value) -> TokenPolicy {
    TokenPolicy::read(settings.as_object().unwrap()).unwrap()
}

fn bearer(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::from_str(&format!("Bearer {token}")).unwrap());
    headers
}

async fn check(policy: &TokenPolicy, token: &str) -> Result<TokenClaims, String> {
    policy.check(&bearer(token), &"/".parse().unwrap()).await.map_err(|problem| problem.message)
}

#[tokio::test]
async fn tokens_of_each_type_of_key_are_taken_and_changed_ones_are_not() {
    for signer in [Signer::ec(), Signer::ed(), Signer::secret(b"0123456789abcdef0123456789abcdef")] {
        let policy = policy(json!({"jwks": {"keys": [signer.jwk]}}));
        let good = signer.token(&json!({"sub": "a", "exp": now() + 60}));
        assert!(check(&policy, &good).await.is_ok(), "{}", signer.algorithm);
        let mut parts: Vec<String> = good.split('.').map(str::to_owned).collect();
        parts[1] = text(json!({"sub": "b", "exp": now() + 60}).to_string());
        assert!(check(&policy, &parts.join(".")).await.is_err(), "another claim");
        let none = format!("{}.{}.", text(r#"{"alg":"none"}"#), parts[1]);
        assert!(check(&policy, &none).await.is_err(), "no signature");
        for (claims, what) in [
            (json!({"exp": now() - 120}), "expired"),
            (json!({"sub": "a"}), "without an end"),
            (json!({"exp": "9999999999"}), "an end that is no number"),
            (json!({"exp": now() + 60, "nbf": now() + 600}), "not yet"),
            (json!({"exp": now() + 60, "nbf": "0"}), "a begin that is no number"),
        ] {
            assert!(check(&policy, &signer.token(&claims)).await.is_err(), "{what}");
        }
        let other = signer.token_as(&json!({"alg": signer.algorithm, "kid": "other"}), &json!({"exp": now() + 60}));
        assert!(check(&policy, &other).await.is_err(), "a key that is not in the set");
        let without = signer.token_as(&json!({"alg": signer.algorithm}), &json!({"exp": now() + 60}));
        assert!(check(&policy, &without).await.is_ok(), "without an id any key may be meant");
    }
    let (ec, stranger) = (Signer::ec(), Signer::ec());
    let policy = policy(json!({"jwks": {"keys": [ec.jwk]}}));
    assert!(check(&policy, &stranger.token(&json!({"exp": now() + 60}))).await.is_err());
    for text in ["", "a", "a.b", "a.b.c", &"x".repeat(LONGEST + 1)] {
        assert!(check(&policy, text).await.is_err());
    }
}

#[tokio::test]
async fn the_algorithm_is_that_of_the_key() {
    // The public key of a signature as the secret of another algorithm: the classic confusion.
    let ec = Signer::ec();
    let policy = policy(json!({"jwks": {"keys": [ec.jwk]}}));
    let secret = Signer::secret(b"0123456789abcdef0123456789abcdef");
    let token = secret.token_as(&json!({"alg": "HS256", "kid": "ec"}), &json!({"exp": now() + 60}));
    assert!(check(&policy, &token).await.is_err());
    let mut wrong = ec.jwk.clone();
    wrong["alg"] = "HS256".into();
    let settings = json!({"jwks": {"keys": [wrong]}});
    assert!(TokenPolicy::read(settings.as_object().unwrap()).unwrap_err().0.contains("not for its type"));
}

#[tokio::test]
async fn issuer_and_audience_must_fit_where_they_are_asked_for() {
    let signer = Signer::ed();
    let policy = policy(json!({"jwks": {"keys": [signer.jwk]}, "issuer": "me", "audience": "you"}));
    let exp = now() + 60;
    assert!(check(&policy, &signer.token(&json!({"exp": exp, "iss": "me", "aud": ["you", "x"]}))).await.is_ok());
    for claims in [
        json!({"exp": exp, "iss": "me"}),
        json!({"exp": exp, "aud": "you"}),
        json!({"exp": exp, "iss": "x", "aud": "you"}),
    ] {
        assert!(check(&policy, &signer.token(&claims)).await.is_err(), "{claims}");
    }
}

#[tokio::test]
async fn tokens_are_found_where_the_settings_say_and_claims_replace_what_a_caller_sends() {
    let signer = Signer::ed();
    let policy = policy(json!({"jwks": {"keys": [signer.jwk]},
        "tokenLookup": "header:X-Token:Own ,query:token,cookie:session", "claimPassBy": "header:sub:x-user,query:n:number"}));
    let token = signer.token(&json!({"exp": now() + 60, "sub": "ann", "n": 7}));
    let target: Uri = "/p?a=1&%6eumber=0".parse().unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("x-token", HeaderValue::from_str(&format!("Own {token}")).unwrap());
    headers.insert("x-user", HeaderValue::from_static("eve"));
    let claims = policy.check(&headers, &target).await.unwrap();
    let changed = claims.apply(&mut headers, &target);
    assert_eq!((headers["x-user"].to_str().unwrap(), changed.to_string().as_str()), ("ann", "/p?a=1&number=7"));
    let by_query: Uri = format!("/p?token={token}").parse().unwrap();
    assert!(policy.check(&HeaderMap::new(), &by_query).await.is_ok());
    let mut cookie = HeaderMap::new();
    cookie.insert("cookie", HeaderValue::from_str(&format!("a=b; session={token}")).unwrap());
    assert!(policy.check(&cookie, &target).await.is_ok());
    assert!(policy.check(&bearer(&token), &target).await.is_err(), "not where it is looked for");
}

#[tokio::test]
async fn paths_on_the_list_need_no_token_and_bring_no_claims() {
    let signer = Signer::ed();
    let open = policy(json!({"jwks": {"keys": [signer.jwk]}, "whitelist": ["/open/*", "/x"], "claimPassBy": [
        {"mappingParameterPosition": "header", "mappingParameterName": "x-user", "claimName": "sub"}]}));
    let asks = |path: &str| path.parse::<Uri>().unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("x-user", HeaderValue::from_static("eve"));
    let claims = open.check(&headers, &asks("/open/a")).await.unwrap();
    claims.apply(&mut headers, &asks("/open/a"));
    assert!(headers.is_empty(), "nobody names himself");
    assert!(open.check(&headers, &asks("/x")).await.is_ok());
    assert!(open.check(&headers, &asks("/xy")).await.is_err());
    let closed = policy(json!({"jwks": {"keys": [signer.jwk]}, "blackList": ["/admin/*"]}));
    assert!(closed.check(&headers, &asks("/")).await.is_ok());
    assert!(closed.check(&headers, &asks("/admin/")).await.is_err());
}

#[test]
fn settings_that_cannot_hold_are_refused() {
    let key = || Signer::ed().jwk;
    for wrong in [
        json!({}),
        json!({"jwks": {}}),
        json!({"jwks": {"keys": [{"kty": "RSA"}]}}),
        json!({"jwks": {"keys": [key()]}, "jwksUri": "https://a.example/x"}),
        json!({"jwksUri": "ftp://a.example/x"}),
        json!({"jwksFile": "relative"}),
        json!({"jwks": {"keys": [key()]}, "tokenLookup": "form:x"}),
        json!({"jwks": {"keys": [key()]}, "tokenLookup": "header"}),
        json!({"jwks": {"keys": [key()]}, "claimPassBy": "header:sub:host"}),
        json!({"jwks": {"keys": [key()]}, "claimPassBy": "header:sub:x-fc-request-id"}),
        json!({"jwks": {"keys": [key()]}, "whitelist": ["/a"], "blacklist": ["/b"]}),
        json!({"jwks": {"keys": [key()]}, "whitelist": ["a"]}),
    ] {
        assert!(TokenPolicy::read(wrong.as_object().unwrap()).is_err(), "{wrong}");
    }
    let empty = json!({"jwks": {"keys": [key()]}, "claimPassBy": "query::"});
    assert!(TokenPolicy::read(empty.as_object().unwrap()).is_ok());
}

#[tokio::test]
async fn a_set_in_a_file_is_read_once_and_again_for_a_key_that_is_not_there() {
    let signer = Signer::ed();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jwks.json");
    let policy = policy(json!({"jwksFile": file.to_str().unwrap()}));
    let token = signer.token(&json!({"exp": now() + 60}));
    let failed = check(&policy, &token).await.unwrap_err();
    assert!(failed.contains("cannot be brought"), "{failed}");
    std::fs::write(&file, json!({"keys": [signer.jwk]}).to_string()).unwrap();
    assert!(check(&policy, &token).await.is_err(), "not again within a minute");
    let later = super::TokenPolicy::read(json!({"jwksFile": file.to_str().unwrap()}).as_object().unwrap()).unwrap();
    assert!(check(&later, &token).await.is_ok());
    std::fs::remove_file(&file).unwrap();
    assert!(check(&later, &token).await.is_ok(), "what was read is kept");
}

/// A server that gives these answers, one a connection, and notes the paths that were asked for.
fn answering(answers: Vec<String>) -> (std::net::SocketAddr, std::thread::JoinHandle<Vec<String>>) {
    use std::io::{BufRead as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = move || {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = std::io::BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            asked.push(lines.next().unwrap_or_default());
            lines.find(String::is_empty);
            stream.write_all(answer.as_bytes()).unwrap();
        }
        asked
    };
    #[expect(clippy::disallowed_methods, reason = "a server of a test, outside of any runtime")]
    let thread = std::thread::spawn(serve);
    (address, thread)
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn a_set_at_an_address_is_brought_and_redirects_stay_on_their_host() {
    let signer = Signer::ed();
    let set = json!({"keys": [signer.jwk]}).to_string();
    let token = signer.token(&json!({"exp": now() + 60}));
    let moved = answer("302 Found\r\nlocation: /moved.json", "");
    let (address, served) = answering(vec![moved, answer("200 OK", &set)]);
    let followed = policy(json!({"jwksUri": format!("http://{address}/jwks.json?a=b")}));
    assert!(check(&followed, &token).await.is_ok());
    let unknown = signer.token_as(&json!({"alg": "EdDSA", "kid": "other"}), &json!({"exp": now() + 60}));
    assert!(check(&followed, &unknown).await.is_err(), "and not brought again within a minute: nobody serves it");
    assert_eq!(served.join().unwrap(), ["GET /jwks.json?a=b HTTP/1.1", "GET /moved.json HTTP/1.1"]);
    for (status, said) in [
        ("302 Found\r\nlocation: http://other.example/jwks.json", "another host"),
        ("302 Found\r\nlocation: //other.example/jwks.json", "another host"),
        ("404 Not Found", "answers 404"),
    ] {
        let (address, served) = answering(vec![answer(status, "")]);
        let refused = policy(json!({"jwksUri": format!("http://{address}/jwks.json")}));
        let failed = check(&refused, &token).await.unwrap_err();
        assert!(failed.contains(said), "{status}: {failed}");
        served.join().unwrap();
    }
}

#[test]
fn a_path_that_programs_may_read_otherwise_needs_a_token() {
    let jwk = Signer::ed().jwk;
    let list = |kind: &str, path: &str| policy(json!({"jwks": {"keys": [jwk]}, kind: [path]}));
    let (open, closed) = (list("whitelist", "/public/*"), list("blacklist", "/admin/*"));
    let without = |policy: &TokenPolicy, path: &str| !policy.covers(path);
    assert!(without(&open, "/public/a%20b") && without(&closed, "/x/admin"));
    for path in ["/public/../admin", "/public/%2e%2e/admin", "/public/..%2fadmin", "/public//x", "/public/%2"] {
        assert!(!without(&open, path), "{path}");
    }
    for path in
        ["/%61dmin/x", "//admin/x", "/./admin/x", "/x/../admin/x", "/x/%2e%2e/admin/x", "/admin%2fx", "/admin/x"]
    {
        assert!(!without(&closed, path), "{path}");
    }
}
