//! Each case is tried twice, by this library and by libpq's own psql. Both must behave as written.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use std::time::Duration;

use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::UnixTime;

use super::verify::{Trust, Verifier, is_out_of_date};
use super::*;
use crate::db::conninfo::ConnInfo;
use crate::devdb::{DevDb, Options};

const MODES: [&str; 5] = ["disable", "prefer", "require", "verify-ca", "verify-full"];
const QUESTION: &str = "select case when ssl then 'tls' else 'plain' end from pg_stat_ssl where pid = pg_backend_pid()";

#[test]
fn every_sslmode_accepts_and_refuses_what_libpq_does() {
    let server = TlsServer::new();
    server.serve("good");
    // With prefer, libpq tries again without TLS if the handshake fails. This library does so only if the server has no
    // TLS.
    server.check("user=plain sslrootcert=$/ca.crt", "plain tls tls tls tls");
    server.check("user=plain", "plain tls tls deny deny");
    server.check("user=plain sslrootcert=$/missing.crt", "plain tls tls deny deny");
    server.check("user=plain sslrootcert=$/other-ca.crt", "plain tls|plain deny deny deny");
    server.check("user=plain host=127.0.0.1 sslrootcert=$/ca.crt", "plain tls tls tls deny");
    server.check("user=plain host=db.internal hostaddr=127.0.0.1 sslrootcert=$/ca.crt", "plain tls tls tls deny");
    server.check("user=plain host=localhost hostaddr=127.0.0.1 sslrootcert=$/ca.crt", "plain tls tls tls tls");
    server.check("user=plain host=$socket sslrootcert=$/missing.crt", "plain plain plain plain plain");
    server.check("user=tls_only sslrootcert=$/ca.crt", "deny tls tls tls tls");
    server.check("user=tls_only sslrootcert=$/other-ca.crt", "deny tls|deny deny deny deny");
    server.check("user=plain sslrootcert=$/both-ca.crt", "plain tls tls tls tls");
    // With prefer, libpq reads the file as well, and then continues without TLS.
    server.check("user=plain sslrootcert=$/ca.key", "plain tls|plain deny deny deny");
    // libpq has this value since 16. The system's authorities have not signed the test server.
    assert_eq!(server.ours("user=plain sslrootcert=system").unwrap_err().kind(), ErrorKind::Tls);
}

#[test]
fn wrong_names_and_unknown_issuers_are_judged_as_by_libpq() {
    let server = TlsServer::new();
    server.serve("other-name");
    server.check("user=plain sslrootcert=$/ca.crt", "plain tls tls tls deny");
    server.check("user=plain host=db.internal hostaddr=127.0.0.1 sslrootcert=$/ca.crt", "plain tls tls tls tls");
    server.check("user=plain host=x.wild.internal hostaddr=127.0.0.1 sslrootcert=$/ca.crt", "plain tls tls tls tls");
    server.check("user=plain host=x.y.wild.internal hostaddr=127.0.0.1 sslrootcert=$/ca.crt", "plain tls tls tls deny");
    server.check("user=plain host=127.0.0.2 hostaddr=127.0.0.1 sslrootcert=$/ca.crt", "plain tls tls tls tls");

    // A certificate of `openssl req -x509`: webpki refuses it, the pin accepts it.
    server.serve("self-signed");
    server.check("user=plain sslrootcert=$/self-signed.crt", "plain tls tls tls tls");
    server.check("user=plain host=127.0.0.1 sslrootcert=$/self-signed.crt", "plain tls tls tls deny");
    server.check("user=plain sslrootcert=$/ca.crt", "plain tls|plain deny deny deny");
    server.check("user=tls_only", "deny tls tls deny deny");

    // A signed certificate of version 1: trusted where any certificate is, else refused with the reason.
    server.serve("version-1");
    server.check("user=plain", "plain tls tls deny deny");
    server.check("user=plain sslrootcert=$/ca.crt", "plain tls deny|tls deny|tls deny|tls");
    let refusal = server.ours("user=plain sslmode=verify-ca sslrootcert=$/ca.crt").unwrap_err();
    assert_eq!(refusal.kind(), ErrorKind::Tls);
    assert!(refusal.to_string().contains("X.509 version 1"), "{refusal}");

    server.serve_plain();
    server.check("user=plain sslrootcert=$/ca.crt", "plain plain deny deny deny");
}

#[test]
fn client_certificates_are_shown_as_by_libpq() {
    let server = TlsServer::new();
    server.serve("good");
    let ours = |key: &str| format!("user=cert_only sslrootcert=$/ca.crt sslcert=$/client.crt sslkey=$/{key}");
    server.check(&ours("client.key"), "deny tls tls tls tls");
    server.check(&ours("client-sec1.key"), "deny tls tls tls tls");
    let rsa = "user=cert_only sslrootcert=$/ca.crt sslcert=$/client-rsa.crt sslkey=$/client-pkcs1.key";
    server.check(rsa, "deny tls tls tls tls");
    // If root owns a key, its group may read it.
    let own = fs::metadata(server.folder.join("shared.key")).unwrap().uid() != 0;
    server.check(&ours("shared.key"), if own { "deny deny deny deny deny" } else { "deny tls tls tls tls" });
    server.check("user=cert_only sslrootcert=$/ca.crt", "deny deny deny deny deny");
    server.check("user=cert_only sslrootcert=$/ca.crt sslcert=$/missing.crt", "deny deny deny deny deny");
    server.check(
        "user=cert_only sslrootcert=$/ca.crt sslcert=$/stranger.crt sslkey=$/stranger.key",
        "deny deny deny deny deny",
    );
    // The key cannot be used. With prefer, libpq would go on without TLS; this library stops.
    let plain = |key: &str| ours(key).replace("cert_only", "plain");
    server.check(&plain("open.key"), "plain deny|plain deny deny deny");
    server.check(&plain("stranger.key"), "plain deny|plain deny deny deny");
    server.check(&plain("missing.key"), "plain deny|plain deny deny deny");
    server.check(&plain("ca.crt"), "plain deny|plain deny deny deny");
    for (key, words) in [
        ("open.key", "has group or world access"),
        ("missing.key", "certificate present, but not private key file"),
        ("stranger.key", "do not match"),
        ("ca.crt", "not an unencrypted key in PEM"),
    ] {
        let error = server.ours(&format!("{} sslmode=require", ours(key))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn the_users_folder_is_searched_as_by_libpq() {
    let server = TlsServer::new();
    server.serve("good");
    server.check("user=plain", "plain tls tls deny deny");
    server.keep("ca.crt", "root.crt");
    server.check("user=plain", "plain tls tls tls tls");
    server.keep("other-ca.crt", "root.crt");
    server.check("user=plain", "plain tls|plain deny deny deny");
    server.check("user=plain sslrootcert=$/ca.crt", "plain tls tls tls tls");
    server.check("user=cert_only sslrootcert=$/ca.crt", "deny deny deny deny deny");
    server.keep("client.crt", "postgresql.crt");
    server.keep("client.key", "postgresql.key");
    server.check("user=cert_only sslrootcert=$/ca.crt", "deny tls tls tls tls");
    // This library would ignore what the list revokes.
    server.keep("ca.crt", "root.crl");
    let error = server.ours("user=plain sslmode=verify-ca sslrootcert=$/ca.crt").unwrap_err();
    assert!(error.to_string().contains("revocation lists are not supported"), "{error}");
}

#[test]
fn channel_binding_and_the_sync_client_work() {
    let server = TlsServer::new();
    server.serve("good");
    server.check("user=scram password=secret sslrootcert=$/ca.crt channel_binding=require", "deny tls tls tls tls");
    server.check("user=scram password=wrong sslrootcert=$/ca.crt", "deny deny deny deny deny");
    server.serve("version-1");
    server.check("user=scram password=secret channel_binding=require", "deny tls tls deny deny");

    let info = server.parse("user=plain sslmode=require").unwrap();
    let mut client = postgres::Config::from(config(&info)).connect(Tls::new(info.tls()).unwrap()).unwrap();
    assert_eq!(client.query_one(QUESTION, &[]).unwrap().get::<_, &str>(0), "tls");
    // A cancel request opens a connection of its own, with the same TLS.
    client.cancel_token().cancel_query(Tls::new(info.tls()).unwrap()).unwrap();
}

#[test]
fn a_pinned_certificate_expires() {
    let server = TlsServer::new();
    let certificate = certificates(&server.folder.join("self-signed.crt")).unwrap().remove(0);
    let verify = |pinned: Vec<CertificateDer<'static>>, name: &str, year: u64| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(pinned.clone());
        let trust = Some(Trust { roots, pinned, checks_name: true });
        let verifier = Verifier { trust, algorithms: ring::default_provider().signature_verification_algorithms };
        let time = UnixTime::since_unix_epoch(Duration::from_secs((year - 1970) * 31_557_600));
        let name = ServerName::try_from(name.to_owned()).unwrap();
        verifier.verify_server_cert(&certificate, &[], &name, &[], time).map(drop)
    };
    let this_year = 1970 + UnixTime::now().as_secs() / 31_557_600;
    let pin = || vec![certificate.clone()];
    assert_eq!(verify(pin(), "localhost", this_year + 1), Ok(()));
    assert!(verify(pin(), "elsewhere", this_year + 1).is_err());
    assert!(is_out_of_date(&verify(pin(), "localhost", this_year + 90).unwrap_err()));
    assert!(is_out_of_date(&verify(pin(), "localhost", 2001).unwrap_err()));
    assert!(verify(Vec::new(), "localhost", this_year + 1).is_err());
}

#[test]
fn disable_reads_no_file_and_verify_names_the_remedy() {
    let options = |mode, roots| TlsOptions {
        mode,
        roots,
        shows_certificate: true,
        names_host: true,
        versions: Versions::All,
        cert: Some("/missing".into()),
        key: None,
        folder: None,
    };
    assert!(Tls::new(&options(SslMode::Disable, Roots::File("/missing".into()))).unwrap().rustls.is_none());
    #[track_caller]
    fn check(options: TlsOptions, words: &str) {
        let error = Tls::new(&options).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls);
        assert!(error.to_string().contains(words), "{error}");
    }
    check(options(SslMode::VerifyFull, Roots::Default), "no home directory with a root certificate file; either");
    check(
        options(SslMode::VerifyCa, Roots::File("/missing".into())),
        "\"/missing\" does not exist; either provide the file",
    );
    check(options(SslMode::VerifyCa, Roots::File("/".into())), "could not read certificate file");
}

#[test]
fn modes_have_libpqs_names() {
    for (name, mode) in SslMode::NAMES.into_iter().filter(|(name, _)| *name != "allow") {
        assert_eq!(mode.name(), name);
    }
}

fn config(info: &ConnInfo) -> tokio_postgres::Config {
    let server = info.servers()[0];
    info.config(server, server.address, "test")
}

/// A server, a home folder, and certificates of every kind, made by openssl.
struct TlsServer {
    db: DevDb,
    folder: PathBuf,
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl TlsServer {
    fn new() -> Self {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("gw-tls-{}-{number}", std::process::id()));
        fs::create_dir_all(folder.join(".postgresql")).unwrap();
        make_certificates(&folder);
        let mut files = vec![(
            "pg_hba.conf".to_owned(),
            "local   all all       trust\n\
             host    all plain     127.0.0.1/32 trust\n\
             hostssl all tls_only  127.0.0.1/32 trust\n\
             hostssl all scram     127.0.0.1/32 scram-sha-256\n\
             hostssl all cert_only 127.0.0.1/32 trust clientcert=verify-ca\n"
                .to_owned(),
        )];
        for entry in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
            let name = entry.file_name().unwrap().to_str().unwrap().to_owned();
            files.push((name, fs::read_to_string(&entry).unwrap()));
        }
        let settings =
            [("ssl_ca_file", "ca.crt"), ("ssl_cert_file", "good.crt"), ("ssl_key_file", "good.key"), ("ssl", "on")];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let db = DevDb::start(Options { fsync: false, settings, files }).unwrap();
        let server = Self { db, folder };
        for role in ["plain", "tls_only", "cert_only", "scram password 'secret'"] {
            server.admin(&format!("create role {role} login"));
        }
        server
    }

    /// Makes the server show another certificate.
    fn serve(&self, name: &str) {
        self.set("ssl_cert_file", &format!("{name}.crt"), "ssl_key_file", &format!("{name}.key"));
    }

    fn serve_plain(&self) {
        self.set("ssl", "off", "ssl_prefer_server_ciphers", "off");
    }

    fn set(&self, first: &str, value: &str, second: &str, other: &str) {
        self.admin(&format!("alter system set {second} = '{other}'"));
        self.admin(&format!("alter system set {first} = '{value}'"));
        self.admin("select pg_reload_conf()");
        // A new session has the settings that the postmaster has read, because the postmaster forked it.
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while self.admin(&format!("show {first}")) != value {
            assert!(std::time::Instant::now() < deadline, "the server did not reload");
        }
    }

    fn admin(&self, sql: &str) -> String {
        self.psql("host=$socket dbname=postgres user=postgres", sql).unwrap()
    }

    /// Copies a file into the home's `.postgresql`.
    fn keep(&self, file: &str, name: &str) {
        fs::copy(self.folder.join(file), self.folder.join(".postgresql").join(name)).unwrap();
    }

    /// Checks one row of the table: the results of the five modes, as `library|libpq` where they differ.
    #[track_caller]
    fn check(&self, parameters: &str, expected: &str) {
        let parameters =
            if parameters.contains("host=") { parameters.to_owned() } else { format!("{parameters} host=localhost") };
        let mut found = Vec::new();
        for mode in MODES {
            let text = format!("{parameters} sslmode={mode}");
            let ours = self.ours(&text).unwrap_or_else(|_| "deny".into());
            let theirs = self.psql(&format!("{text} dbname=postgres"), QUESTION).unwrap_or_else(|| "deny".into());
            found.push(if ours == theirs { ours } else { format!("{ours}|{theirs}") });
        }
        assert_eq!(found.join(" "), expected, "{parameters}");
    }

    fn full(&self, text: &str) -> String {
        let folder = self.folder.to_str().unwrap();
        let text = text.replace("$socket", self.db.socket_dir().to_str().unwrap()).replace('$', folder);
        let host = if text.contains("host=") { "" } else { "host=localhost" };
        format!("{text} {host} port={}", self.db.port())
    }

    fn parse(&self, text: &str) -> Result<ConnInfo> {
        let home = self.folder.to_str().unwrap().to_owned();
        ConnInfo::parse(&self.full(&format!("dbname=postgres {text}")), &move |name| {
            (name == "HOME").then(|| home.clone())
        })
    }

    fn ours(&self, text: &str) -> Result<String> {
        let info = self.parse(text)?;
        let tls = Tls::new(info.tls())?;
        let config = config(&info);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (client, connection) = config.connect(tls).await?;
            let driver = tokio::spawn(connection);
            let row = client.query_one(QUESTION, &[]).await;
            drop(client);
            let _ = driver.await;
            Ok(row?.get(0))
        })
    }

    /// The result of libpq; `None` if it could not connect.
    fn psql(&self, conninfo: &str, sql: &str) -> Option<String> {
        let beside_server = fs::canonicalize(self.db.bin_dir().join("pg_ctl")).unwrap().with_file_name("psql");
        let mut psql = Command::new(if beside_server.exists() { beside_server } else { "psql".into() });
        let output = psql
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", &self.folder)
            .args(["-XAtc", sql])
            .arg(self.full(conninfo))
            .output()
            .unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
    }
}

fn make_certificates(folder: &Path) {
    let script = r#"
set -e
elliptic() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:prime256v1 -out "$1.key"; }
ca() { elliptic "$1"; openssl req -x509 -key "$1.key" -subj "/CN=$1" -days 3650 -out "$1.crt"; }
# signed NAME CA EXTENSION
signed() {
  test -e "$1.key" || elliptic "$1"
  openssl req -new -key "$1.key" -subj "/CN=localhost" -out "$1.csr"
  if [ -n "$3" ]; then
    echo "$3" > "$1.ext"
    openssl x509 -req -in "$1.csr" -CA "$2.crt" -CAkey "$2.key" -CAcreateserial -days 3650 -extfile "$1.ext" -out "$1.crt"
  else
    openssl x509 -req -in "$1.csr" -CA "$2.crt" -CAkey "$2.key" -CAcreateserial -days 3650 -out "$1.crt"
  fi
}
ca ca
ca other-ca
cat other-ca.crt ca.crt > both-ca.crt
signed good ca "subjectAltName=DNS:localhost"
signed other-name ca "subjectAltName=DNS:db.internal,DNS:*.wild.internal,IP:127.0.0.2"
signed version-1 ca ""
elliptic self-signed
openssl req -x509 -key self-signed.key -subj /CN=localhost -addext subjectAltName=DNS:localhost -days 3650 -out self-signed.crt
signed client ca "extendedKeyUsage=clientAuth"
signed stranger other-ca "extendedKeyUsage=clientAuth"
openssl ec -in client.key -out client-sec1.key
openssl genrsa -out client-rsa.key 2048
openssl rsa -in client-rsa.key -traditional -out client-pkcs1.key
signed client-rsa ca "extendedKeyUsage=clientAuth"
cp client.key open.key
cp client.key shared.key
rm -f *.csr *.ext *.srl
chmod 600 *
"#;
    let output = Command::new("sh").args(["-c", script]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let head =
        |name: &str| fs::read_to_string(folder.join(name)).unwrap().lines().next().unwrap_or_default().to_owned();
    assert_eq!(head("client.key"), "-----BEGIN PRIVATE KEY-----");
    assert_eq!(head("client-sec1.key"), "-----BEGIN EC PRIVATE KEY-----");
    assert_eq!(head("client-pkcs1.key"), "-----BEGIN RSA PRIVATE KEY-----");
    for (key, mode) in [("open.key", 0o644), ("shared.key", 0o640)] {
        fs::set_permissions(folder.join(key), fs::Permissions::from_mode(mode)).unwrap();
    }
}
