//! Passwords, certificates, service files and variables change while a worker runs. The worker, its handlers'
//! connections and its clients go on with the new ones.

use crate::harness::{Running, SOON, Started, eventually};
use graphile_worker::devdb::{DevDb, Options};
use graphile_worker::{ErrorKind, JobSpec, WorkerContext, WorkerOptions, WorkerUtils};
use postgres::{Client, NoTls};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Each thread of a worker pauses between its attempts, and TLS handshakes take time.
const LONG: Duration = Duration::from_secs(60);

/// A server that demands a password or a certificate, and a folder with the files of its clients.
struct Place {
    db: DevDb,
    folder: PathBuf,
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Place {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("gw-rotation-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        make_certificates(&folder);
        let hba = "local all all trust\nhostssl all cert 127.0.0.1/32 trust clientcert=verify-ca\n\
                   host all all 127.0.0.1/32 scram-sha-256\n";
        let mut files = vec![("pg_hba.conf".to_owned(), hba.to_owned())];
        for name in ["old-ca.crt", "new-ca.crt", "old.crt", "old.key", "new.crt", "new.key"] {
            files.push((name.to_owned(), fs::read_to_string(folder.join(name)).unwrap()));
        }
        let settings =
            [("ssl_ca_file", "old-ca.crt"), ("ssl_cert_file", "old.crt"), ("ssl_key_file", "old.key"), ("ssl", "on")];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let db = DevDb::start(Options { fsync: false, settings, files }).unwrap();
        let place = Self { db, folder };
        place.admin("create role app superuser login password 'old'; create role cert superuser login");
        place
    }

    fn admin_client(&self) -> Client {
        let socket = self.db.socket_dir().to_str().unwrap();
        Client::connect(&format!("host={socket} port={} user=postgres", self.db.port()), NoTls).unwrap()
    }

    fn admin(&self, sql: &str) {
        self.admin_client().batch_execute(sql).unwrap();
    }

    /// Changes settings of the server for all later sessions.
    fn set(&self, settings: &[(&str, &str)]) {
        for (name, value) in settings {
            self.admin(&format!("alter system set {name} = '{value}'"));
        }
        self.admin("select pg_reload_conf()");
        let (name, value) = settings.last().unwrap();
        eventually(SOON, || {
            self.admin_client().query_one(&format!("show {name}"), &[]).unwrap().get::<_, &str>(0) == *value
        });
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }

    /// Writes a file atomically, readable by its owner only.
    fn write(&self, name: &str, text: &str) {
        let new = self.folder.join("being-written");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(new, self.folder.join(name)).unwrap();
    }

    fn copy(&self, from: &str, to: &str) {
        self.write(to, &fs::read_to_string(self.folder.join(from)).unwrap());
    }

    fn url(&self, user: &str, parameters: &str) -> String {
        format!("postgres://{user}@localhost:{}/postgres?hostaddr=127.0.0.1&{parameters}", self.db.port())
    }

    /// Ends the sessions of all roles that must authenticate.
    fn end_sessions(&self) {
        self.admin("select pg_terminate_backend(pid) from pg_stat_activity where usename in ('app', 'cert')");
    }

    fn jobs(&self) -> i64 {
        let sql = "select count(*) from graphile_worker._private_jobs";
        self.admin_client().query_one(sql, &[]).unwrap().get(0)
    }
}

/// A worker whose handlers send a statement on a connection of the pool.
fn worker(url: &str) -> WorkerOptions {
    WorkerOptions::default()
        .database_url(url)
        .database_timeout(LONG)
        .concurrency(2)
        .poll_interval(Duration::from_millis(100))
        .define_raw_job("t", |ctx: WorkerContext| {
            ctx.connection()?.batch_execute("select 1").map_err(graphile_worker::Error::from)
        })
}

/// Checks that a worker, its handlers and a client work before a rotation, and after it with new sessions.
#[track_caller]
fn goes_on(place: &Place, url: &str, rotate: impl FnOnce()) {
    let running = Running::start(worker(url));
    let utils = WorkerUtils::connect_within(url, 2, LONG).unwrap();
    utils.add_raw_job("t", &1, JobSpec::new()).unwrap();
    eventually(LONG, || running.worker.stats().completed == 1);
    rotate();
    place.end_sessions();
    eventually(LONG, || utils.add_raw_job("t", &2, JobSpec::new()).is_ok());
    eventually(LONG, || place.jobs() == 0);
    running.stop().0.unwrap();
}

#[test]
fn a_worker_goes_on_with_the_password_of_a_rotated_password_file() {
    let place = Place::new();
    place.write("pass", "*:*:*:app:old\n");
    let url = place.url("app", &format!("passfile={}", place.path("pass")));
    goes_on(&place, &url, || {
        place.admin("alter role app password 'new'");
        place.write("pass", "*:*:*:app:new\n");
    });
}

#[test]
fn a_worker_goes_on_with_a_rotated_service_file() {
    let place = Place::new();
    let service = |password: &str, port: u16| {
        let text = format!("[prod]\nhost=127.0.0.1\nport={port}\nuser=app\ndbname=postgres\npassword={password}\n");
        place.write("services", &text);
    };
    service("old", place.db.port());
    let url = format!("service=prod servicefile={}", place.path("services"));
    goes_on(&place, &url, || {
        place.admin("alter role app password 'new'");
        service("new", place.db.port());
    });
}

#[test]
fn a_worker_goes_on_with_a_rotated_root_certificate() {
    let place = Place::new();
    place.copy("old-ca.crt", "root");
    let url = place.url("app", &format!("password=old&sslmode=verify-full&sslrootcert={}", place.path("root")));
    goes_on(&place, &url, || {
        place.set(&[("ssl_key_file", "new.key"), ("ssl_cert_file", "new.crt")]);
        place.copy("new-ca.crt", "root");
    });
}

#[test]
fn a_worker_goes_on_with_a_rotated_client_certificate_and_key() {
    let place = Place::new();
    place.copy("old.crt", "mine.crt");
    place.copy("old.key", "mine.key");
    let files = format!("sslcert={}&sslkey={}", place.path("mine.crt"), place.path("mine.key"));
    let url = place.url("cert", &format!("sslmode=require&{files}"));
    goes_on(&place, &url, || {
        place.set(&[("ssl_ca_file", "new-ca.crt")]);
        place.copy("new.crt", "mine.crt");
        place.copy("new.key", "mine.key");
    });
}

#[test]
fn a_worker_goes_on_with_rotated_variables() {
    let place = Place::new();
    place.write("pass", "*:*:*:app:newest\n");
    let child = |test: &str| {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", test, "--ignored", "--nocapture"]).stdout(std::process::Stdio::null());
        child.env("ROTATION_SOCKET", place.db.socket_dir()).env("ROTATION_PASSFILE", place.path("pass"));
        child.env("PGHOST", "127.0.0.1").env("PGPORT", place.db.port().to_string());
        child.env("PGUSER", "app").env("PGDATABASE", "postgres").env("PGPASSWORD", "old").env_remove("DATABASE_URL");
        child
    };
    let mut child = Started::new(&mut child("rotation::a_process_whose_variables_rotate"));
    eventually(LONG * 3, || child.0.try_wait().unwrap().is_some());
    assert!(child.status().success());
}

/// Uses no URL: the variables have all parameters.
#[test]
#[ignore = "a part of another test, which starts it as a process"]
fn a_process_whose_variables_rotate() {
    let Ok(socket) = std::env::var("ROTATION_SOCKET") else { return };
    let port = std::env::var("PGPORT").unwrap();
    let admin = |sql: &str| {
        Client::connect(&format!("host={socket} port={port} user=postgres"), NoTls)
            .unwrap()
            .batch_execute(sql)
            .unwrap();
    };
    let utils = WorkerUtils::connect_within("", 2, LONG).unwrap();
    let options = worker("");
    let running = Running::start(options);
    let works = || {
        admin("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app'");
        let before = running.worker.stats().completed;
        eventually(LONG, || utils.add_raw_job("t", &1, JobSpec::new()).is_ok());
        eventually(LONG, || running.worker.stats().completed > before);
    };
    works();
    admin("alter role app password 'new'");
    set_variable("PGPASSWORD", Some("new"));
    works();
    admin("alter role app password 'newest'");
    set_variable("PGPASSFILE", Some(&std::env::var("ROTATION_PASSFILE").unwrap()));
    set_variable("PGPASSWORD", None);
    works();
    running.stop().0.unwrap();
}

fn set_variable(name: &str, value: Option<&str>) {
    #[allow(unsafe_code)]
    match value {
        // SAFETY: this process reads and writes its environment with the standard library only, which locks it.
        Some(value) => unsafe { std::env::set_var(name, value) },
        // SAFETY: as above.
        None => unsafe { std::env::remove_var(name) },
    }
}

#[test]
fn a_broken_file_is_refused_at_start_and_waited_for_later() {
    let place = Place::new();
    let whole = fs::read_to_string(place.folder.join("old-ca.crt")).unwrap();
    let half = &whole[..whole.len() / 2];
    place.copy("old-ca.crt", "root");
    place.copy("old.crt", "mine.crt");
    place.copy("old.key", "mine.key");
    let (crt, key) = (place.path("mine.crt"), place.path("mine.key"));
    let tls = format!("sslmode=verify-full&sslrootcert={}&sslcert={crt}&sslkey={key}", place.path("root"));
    let service = |text: &str| place.write("services", text);
    service("[prod]\nconnect_timeout=60\n");
    let url = place.url("app", &format!("password=old&{tls}&service=prod&servicefile={}", place.path("services")));
    let running = Running::start(worker(&url));
    let utils = WorkerUtils::connect_within(&url, 2, LONG).unwrap();
    let hasty = utils.clone().timeout(Duration::from_secs(3));
    let key_text = fs::read_to_string(place.folder.join("old.key")).unwrap();
    let certificate = fs::read_to_string(place.folder.join("old.crt")).unwrap();
    let rotations = [
        ("root", half, whole.as_str(), ErrorKind::Tls),
        ("mine.key", &key_text[..40], &key_text, ErrorKind::Tls),
        ("mine.crt", "", &certificate, ErrorKind::Tls),
        ("services", "[prod]\nconnect_ti", "[prod]\nconnect_timeout=60\n", ErrorKind::Config),
    ];
    for (name, broken, mended, kind) in rotations {
        place.write(name, broken);
        place.end_sessions();
        let mut error = None;
        eventually(LONG, || {
            error = hasty.add_raw_job("t", &1, JobSpec::new()).err();
            error.as_ref().is_some_and(|error| error.to_string().contains(name))
        });
        let error = error.unwrap();
        assert!(error.is_transient(), "{name}: {error}");
        let error = worker(&url).init().map(drop).unwrap_err();
        assert_eq!((error.kind(), error.is_transient()), (kind, false), "{name}: {error}");
        assert!(error.to_string().contains(name), "{error}");
        place.write(name, mended);
        eventually(LONG, || utils.add_raw_job("t", &1, JobSpec::new()).is_ok());
        eventually(LONG, || place.jobs() == 0);
    }
    running.stop().0.unwrap();
}

/// Two certificate authorities, and a certificate of each for server and client.
fn make_certificates(folder: &Path) {
    let script = r#"
set -e
for age in old new; do
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:prime256v1 -out $age-ca.key
  openssl req -x509 -key $age-ca.key -subj /CN=$age-ca -days 3650 -out $age-ca.crt
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:prime256v1 -out $age.key
  openssl req -new -key $age.key -subj /CN=localhost -out $age.csr
  echo subjectAltName=DNS:localhost > $age.ext
  openssl x509 -req -in $age.csr -CA $age-ca.crt -CAkey $age-ca.key -CAcreateserial -days 3650 -extfile $age.ext -out $age.crt
done
chmod 600 *
"#;
    let output = Command::new("sh").args(["-c", script]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
