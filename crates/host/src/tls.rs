//! TLS for listeners: one certificate from two files, read again when they change, without dropping a connection. And for calls
//! to others: whom to trust.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::RwLock;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
pub use tokio_rustls::server::TlsStream;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Why TLS cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is not what it should be.
    #[error("{what} {} cannot be used: {why}", path.display())]
    File {
        /// Certificate or key.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Certificate and key do not belong together, or are of a kind that is not spoken.
    #[error("the certificate and the key cannot be used together: {0}")]
    Pair(#[from] rustls::Error),
}

/// The files of a certificate and its key, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate, followed by those between it and its root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A certificate in use. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Certificate {
    files: Arc<Files>,
    named: NamedCertificates,
    current: Arc<RwLock<(Stamp, Arc<ServerConfig>)>>,
}

/// A certificate of a name of its own, with its key.
#[derive(Debug, Clone)]
pub struct NamedCertificate(Arc<CertifiedKey>);

impl NamedCertificate {
    /// Reads both, PEM.
    ///
    /// # Errors
    /// What is wrong, in a sentence.
    pub fn read(chain: &str, key: &str) -> Result<Self, String> {
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
        let chain = read.map_err(|error| format!("the certificate: {error}"))?;
        if chain.is_empty() {
            return Err("the certificate has no CERTIFICATE block".to_owned());
        }
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| format!("the key: {error}"))?;
        let made = CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider());
        made.map(|made| Self(Arc::new(made))).map_err(|error| error.to_string())
    }
}

/// Certificates by the names of their hosts: a caller that asks for one of these gets it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct NamedCertificates(Arc<RwLock<BTreeMap<String, Arc<CertifiedKey>>>>);

impl NamedCertificates {
    /// Sets the one of a name, in lower case; `*.example.com` stands for all names one label below. None takes it away.
    pub fn set(&self, name: &str, certificate: Option<NamedCertificate>) {
        let mut all = self.0.write();
        match certificate {
            Some(certificate) => drop(all.insert(name.to_owned(), certificate.0)),
            None => drop(all.remove(name)),
        }
    }

    fn find(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let all = self.0.read();
        let wide = || all.get(&format!("*.{}", name.split_once('.')?.1));
        all.get(name).or_else(wide).cloned()
    }
}

/// Which certificate a caller gets: that of the name it asks for, else the listener's own.
#[derive(Debug)]
struct Resolver {
    own: Arc<CertifiedKey>,
    named: NamedCertificates,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| self.named.find(&name.to_ascii_lowercase()));
        Some(named.unwrap_or_else(|| self.own.clone()))
    }
}

/// When the files were last changed, and how long they are.
type Stamp = [Option<(SystemTime, u64)>; 2];

impl Certificate {
    /// Reads the files.
    ///
    /// # Errors
    /// When they cannot be read or do not fit.
    pub fn open(files: Files, named: NamedCertificates) -> Result<Self, Error> {
        let current = (stamp(&files), load(&files, &named)?);
        Ok(Self { files: Arc::new(files), named, current: Arc::new(RwLock::new(current)) })
    }

    /// Whether users beside its owner and group may read the key.
    pub fn key_is_open(&self) -> bool {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::metadata(&self.files.key).is_ok_and(|data| data.permissions().mode() & 0o004 != 0)
    }

    /// What accepts connections with the certificate as it is now.
    pub fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        let current = self.current.read();
        tokio_rustls::TlsAcceptor::from(current.1.clone())
    }

    /// Reads the files again if they changed: whether they did. What cannot be used is left out.
    ///
    /// # Errors
    /// When the new files cannot be used; the old certificate stays.
    pub fn renew(&self) -> Result<bool, Error> {
        let now = stamp(&self.files);
        if self.current.read().0 == now {
            return Ok(false);
        }
        let renewed = load(&self.files, &self.named);
        let mut current = self.current.write();
        // Remembered either way: what is wrong with a pair of files is said once.
        current.0 = now;
        current.1 = renewed?;
        Ok(true)
    }

    /// Looks at the files for as long as the runtime lives.
    pub async fn watch(self) {
        loop {
            tokio::time::sleep(LOOK).await;
            let certificate = self.clone();
            match crate::tasks::blocking("certificate", move || certificate.renew()).await {
                Some(Ok(true)) => {
                    tracing::info!(file = %self.files.certificate.display(), "the certificate was renewed")
                }
                Some(Err(error)) => tracing::warn!(%error, "the certificate was not renewed; the old one stays in use"),
                Some(Ok(false)) => {}
                None => return,
            }
        }
    }
}

/// Where systems keep the certificates that they trust.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Whom we believe to be who they say when we call them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Trust(Arc<ClientConfig>);

impl Trust {
    /// Whom the certificates of a file vouch for, or without one those that the system trusts.
    ///
    /// # Errors
    /// When there is no such file, or nothing in it that can be used.
    pub fn of(file: Option<&Path>) -> Result<Self, Error> {
        let system = || SYSTEM.into_iter().map(Path::new).find(|path| path.is_file());
        let path = file.or_else(system).unwrap_or_else(|| Path::new(SYSTEM[0]));
        let wrong = |why: String| Error::File { what: "the file of trusted certificates", path: path.to_owned(), why };
        let all: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .map_err(|error| wrong(error.to_string()))?;
        let mut roots = RootCertStore::empty();
        let (taken, _) = roots.add_parsable_certificates(all);
        if taken == 0 {
            return Err(wrong("there is no CERTIFICATE block in it that can be used".to_owned()));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }

    /// Speaks TLS with whoever is at the other end, if it is this host.
    ///
    /// # Errors
    /// When it is not, or nobody there speaks TLS.
    pub async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(std::io::Error::other)?;
        tokio_rustls::TlsConnector::from(self.0.clone()).connect(name, stream).await
    }
}

fn stamp(files: &Files) -> Stamp {
    [&files.certificate, &files.key].map(|path| {
        let data = std::fs::metadata(path).ok()?;
        Some((data.modified().ok()?, data.len()))
    })
}

fn load(files: &Files, named: &NamedCertificates) -> Result<Arc<ServerConfig>, Error> {
    let wrong = |what: &'static str, path: &Path| {
        let path = path.to_owned();
        move |why: rustls::pki_types::pem::Error| Error::File { what, path, why: why.to_string() }
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect)
        .map_err(wrong("the certificate", &files.certificate))?;
    if chain.is_empty() {
        let (what, path) = ("the certificate", files.certificate.clone());
        return Err(Error::File { what, path, why: "there is no CERTIFICATE block in it".to_owned() });
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(wrong("the key", &files.key))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let own = Arc::new(CertifiedKey::from_der(chain, key, &provider)?);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Resolver { own, named: named.clone() }));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
