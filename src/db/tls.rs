//! TLS with libpq's five sslmodes, by rustls: which certificates are trusted, shown or refused.
//! Knows nothing of connection strings and sessions. Every session is made with a [`Tls`].

use std::convert::Infallible;
use std::fs;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use log::warn;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_postgres::Socket;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;

use self::verify::{Trust, Verifier};
use crate::error::{Error, ErrorKind, Result};

/// How a connection is protected, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SslMode {
    Disable,
    /// TLS if the server has it. The server is never verified.
    Prefer,
    /// Always TLS. The server is verified as with `VerifyCa` if there is a root file.
    Require,
    VerifyCa,
    VerifyFull,
}

impl SslMode {
    /// libpq's names. `allow`, which tries plain first, is not supported: it becomes `prefer`.
    pub(crate) const NAMES: [(&str, SslMode); 6] = [
        ("disable", Self::Disable),
        ("allow", Self::Prefer),
        ("prefer", Self::Prefer),
        ("require", Self::Require),
        ("verify-ca", Self::VerifyCa),
        ("verify-full", Self::VerifyFull),
    ];

    pub(crate) fn name(self) -> &'static str {
        let named = Self::NAMES.iter().rev().find(|(_, mode)| *mode == self);
        named.expect("every mode has a name").0
    }

    /// What tokio-postgres needs to know: whether to ask for TLS, and whether to insist on it.
    pub(crate) fn on_the_wire(self) -> tokio_postgres::config::SslMode {
        use tokio_postgres::config::SslMode as Wire;
        match self {
            Self::Disable => Wire::Disable,
            Self::Prefer => Wire::Prefer,
            Self::Require | Self::VerifyCa | Self::VerifyFull => Wire::Require,
        }
    }
}

/// Which authorities are trusted to sign the server's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Roots {
    /// `root.crt` in the user's folder, if it exists.
    Default,
    /// `sslrootcert=system`: the authorities that the operating system trusts.
    System,
    /// The certificates in this file, and no others.
    File(PathBuf),
}

/// Which versions of TLS are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Versions {
    /// 1.2 and 1.3.
    All,
    Only12,
    Only13,
}

/// The `ssl*` parameters of a connection string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsOptions {
    pub(crate) mode: SslMode,
    pub(crate) roots: Roots,
    /// Whether to show a client certificate to a server that asks for one.
    pub(crate) shows_certificate: bool,
    /// Whether to send the host name to the server (SNI).
    pub(crate) names_host: bool,
    pub(crate) versions: Versions,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    /// `~/.postgresql`, where libpq looks for files that are not named.
    pub(crate) folder: Option<PathBuf>,
}

impl TlsOptions {
    fn named_or(&self, named: Option<&Path>, default: &str) -> Option<PathBuf> {
        named.map(Path::to_owned).or_else(|| Some(self.folder.as_ref()?.join(default)))
    }
}

/// Makes the TLS half of connections, or none. Works with tokio-postgres and `postgres`.
#[derive(Clone)]
pub(crate) struct Tls {
    /// `None` if sslmode=disable.
    rustls: Option<MakeRustlsConnect>,
    checks_name: bool,
}

impl Tls {
    /// Reads the files that `options` names. With sslmode=disable it reads nothing and cannot fail.
    ///
    /// # Errors
    /// `ErrorKind::Tls` if a file is missing, unreadable or unusable, with libpq's text where libpq has one.
    pub(crate) fn new(options: &TlsOptions) -> Result<Self> {
        if options.mode == SslMode::Disable {
            return Ok(Self { rustls: None, checks_name: false });
        }
        let trust = trust(options)?;
        let checks_name = trust.as_ref().is_some_and(|trust| trust.checks_name);
        let provider = Arc::new(ring::default_provider());
        let verifier = Verifier { trust, algorithms: provider.signature_verification_algorithms };
        let versions: &[_] = match options.versions {
            Versions::All => rustls::ALL_VERSIONS,
            Versions::Only12 => &[&rustls::version::TLS12],
            Versions::Only13 => &[&rustls::version::TLS13],
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(|e| failed("TLS could not be set up").caused_by(e))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match client_certificate(options)? {
            Some((chain, key)) => builder
                .with_client_auth_cert(chain, key)
                .map_err(|e| failed(format!("sslcert and sslkey do not match: {e}")).caused_by(e))?,
            None => builder.with_no_client_auth(),
        };
        config.enable_sni = options.names_host;
        // Servers with sslnegotiation=direct insist on ALPN.
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Ok(Self { rustls: Some(MakeRustlsConnect::new(config)), checks_name })
    }
}

/// The certificates to trust; `None` if the mode trusts any certificate.
fn trust(options: &TlsOptions) -> Result<Option<Trust>> {
    let must = options.mode >= SslMode::VerifyCa;
    if options.mode <= SslMode::Prefer {
        return Ok(None);
    }
    let file = match &options.roots {
        Roots::System => return system_trust().map(Some),
        Roots::File(file) => Some(file.clone()),
        Roots::Default => options.named_or(None, "root.crt"),
    };
    let advice = "either provide the file, use the system's trusted roots with sslrootcert=system, \
                  or change sslmode to disable server certificate verification";
    match file {
        Some(file) if file.exists() => {
            // libpq uses the list. To ignore it would accept revoked certificates.
            if let Some(list) = options.named_or(None, "root.crl").filter(|list| list.exists()) {
                let list = list.display();
                return Err(failed(format!("revocation lists are not supported, but there is one: \"{list}\"")));
            }
            let certificates = certificates(&file)?;
            let mut roots = RootCertStore::empty();
            let (_, unfit) = roots.add_parsable_certificates(certificates.iter().cloned());
            if unfit > 0 {
                warn!(file:? = file, unfit; "certificates in sslrootcert cannot be used as roots");
            }
            Ok(Some(Trust { roots, pinned: certificates, checks_name: options.mode == SslMode::VerifyFull }))
        }
        Some(file) if must => {
            Err(failed(format!("root certificate file \"{}\" does not exist; {advice}", file.display())))
        }
        None if must => Err(failed(format!("there is no home directory with a root certificate file; {advice}"))),
        Some(file) if options.roots != Roots::Default => {
            warn!(file:? = file; "sslrootcert does not exist, the server is not verified");
            Ok(None)
        }
        _ => Ok(None),
    }
}

fn system_trust() -> Result<Trust> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(|e| format!(": {e}")).unwrap_or_default();
        return Err(failed(format!("sslrootcert=system: this system has no trusted certificates{why}")));
    }
    Ok(Trust { roots, pinned: Vec::new(), checks_name: true })
}

/// The client certificate to show to a server that asks for one.
fn client_certificate(options: &TlsOptions) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>> {
    let file = options.named_or(options.cert.as_deref(), "postgresql.crt").filter(|_| options.shows_certificate);
    let Some(file) = file else { return Ok(None) };
    if let Err(e) = fs::metadata(&file) {
        // As libpq, continues without a certificate: the server reports an error if it needs one. Other errors are
        // returned.
        if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
            return Err(failed(format!("could not open certificate file \"{}\": {e}", file.display())));
        }
        options
            .cert
            .iter()
            .for_each(|file| warn!(file:? = file; "sslcert does not exist, connecting without a client certificate"));
        return Ok(None);
    }
    let chain = certificates(&file)?;
    let Some(key_file) = options.named_or(options.key.as_deref(), "postgresql.key") else {
        return Err(failed("there is a client certificate, but sslkey is not set"));
    };
    let shown = key_file.display();
    let about = fs::metadata(&key_file).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => failed(format!("certificate present, but not private key file \"{shown}\"")),
        _ => failed(format!("could not stat private key file \"{shown}\": {e}")),
    })?;
    if !about.is_file() {
        return Err(failed(format!("private key file \"{shown}\" is not a regular file")));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let forbidden = if about.uid() == 0 { 0o037 } else { 0o077 };
        if about.mode() & forbidden != 0 {
            return Err(failed(format!(
                "private key file \"{shown}\" has group or world access; file must have permissions u=rw (0600) \
                 or less if owned by the current user, or permissions u=rw,g=r (0640) or less if owned by root"
            )));
        }
    }
    let pem = fs::read(&key_file).map_err(|e| failed(format!("could not read private key file \"{shown}\": {e}")))?;
    // The parser's own error is dropped, because it may quote the file.
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        failed(format!("private key file \"{shown}\" is not an unencrypted key in PEM (PKCS#8, PKCS#1 or SEC1)"))
    })?;
    Ok(Some((chain, key)))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let shown = file.display();
    let pem = fs::read(file).map_err(|e| failed(format!("could not read certificate file \"{shown}\": {e}")))?;
    match CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>() {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(failed(format!("certificate file \"{shown}\" holds no certificate in PEM, or a broken one"))),
    }
}

fn failed(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Tls, message)
}

type Inner = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;
type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

impl MakeTlsConnect<Socket> for Tls {
    type Stream = Stream;
    type TlsConnect = Connect;
    type Error = Infallible;

    fn make_tls_connect(&mut self, host: &str) -> Result<Connect, Infallible> {
        let Some(rustls) = &mut self.rustls else { return Ok(Connect(None)) };
        // Some hosts cannot be in a certificate, such as fe80::1%eth0. They can still connect where no name is
        // compared.
        let unusable = !self.checks_name && ServerName::try_from(host).is_err();
        let inner = MakeTlsConnect::<Socket>::make_tls_connect(rustls, if unusable { "0.0.0.0" } else { host })?;
        Ok(Connect(Some(inner)))
    }
}

/// One handshake that is not begun yet.
pub(crate) struct Connect(Option<Inner>);

impl TlsConnect<Socket> for Connect {
    type Stream = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move {
            match self.0 {
                Some(inner) => inner.connect(socket).await.map_err(explain),
                None => Err(io::Error::new(io::ErrorKind::Unsupported, "TLS was switched off by sslmode=disable")),
            }
        })
    }
}

/// Adds a remedy to errors about certificates that OpenSSL accepts and webpki does not.
fn explain(error: io::Error) -> io::Error {
    let text = error.to_string();
    let hints = [
        (
            "UnsupportedCertVersion",
            "it is of X.509 version 1, as made without extensions: issue it again with a subjectAltName",
        ),
        (
            "CaUsedAsEndEntity",
            "it is marked as a CA: put this certificate itself into sslrootcert, or issue one that is not a CA",
        ),
        ("UnknownIssuer", "none of the certificates in sslrootcert has signed it"),
    ];
    match hints.iter().find(|(sign, _)| text.contains(sign)) {
        Some((_, hint)) => io::Error::new(error.kind(), format!("{text}; {hint}")),
        None => error,
    }
}

#[cfg(test)]
mod tests;
mod verify;
