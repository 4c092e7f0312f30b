//! Models in buckets: a stand-in store with the protocol of S3 that checks signatures by its own arithmetic.
#![cfg(feature = "s3")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kip_models::{Behaviour, CacheLimits, Error, Models, Options, Record, Request};
use kip_spec::named_secret::SecretText;
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};
use ring::hmac;

const ID: &str = "AKIDSTANDIN";
const SECRET: &str = "stand-in/secret";

type Objects = BTreeMap<String, Vec<u8>>;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sign(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

/// Whether the query of a request has the signature of our secret (AWS Signature Version 4, query string).
fn is_signed(method: &str, path: &str, query: &str, host: &str) -> bool {
    let mut pairs: Vec<&str> = query.split('&').collect();
    let Some(at) = pairs.iter().position(|pair| pair.starts_with("X-Amz-Signature=")) else { return false };
    let signature = pairs.remove(at).trim_start_matches("X-Amz-Signature=").to_owned();
    pairs.sort_unstable();
    let field =
        |name: &str| pairs.iter().find_map(|pair| pair.strip_prefix(name)).unwrap_or_default().replace("%2F", "/");
    let (date, credential) = (field("X-Amz-Date="), field("X-Amz-Credential="));
    let Some((id, scope)) = credential.split_once('/') else { return false };
    let canonical = format!("{method}\n{path}\n{}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD", pairs.join("&"));
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex(digest(&SHA256, canonical.as_bytes()).as_ref()));
    let key = scope.split('/').fold(format!("AWS4{SECRET}").into_bytes(), |key, part| sign(&key, part));
    id == ID && hex(&sign(&key, &text)) == signature
}

/// A store with one bucket `b`. Lists have one object a page.
#[derive(Clone)]
struct Store {
    address: SocketAddr,
    objects: Arc<Mutex<Objects>>,
    public: bool,
    gets: Arc<Mutex<u32>>,
}

impl Store {
    fn start(public: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let store = Self { address, objects: Arc::default(), public, gets: Arc::default() };
        let serving = store.clone();
        let accept = move || {
            for stream in listener.incoming().flatten() {
                let store = serving.clone();
                drop(kip_host::tasks::thread("store", move || drop(store.serve(stream))));
            }
        };
        drop(kip_host::tasks::thread("store", accept));
        store
    }

    fn put(&self, key: &str, content: &[u8]) {
        self.objects.lock().insert(key.to_owned(), content.to_vec());
    }

    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?);
        let mut first = String::new();
        lines.read_line(&mut first)?;
        let words: Vec<&str> = first.split_whitespace().collect();
        let (path, query) = words[1].split_once('?').unwrap_or((words[1], ""));
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            lines.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        assert!(!headers.contains_key("authorization"), "the address has the signature");
        let allowed = self.public || is_signed(words[0], path, query, &headers["host"]);
        let plain = |text: &str| text.replace("%2F", "/").replace("%20", " ");
        let answer = |status: &str, extra: &str, body: &[u8], stream: &mut TcpStream| {
            let head =
                format!("HTTP/1.1 {status}\r\n{extra}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body))
        };
        if !allowed {
            return answer("403 Forbidden", "", b"<Error><Code>SignatureDoesNotMatch</Code></Error>", &mut stream);
        }
        let field = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)).map(plain);
        let Some(key) = path.strip_prefix("/b/").map(plain).filter(|key| !key.is_empty()) else {
            let (prefix, after) =
                (field("prefix=").unwrap_or_default(), field("continuation-token=").unwrap_or_default());
            let objects = self.objects.lock();
            let mut left = objects.iter().filter(|(key, _)| key.starts_with(&prefix) && **key > after);
            let entry = left.next().map(|(key, content)| {
                let tag = hex(digest(&SHA256, content).as_ref());
                (
                    key.clone(),
                    format!(
                        "<Contents><Key>{key}</Key><ETag>\"{tag}\"</ETag><Size>{}</Size></Contents>",
                        content.len()
                    ),
                )
            });
            let more = left.next().is_some();
            let (last, contents) = entry.unwrap_or_default();
            let next =
                if more { format!("<NextContinuationToken>{last}</NextContinuationToken>") } else { String::new() };
            let text = format!(
                "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name><IsTruncated>{more}</IsTruncated>{contents}{next}</ListBucketResult>"
            );
            return answer("200 OK", "", text.as_bytes(), &mut stream);
        };
        *self.gets.lock() += 1;
        let Some(content) = self.objects.lock().get(&key).cloned() else {
            return answer("404 Not Found", "", b"", &mut stream);
        };
        let range = headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
        match range {
            None => answer("200 OK", "", &content, &mut stream),
            Some((from, to)) => {
                let from: usize = from.parse().unwrap_or(0);
                let end = to.parse().map_or(content.len(), |to: usize| (to + 1).min(content.len()));
                let extra = format!("Content-Range: bytes {from}-{}/{}\r\n", end - 1, content.len());
                answer("206 Partial Content", &extra, &content[from..end], &mut stream)
            }
        }
    }

    fn request(&self, source: &str, token: Option<&str>) -> Request {
        Request {
            endpoint: Some(format!("http://{}", self.address)),
            token: token.map(|token| SecretText::new(token.to_owned())),
            ..Request::of(source.parse().expect("a source"))
        }
    }
}

fn open(folder: &Path) -> Models {
    let options = Options {
        folder: folder.join("models"),
        endpoints: BTreeMap::new(),
        buckets: BTreeMap::new(),
        reserve: 0,
        limits: CacheLimits::default(),
        prefetch: true,
        foreign_ids: false,
        certificates: None,
        behaviour: Behaviour { patience: Duration::from_secs(5), ..Behaviour::default() },
    };
    Models::open(options).expect("a cache")
}

async fn pull(models: &Models, request: Request) -> Result<Record, Error> {
    models.pulled(models.pull(request).id).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_comes_from_a_bucket_with_a_signature_and_from_a_public_one_without() {
    let folder = tempfile::tempdir().unwrap();
    let models = open(folder.path());
    let large: Vec<u8> = (0..40_u32 << 20).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (public, scheme, token) in [(false, "s3", Some(format!("{ID}:{SECRET}"))), (true, "oss", None)] {
        let store = Store::start(public);
        store.put("llm/weights/model a.bin", &large);
        store.put("llm/config.json", b"{}");
        store.put("llm/folder/", b"");
        store.put("other/model.gguf", b"GGUF");
        let source = format!("{scheme}://b/llm/");
        let record = pull(&models, store.request(&source, token.as_deref())).await.unwrap();
        let paths: Vec<&str> = record.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["config.json", "weights/model a.bin"]);
        assert!(std::fs::read(models.folder(&record).join("weights/model a.bin")).unwrap() == large);
        // The same objects again are not downloaded; another content is another commit.
        let before = *store.gets.lock();
        assert_eq!(pull(&models, store.request(&source, token.as_deref())).await.unwrap().commit, record.commit);
        assert_eq!(*store.gets.lock(), before);
        store.put("llm/config.json", b"{ }");
        assert_ne!(pull(&models, store.request(&source, token.as_deref())).await.unwrap().commit, record.commit);
        let one =
            pull(&models, store.request(&format!("{scheme}://b/other/model.gguf"), token.as_deref())).await.unwrap();
        assert_eq!((one.files.len(), one.files[0].path.as_str()), (1, "model.gguf"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_and_hostile_names_of_objects_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let models = open(folder.path());
    let store = Store::start(false);
    store.put("llm/config.json", b"{}");
    for token in [None, Some(format!("{ID}:wrong")), Some("OTHER:x".to_owned())] {
        let error = pull(&models, store.request("s3://b/llm/", token.as_deref())).await.unwrap_err();
        assert!(matches!(&error, Error::BucketClosed { keys, .. } if *keys == token.is_some()), "{error}");
    }
    let right = format!("{ID}:{SECRET}");
    assert!(pull(&models, store.request("s3://b/llm/", Some("no colon"))).await.is_err());
    assert!(matches!(pull(&models, store.request("s3://b/none/", Some(&right))).await, Err(Error::Empty { .. })));
    store.put("llm/../../escape", b"x");
    assert!(matches!(pull(&models, store.request("s3://b/llm/", Some(&right))).await, Err(Error::Path(_))));
    let without = Request::of("oss://b/x/".parse().unwrap());
    assert!(matches!(pull(&models, without).await, Err(Error::NoStore("oss"))));
}
