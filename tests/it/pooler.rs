//! A connection pooler or a caller's pool between worker and PostgreSQL: what is refused, and what stays in the
//! sessions.

use crate::harness::{Running, SOON, Started, TestDb, eventually, log_lines};
use graphile_worker::{CleanupTask, ErrorKind, JobSpec, ListJobsOptions, RawJob, Schema, WorkerOptions, WorkerUtils};
use postgres::{Client, NoTls};
use r2d2_postgres::PostgresConnectionManager;
use serde_json::json;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A PgBouncer in front of a test's database, while this value lives.
struct PgBouncer {
    url: String,
    folder: PathBuf,
    _process: Started,
}

impl PgBouncer {
    /// Starts it with these lines of configuration.
    fn start(db: &TestDb, settings: &str) -> Self {
        let program = pgbouncer();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = std::env::temp_dir().join(format!("gw-pgbouncer-{}-{port}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let server: postgres::Config = db.url().parse().unwrap();
        let (user, server_port) = (server.get_user().unwrap(), server.get_ports()[0]);
        let users = folder.join("users");
        fs::write(&users, format!("\"{user}\" \"\"\n")).unwrap();
        let ini = folder.join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={server_port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = trust\nauth_file = {}\n{settings}\n",
            users.display()
        );
        fs::write(&ini, text).unwrap();
        let mut command = Command::new(program);
        command.arg("-q").arg(&ini).current_dir("/").stdout(Stdio::null()).stderr(Stdio::null());
        // PgBouncer refuses to run as root, as the server does.
        if let Some((uid, gid)) = unprivileged() {
            [&folder, &users, &ini].into_iter().for_each(|path| chown(path, Some(uid), Some(gid)).unwrap());
            command.uid(uid).gid(gid);
        }
        let process = Started::new(&mut command);
        eventually(SOON, || TcpStream::connect(("127.0.0.1", port)).is_ok());
        let url = format!("postgres://{user}@127.0.0.1:{port}/{}", db.name());
        Self { url, folder, _process: process }
    }

    /// The traces that sessions leave on `count` server processes of the pooler, for another application to find.
    fn left_behind(&self, count: usize) -> Vec<String> {
        let mut clients: Vec<Client> = (0..count).map(|_| Client::connect(&self.url, NoTls).unwrap()).collect();
        let mut held: Vec<_> = clients.iter_mut().map(|client| client.transaction().unwrap()).collect();
        held.iter_mut().flat_map(|transaction| traces(|sql| simple(transaction, sql))).collect()
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The program. It is installed if that needs no confirmation.
fn pgbouncer() -> &'static str {
    static SETUP: LazyLock<Output> = LazyLock::new(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/setup.sh");
        Command::new("sh").args([script, "pgbouncer"]).output().unwrap()
    });
    assert!(SETUP.status.success(), "{}", String::from_utf8_lossy(&SETUP.stderr));
    let debian = "/usr/sbin/pgbouncer";
    if fs::exists(debian).unwrap_or(false) { debian } else { "pgbouncer" }
}

/// The user that runs the private server, if this process runs as root.
fn unprivileged() -> Option<(u32, u32)> {
    let id = |args: &[&str]| {
        let output = Command::new("id").args(args).output().ok().filter(|output| output.status.success())?;
        String::from_utf8(output.stdout).ok()?.trim().parse::<u32>().ok()
    };
    if id(&["-u"]) != Some(0) {
        return None;
    }
    ["postgres", "nobody"].into_iter().find_map(|name| Some((id(&["-u", name])?, id(&["-g", name])?)))
}

fn simple(client: &mut impl postgres::GenericClient, sql: &str) -> Vec<String> {
    let messages = client.simple_query(sql).unwrap();
    let row = |message: &postgres::SimpleQueryMessage| match message {
        postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("null").to_owned()),
        _ => None,
    };
    messages.iter().filter_map(row).collect()
}

/// Settings of a session that are not its defaults, its channels and its prepared statements. Leaves out a client's
/// name, encoding and formats, which the pooler itself carries from session to session.
fn traces(mut ask: impl FnMut(&str) -> Vec<String>) -> Vec<String> {
    let mut found = ask(
        "select name || '=' || setting from pg_settings where source = 'session' and setting <> reset_val
            and name not in ('application_name', 'client_encoding', 'DateStyle', 'TimeZone', 'standard_conforming_strings')",
    );
    found.extend(ask("select 'listens to ' || pg_listening_channels()"));
    found.extend(ask("select 'prepared ' || statement from pg_prepared_statements"));
    found
}

fn raw(n: i32) -> RawJob {
    RawJob { identifier: "t".into(), payload: json!({ "n": n }).to_string(), spec: JobSpec::new() }
}

fn worker(url: &str) -> WorkerOptions {
    WorkerOptions::default().database_url(url).concurrency(2).define_raw_job("t", |_| ())
}

fn lent(url: &str, size: u32) -> r2d2::Pool<PostgresConnectionManager<NoTls>> {
    let manager = PostgresConnectionManager::new(url.parse().unwrap(), NoTls);
    r2d2::Pool::builder().max_size(size).build(manager).unwrap()
}

#[track_caller]
fn refused(options: WorkerOptions) {
    let error = options.init().map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    for word in ["pooler in transaction mode", "PgBouncer", "pool_mode=session", "nothing was set"] {
        assert!(error.to_string().contains(word), "{error} does not contain {word:?}");
    }
    assert!(!error.is_transient());
}

#[test]
fn a_worker_refuses_a_transaction_pooler_and_sets_nothing_there() {
    let db = TestDb::new();
    for (settings, size) in [
        ("pool_mode = transaction", 3),
        ("pool_mode = transaction\nserver_round_robin = 1", 3),
        ("pool_mode = transaction\ndefault_pool_size = 1", 1),
    ] {
        let pooler = PgBouncer::start(&db, settings);
        for attempt in 0..3 {
            refused(worker(&pooler.url));
            assert_eq!(pooler.left_behind(size), [""; 0], "{settings}, attempt {attempt}");
        }
    }
    // Statement mode has no transaction in which the test could look at several processes.
    let pooler = PgBouncer::start(&db, "pool_mode = statement\ndefault_pool_size = 1");
    refused(worker(&pooler.url));
    let mut other = Client::connect(&pooler.url, NoTls).unwrap();
    assert_eq!(traces(|sql| simple(&mut other, sql)), [""; 0]);
}

#[test]
fn a_busy_transaction_pooler_is_refused_as_well() {
    let db = TestDb::new();
    let pooler = PgBouncer::start(&db, "pool_mode = transaction\ndefault_pool_size = 4");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let mut client = Client::connect(&pooler.url, NoTls).unwrap();
                while !over.load(Ordering::Relaxed) {
                    client.simple_query("select pg_sleep(random() * 0.002)").unwrap();
                }
            });
        }
        let errors: Vec<_> = (0..20).map(|_| worker(&pooler.url).init().map(drop).err().map(|e| e.kind())).collect();
        over.store(true, Ordering::Relaxed);
        assert_eq!(errors, [Some(ErrorKind::Config); 20]);
    });
    assert_eq!(pooler.left_behind(4), [""; 0]);
}

#[test]
fn a_callers_pool_on_a_transaction_pooler_is_refused() {
    let db = TestDb::new();
    let pooler = PgBouncer::start(&db, "pool_mode = transaction");
    refused(WorkerOptions::default().pg_pool(lent(&pooler.url, 8)).define_raw_job("t", |_| ()));
    let utils = WorkerUtils::new(lent(&pooler.url, 2), Schema::default());
    assert_eq!(utils.sweep_stale_workers(Default::default()).unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(pooler.left_behind(3), [""; 0]);
}

#[test]
fn clients_manage_jobs_through_a_transaction_pooler() {
    let db = TestDb::new();
    let pooler = PgBouncer::start(&db, "pool_mode = transaction\nserver_round_robin = 1");
    for utils in [WorkerUtils::connect(&pooler.url).unwrap(), WorkerUtils::new(lent(&pooler.url, 3), Schema::default())]
    {
        let all = ListJobsOptions { limit: 100, ..Default::default() };
        let keyed = || JobSpec::new().job_key("k").queue_name("q");
        let one = utils.add_raw_job("t", &json!({"n": 1}), keyed()).unwrap();
        let again = utils.add_raw_job("t", &json!({"n": 2}), keyed()).unwrap();
        assert_eq!(one.id(), again.id());
        let many = (0..50).map(raw);
        let many: Vec<i64> = utils.add_raw_jobs(many.collect()).unwrap().iter().map(|job| job.id()).collect();
        assert_eq!(many.len(), 50);
        assert_eq!(utils.list_jobs(&all).unwrap().len(), 51);
        assert_eq!(utils.permanently_fail_jobs(&many[..2], "why").unwrap().len(), 2);
        assert_eq!(utils.complete_jobs(&many[2..]).unwrap().len(), 48);
        assert!(utils.remove_job("k").unwrap());
        assert_eq!(utils.stats().unwrap().failed, 2);
        let all = [CleanupTask::DeletePermanentlyFailedJobs, CleanupTask::GcJobQueues, CleanupTask::GcTaskIdentifiers];
        assert_eq!(utils.cleanup(&all).unwrap().jobs, 2);
        for refused in [utils.migrate(), utils.sweep_stale_workers(Default::default()).map(drop)] {
            let error = refused.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains("pooler in transaction mode"), "{error}");
        }
    }
    assert_eq!(pooler.left_behind(3), [""; 0]);
}

#[test]
fn the_program_only_adds_jobs_through_a_transaction_pooler() {
    let db = TestDb::new();
    let pooler = PgBouncer::start(&db, "pool_mode = transaction");
    let program = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_graphile-worker"));
        command.args(args).env("DATABASE_URL", &pooler.url).output().unwrap()
    };
    let added = program(&["add", "t"]);
    assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    assert_eq!(db.jobs(), 1);
    for command in [&["migrate"][..], &["sweep-stale-workers"], &["workers"]] {
        let output = program(command);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("pooler in transaction mode"), "{command:?}: {said}");
    }
    assert_eq!(pooler.left_behind(3), [""; 0]);
}

#[test]
fn a_worker_runs_through_a_session_pooler_and_leaves_nothing_there() {
    let db = TestDb::new();
    let pooler = PgBouncer::start(&db, "pool_mode = session\ndefault_pool_size = 20");
    let running = Running::start(worker(&pooler.url).max_pg_conn(12));
    eventually(SOON, || db.backends("listen").len() == 1 && db.backends("lease").len() == 1);
    let utils = WorkerUtils::connect(&pooler.url).unwrap();
    let jobs = (0..100).map(raw);
    utils.add_raw_jobs(jobs.collect()).unwrap();
    eventually(SOON, || db.jobs() == 0);
    running.stop().0.unwrap();
    drop(utils);
    assert_eq!(pooler.left_behind(8), [""; 0]);
}

#[test]
fn connections_of_a_callers_pool_go_back_unchanged() {
    #[derive(Debug)]
    struct Custom;
    impl r2d2::CustomizeConnection<Client, postgres::Error> for Custom {
        fn on_acquire(&self, client: &mut Client) -> Result<(), postgres::Error> {
            client.batch_execute("set statement_timeout = '33s'; set search_path = pg_temp, public; listen mine")
        }
    }
    let db = TestDb::new();
    let manager = PostgresConnectionManager::new(db.url().parse().unwrap(), NoTls);
    let pool = r2d2::Pool::builder().max_size(8).connection_customizer(Box::new(Custom)).build(manager).unwrap();
    let running = Running::start(WorkerOptions::default().pg_pool(pool.clone()).define_raw_job("t", |_| ()));
    db.add("'t', queue_name => 'q'");
    eventually(SOON, || db.jobs() == 0 && db.backends("listen").len() == 1);
    running.stop().0.unwrap();
    eventually(SOON, || pool.state().idle_connections == pool.state().connections);
    let mut all: Vec<_> = (0..pool.state().connections).map(|_| pool.get().unwrap()).collect();
    for client in &mut all {
        let left = traces(|sql| simple(&mut **client, sql));
        assert_eq!(left, ["search_path=pg_temp, public", "statement_timeout=33000", "listens to mine"]);
        assert_eq!(simple(&mut **client, "show application_name"), [""]);
    }
}

#[test]
fn a_connection_whose_call_was_late_goes_back_unchanged() {
    let db = TestDb::new();
    let pool = lent(&db.url(), 6);
    let options = WorkerOptions::default().pg_pool(pool.clone()).define_raw_job("t", |_| ());
    let running =
        Running::start(options.database_timeout(Duration::from_millis(600)).shutdown_grace_period(Duration::ZERO));
    eventually(SOON, || db.backends("fetch").len() == 1 && db.backends("lease").len() == 1);
    // Claims wait for this lock until the server ends them.
    let mut other = db.client();
    let mut holder = other.transaction().unwrap();
    holder.batch_execute("lock table graphile_worker._private_jobs in access exclusive mode").unwrap();
    eventually(SOON, || db.waiting() > 0);
    let _ = running.stop();
    holder.commit().unwrap();
    eventually(SOON, || pool.state().idle_connections == pool.state().connections);
    let mut all: Vec<_> = (0..pool.state().connections).map(|_| pool.get().unwrap()).collect();
    for client in &mut all {
        assert_eq!(traces(|sql| simple(&mut **client, sql)), [""; 0]);
    }
}

#[test]
fn the_error_of_a_too_small_pool_names_the_connections_needed() {
    #[track_caller]
    fn names_the_need(text: &str) {
        for word in ["room for at least 5 connections", "default_pool_size"] {
            assert!(text.contains(word), "{text} does not contain {word:?}");
        }
    }
    drop(log_lines());
    let db = TestDb::new();
    let limited = format!("limited_{}", db.name());
    db.execute(&format!("create role {limited} login superuser connection limit 0"));
    // A connection limit does not apply to a superuser, so the role is one only until it has its rights.
    db.execute(&format!("alter role {limited} nosuperuser"));
    let direct = db.url().replace("postgres@", &format!("{limited}@"));
    names_the_need(&worker(&direct).init().map(drop).unwrap_err().to_string());
    db.execute(&format!("drop role {limited}"));

    let pooler = PgBouncer::start(&db, "pool_mode = session\ndefault_pool_size = 1");
    let mut holder = Client::connect(&pooler.url, NoTls).unwrap();
    holder.simple_query("select 1").unwrap();
    let error = worker(&pooler.url).database_timeout(Duration::from_millis(500)).init().map(drop).unwrap_err();
    names_the_need(&error.to_string());

    // Enough connections to start, but not for every thread.
    let pooler = PgBouncer::start(&db, "pool_mode = session\ndefault_pool_size = 2");
    db.add("'t'");
    let running = Running::start(worker(&pooler.url).database_timeout(Duration::from_millis(500)));
    eventually(SOON, || log_lines().iter().any(|line| line.error.contains("room for at least 5 connections")));
    drop(running);
}
