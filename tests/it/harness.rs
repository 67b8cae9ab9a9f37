//! Test helpers: a new migrated database, queries on it, and faults. Knows nothing of any one behaviour.

use std::collections::HashMap;
use std::ops::DerefMut;
use std::panic::Location;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use graphile_worker::devdb::{DevDb, Options};
use graphile_worker::{Result, Worker, WorkerOptions, WorkerUtils};
use postgres::types::{FromSql, ToSql};
use postgres::{Client, NoTls, Row};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// How long a test waits for an expected event, on a busy machine.
pub const SOON: Duration = Duration::from_secs(10);

/// A database of its own, cloned from the migrated template. Dropping the value drops the database.
pub struct TestDb {
    name: String,
    url: String,
    client: Mutex<Client>,
    /// The server, if only this database is on it.
    alone: Option<DevDb>,
}

impl TestDb {
    /// A database on a private server, for tests that stop server processes. On the shared server, other tests would
    /// wait for those processes to create or drop a database.
    pub fn alone() -> Self {
        let server = DevDb::start(Options { fsync: false, ..Options::default() }).expect("a private server");
        let url = server.url();
        migrate_template(&url);
        let client = Mutex::new(connect(&url));
        Self { name: "postgres".to_owned(), url, client, alone: Some(server) }
    }

    /// The server of a database that is [`alone`](Self::alone).
    pub fn server(&self) -> &DevDb {
        self.alone.as_ref().expect("the test asked for a server of its own")
    }

    pub fn new() -> Self {
        Self::create(&format!("template {}_template", server().tag))
    }

    /// A database with an encoding other than UTF8.
    pub fn encoded(encoding: &str) -> Self {
        let db = Self::create(&format!("template template0 encoding '{encoding}' lc_collate 'C' lc_ctype 'C'"));
        migrate_template(&db.url);
        db
    }

    fn create(how: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let server = server();
        let name = format!("{}_{}", server.tag, COUNT.fetch_add(1, Ordering::Relaxed));
        server.admin().batch_execute(&format!("create database {name} {how}")).expect("creating a database");
        let url = with_database(&server.url, &name);
        let client = Mutex::new(connect(&url));
        Self { name, url, client, alone: None }
    }

    /// The URL of this database.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Utilities on this database.
    pub fn utils(&self) -> WorkerUtils {
        WorkerUtils::connect(&self.url).expect("connecting the utilities")
    }

    /// The options of a worker on this database.
    pub fn worker(&self) -> WorkerOptions {
        WorkerOptions::default().database_url(&self.url).concurrency(4)
    }

    /// Adds a job by plain SQL, with the arguments of `add_job`, and returns its id.
    #[track_caller]
    pub fn add(&self, arguments: &str) -> i64 {
        self.one(&format!("select id from graphile_worker.add_job({arguments})"))
    }

    /// Adds jobs in one call, which is much quicker than a call for each. `spec` has the fields of `job_spec`, in which
    /// `n` counts the jobs from 1.
    #[track_caller]
    pub fn add_many(&self, jobs: usize, spec: &str) {
        self.execute(&format!(
            "select from graphile_worker.add_jobs(array(
               select row({spec})::graphile_worker.job_spec from generate_series(1, {jobs}) n))"
        ));
    }

    /// The number of jobs.
    #[track_caller]
    pub fn jobs(&self) -> i64 {
        self.one("select count(*) from graphile_worker._private_jobs")
    }

    /// The number of locked jobs and queues.
    #[track_caller]
    pub fn locks(&self) -> i64 {
        self.one(
            "select (select count(*) from graphile_worker._private_jobs where locked_at is not null)
                  + (select count(*) from graphile_worker._private_job_queues where locked_at is not null)",
        )
    }

    /// A new session of this database, named `harness`.
    pub fn client(&self) -> Client {
        connect(&self.url)
    }

    /// Runs any number of statements.
    #[track_caller]
    pub fn execute(&self, sql: &str) {
        let result = self.session().batch_execute(sql);
        result.unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)));
    }

    /// The first column of the only row: `db.one::<i64>("select count(*) from …")`.
    #[track_caller]
    pub fn one<T: for<'a> FromSql<'a>>(&self, sql: &str) -> T {
        self.one_with(sql, &[])
    }

    /// As [`one`](Self::one), with parameters.
    #[track_caller]
    pub fn one_with<T: for<'a> FromSql<'a>>(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> T {
        let rows = self.rows_with(sql, params);
        assert_eq!(rows.len(), 1, "{sql}: {} rows instead of one", rows.len());
        rows[0].get(0)
    }

    /// The first column of all rows.
    #[track_caller]
    pub fn all<T: for<'a> FromSql<'a>>(&self, sql: &str) -> Vec<T> {
        self.rows_with(sql, &[]).iter().map(|row| row.get(0)).collect()
    }

    /// All rows.
    #[track_caller]
    pub fn rows_with(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Vec<Row> {
        let result = self.session().query(sql, params);
        result.unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)))
    }

    /// The pids of the sessions of this database named `graphile-worker:<role>`.
    #[track_caller]
    pub fn backends(&self, role: &str) -> Vec<i32> {
        let named = format!("graphile-worker:{role}");
        let sql = "select pid from pg_stat_activity
                    where datname = current_database() and application_name = $1 order by pid";
        self.rows_with(sql, &[&named]).iter().map(|row| row.get(0)).collect()
    }

    /// The number of sessions of this database that wait for a lock.
    #[track_caller]
    pub fn waiting(&self) -> i64 {
        self.one(
            "select count(*) from pg_stat_activity
              where datname = current_database() and wait_event_type = 'Lock'",
        )
    }

    /// Ends a session of the server. Returns `false` if it does not exist.
    #[track_caller]
    pub fn terminate(&self, pid: i32) -> bool {
        self.one_with("select pg_terminate_backend($1)", &[&pid])
    }

    fn session(&self) -> MutexGuard<'_, Client> {
        // A panic elsewhere in the test does not damage the session.
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if client.is_closed() {
            *client.deref_mut() = connect(&self.url);
        }
        client
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        if let Some(alone) = &self.alone {
            let _ = alone.resume();
            return;
        }
        let mut admin = server().admin();
        let pids = admin.query("select pid from pg_stat_activity where datname = $1", &[&self.name]);
        if server().private.is_some() {
            // A stopped backend does not see the request to end.
            pids.iter().flatten().for_each(|row| signal(row.get::<_, i32>(0) as u32, "CONT"));
        }
        drop_database(&mut admin, &self.name);
    }
}

/// A role that owns nothing and may connect. Dropping the value drops the role and its rights.
pub struct Role<'a> {
    db: &'a TestDb,
    pub name: String,
}

impl<'a> Role<'a> {
    pub fn new(db: &'a TestDb, grants: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{}_role_{}", db.name(), COUNT.fetch_add(1, Ordering::Relaxed));
        db.execute(&format!("create role {name}"));
        let role = Self { db, name };
        role.may(grants);
        role
    }

    /// Runs statements as the owner, with ROLE replaced by this role.
    #[track_caller]
    pub fn may(&self, grants: &str) {
        self.db.execute(&grants.replace("ROLE", &self.name));
    }

    /// The URL of the database, for sessions of this role.
    pub fn url(&self) -> String {
        with_option(&self.db.url(), "role", &self.name)
    }
}

impl Drop for Role<'_> {
    fn drop(&mut self) {
        let name = &self.name;
        let _ = self.db.client().batch_execute(&format!("drop owned by {name}; drop role {name}"));
    }
}

/// The same URL, with this setting for its sessions.
pub fn with_option(url: &str, setting: &str, value: &str) -> String {
    let sign = if url.contains('?') { '&' } else { '?' };
    format!("{url}{sign}options=-c%20{setting}%3D{value}")
}

/// Makes the processes that tests start handle signals as usual. This process may have been started with some signals
/// ignored, as in the background of a shell, and a child inherits ignored signals. A child does not inherit a handler.
fn default_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let ignored = ignored.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0);
        for signal in [SIGHUP, SIGINT, SIGTERM].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 1) {
            signal_hook::flag::register(signal, Arc::default()).expect("a handler that does nothing");
        }
    });
}

/// A process that does not outlive its test.
pub struct Started(pub Child);

impl Started {
    #[track_caller]
    pub fn new(command: &mut Command) -> Self {
        default_signals();
        Self(command.spawn().expect("starting a process"))
    }

    pub fn signal(&self, name: &str) {
        signal(self.0.id(), name);
    }

    /// Waits for the end of the process, at most `SOON`.
    #[track_caller]
    pub fn status(&mut self) -> ExitStatus {
        eventually(SOON, || self.0.try_wait().unwrap().is_some());
        self.0.wait().unwrap()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a signal, named without SIG, to any process: `signal(pid, "STOP")`.
pub fn signal(pid: u32, name: &str) {
    shell("kill -\"$1\" \"$2\"", &[name, &pid.to_string()]);
}

/// Whether a process exists and is not a zombie.
pub fn is_alive(pid: u32) -> bool {
    shell("kill -0 \"$1\" && ! grep -q '^State:[[:space:]]*Z' \"/proc/$1/status\"", &[&pid.to_string()])
}

/// A process that is stopped (SIGSTOP) while this value lives.
pub struct Frozen(u32);

impl Frozen {
    pub fn new(pid: i32) -> Self {
        signal(pid as u32, "STOP");
        Self(pid as u32)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        signal(self.0, "CONT");
    }
}

/// Counts the runs of each job.
#[derive(Clone, Default)]
pub struct Tally(Arc<Mutex<HashMap<i64, u32>>>);

impl Tally {
    pub fn count(&self, job: i64) {
        *self.0.lock().unwrap().entry(job).or_default() += 1;
    }

    /// The number of jobs that ran at least once.
    pub fn jobs(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// The number of runs.
    pub fn runs(&self) -> usize {
        self.0.lock().unwrap().values().sum::<u32>() as usize
    }

    /// The jobs that ran more than once.
    pub fn repeated(&self) -> Vec<i64> {
        let runs = self.0.lock().unwrap();
        runs.iter().filter(|(_, times)| **times > 1).map(|(job, _)| *job).collect()
    }
}

/// A line of the log: its text, one of its fields (`worker_id`, `job_key` or `crontab`), its error and its task.
pub struct Line {
    pub text: String,
    pub of: String,
    pub error: String,
    pub task: String,
}

/// The lines logged by all tests since the first call. A test must filter them by its own worker or key.
pub fn log_lines() -> MutexGuard<'static, Vec<Line>> {
    static LINES: Mutex<Vec<Line>> = Mutex::new(Vec::new());
    static START: Once = Once::new();
    struct Keeper;
    impl log::Log for Keeper {
        fn enabled(&self, _: &log::Metadata) -> bool {
            true
        }
        fn log(&self, record: &log::Record) {
            // The guide's plugin logs from the module of its test.
            if record.target().starts_with("graphile_worker") || record.target().starts_with("it::guide") {
                let field = |name| record.key_values().get(log::kv::Key::from_str(name)).map(|value| value.to_string());
                let of = field("worker_id").or_else(|| field("job_key")).or_else(|| field("crontab"));
                let (error, task) = (field("error").unwrap_or_default(), field("task").unwrap_or_default());
                let line = Line { text: record.args().to_string(), of: of.unwrap_or_default(), error, task };
                LINES.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        }
        fn flush(&self) {}
    }
    START.call_once(|| {
        log::set_logger(&Keeper).expect("no other logger in this binary");
        log::set_max_level(log::LevelFilter::Debug);
    });
    LINES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until `condition` holds, and checks it every 5 ms. Panics at the caller's line after `timeout`.
#[track_caller]
pub fn eventually(timeout: Duration, mut condition: impl FnMut() -> bool) {
    let (caller, start) = (Location::caller(), Instant::now());
    while !condition() {
        assert!(start.elapsed() < timeout, "{caller}: did not come true within {timeout:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Installs the schema in the template database, from which every test's database is cloned.
fn migrate_template(url: &str) {
    let utils = WorkerUtils::connect(url).expect("connecting to the template");
    utils.migrate().expect("migrating the template");
}

/// A worker on a thread of its own. Dropping the value stops the worker and asserts that `run` succeeds.
pub struct Running {
    pub worker: Arc<Worker>,
    thread: Option<std::thread::JoinHandle<Result<()>>>,
}

impl Running {
    pub fn start(options: WorkerOptions) -> Self {
        Self::of(options.listen_os_shutdown_signals(false).init().expect("starting a worker"))
    }

    /// Runs a worker that is already built.
    pub fn of(worker: Worker) -> Self {
        let worker = Arc::new(worker);
        let runner = worker.clone();
        let thread = std::thread::Builder::new().name("harness-run".into()).spawn(move || runner.run());
        Self { worker, thread: Some(thread.expect("starting a thread")) }
    }

    /// Waits until the worker ends by itself, at most `SOON`, and returns the result of `run`.
    #[track_caller]
    pub fn ends(mut self) -> Result<()> {
        let thread = self.thread.take().expect("ended once");
        eventually(SOON, || thread.is_finished());
        thread.join().expect("run() must not panic")
    }

    /// Stops the worker and returns the result of `run` and how long the stop took.
    pub fn stop(mut self) -> (Result<()>, Duration) {
        self.end()
    }

    fn end(&mut self) -> (Result<()>, Duration) {
        let start = Instant::now();
        self.worker.request_shutdown();
        let thread = self.thread.take().expect("ended once");
        let result = thread.join().expect("run() must not panic");
        (result, start.elapsed())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.thread.is_some() && !std::thread::panicking() {
            self.end().0.expect("the worker must end well");
        }
    }
}

/// The server of all tests of this process.
struct Server {
    /// `None` on the server of `TEST_DATABASE_URL`. A static is never dropped: the server ends because its watcher
    /// detects the end of this process.
    private: Option<DevDb>,
    url: String,
    /// The prefix of the names of this process's databases.
    tag: String,
    /// Holds the lock that marks databases with this tag as in use.
    _owner: Mutex<Client>,
}

impl Server {
    fn admin(&self) -> Client {
        connect(&self.url)
    }
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        // Never DATABASE_URL: that database may hold real jobs.
        let (private, url) = match std::env::var("TEST_DATABASE_URL") {
            Ok(url) => (None, url),
            Err(_) => {
                let private = DevDb::start(Options { fsync: false, ..Options::default() }).expect("a private server");
                let url = private.url();
                (Some(private), url)
            }
        };
        let mut owner = connect(&url);
        sweep(&mut owner);
        let tag: String = owner
            .query_one("select 'gw_it_' || substr(md5(random()::text || clock_timestamp()::text), 1, 8)", &[])
            .and_then(|row| row.try_get(0))
            .expect("a tag");
        owner.execute("select pg_advisory_lock(hashtext($1))", &[&tag]).expect("the lock of a new tag is free");
        let template = format!("{tag}_template");
        owner.batch_execute(&format!("create database {template}")).expect("creating the template");
        migrate_template(&with_database(&url, &template));
        Server { private, url, tag, _owner: Mutex::new(owner) }
    })
}

/// Drops the databases that ended test processes have left on a permanent server.
fn sweep(admin: &mut Client) {
    let names = admin.query("select datname::text from pg_database where datname ~ '^gw_it_[0-9a-f]{8}_'", &[]);
    for row in names.expect("listing databases") {
        let name: String = row.get(0);
        let tag = &name[.."gw_it_".len() + 8];
        let free = admin.query_one("select pg_try_advisory_lock(hashtext($1))", &[&tag]).is_ok_and(|row| row.get(0));
        if free {
            drop_database(admin, &name);
            let _ = admin.execute("select pg_advisory_unlock(hashtext($1))", &[&tag]);
        }
    }
}

fn drop_database(admin: &mut Client, name: &str) {
    // PostgreSQL 12 has no `with (force)`.
    if admin.batch_execute(&format!("drop database if exists {name} with (force)")).is_err() {
        let _ = admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", &[&name]);
        let _ = admin.batch_execute(&format!("drop database if exists {name}"));
    }
}

fn connect(url: &str) -> Client {
    let mut config: postgres::Config = url.parse().expect("a URL of PostgreSQL");
    config.application_name("harness").connect_timeout(SOON);
    config.connect(NoTls).unwrap_or_else(|e| panic!("connecting as harness: {}", explain(&e)))
}

/// The same URL with another database.
fn with_database(url: &str, database: &str) -> String {
    let (rest, query) = url.split_once('?').map_or((url, String::new()), |(rest, query)| (rest, format!("?{query}")));
    let authority = rest.find("://").map_or(0, |at| at + 3);
    let end = rest[authority..].find('/').map_or(rest.len(), |at| authority + at);
    format!("{}/{database}{query}", &rest[..end])
}

fn explain(error: &postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string)
}

/// Runs a sh script and returns whether it succeeded. Not every system has `kill` as a program.
pub fn shell(script: &str, args: &[&str]) -> bool {
    let mut sh = Command::new("sh");
    sh.args(["-c", script, "sh"]).args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    sh.status().is_ok_and(|status| status.success())
}

#[test]
fn databases_of_two_tests_do_not_see_each_other() {
    let (one, other) = (TestDb::new(), TestDb::new());
    one.execute("create table here(n int); insert into here values (1), (2)");
    assert_eq!(one.all::<i32>("select n from here order by n"), [1, 2]);
    assert_eq!(one.one::<i64>("select count(*) from here"), 2);
    assert_eq!(other.one::<Option<String>>("select to_regclass('here')::text"), None);
    assert_eq!(other.one::<String>("select current_database()::text"), other.name());
}

#[test]
fn a_database_is_gone_with_its_test_even_when_a_backend_is_stopped() {
    let watcher = TestDb::new();
    let db = TestDb::new();
    let name = db.name().to_owned();
    let mut idle = db.client();
    let pid: i32 = idle.query_one("select pg_backend_pid()", &[]).unwrap().get(0);
    if server().private.is_some() {
        signal(pid as u32, "STOP");
    }
    drop(db);
    assert_eq!(watcher.one_with::<i64>("select count(*) from pg_database where datname = $1", &[&name]), 0);
}

#[test]
fn backends_are_found_by_their_role_and_can_be_ended() {
    let db = TestDb::new();
    let mut config: postgres::Config = db.url().parse().unwrap();
    let _client = config.application_name("graphile-worker:settle").connect(NoTls).unwrap();
    let pids = db.backends("settle");
    assert_eq!((pids.len(), db.backends("lease").len()), (1, 0));
    assert!(db.terminate(pids[0]));
    eventually(SOON, || db.backends("settle").is_empty());
}

#[test]
fn the_harness_reconnects_after_its_session_ended() {
    let db = TestDb::new();
    let pid: i32 = db.one("select pg_backend_pid()");
    db.client().execute("select pg_terminate_backend($1)", &[&pid]).unwrap();
    eventually(SOON, || db.session().is_closed() || db.session().is_valid(SOON).is_err());
    assert_ne!(db.one::<i32>("select pg_backend_pid()"), pid);
}

#[test]
fn with_database_changes_only_the_database() {
    #[track_caller]
    fn check(url: &str, expected: &str) {
        assert_eq!(with_database(url, "new"), expected);
    }
    check("postgres://u:p@h:1/old?sslmode=disable", "postgres://u:p@h:1/new?sslmode=disable");
    check("postgres://h/old", "postgres://h/new");
    check("postgres://h", "postgres://h/new");
    check("postgres://h?a=/b", "postgres://h/new?a=/b");
}

#[test]
#[should_panic(expected = "harness.rs")]
fn a_failed_wait_is_reported_at_the_callers_line() {
    eventually(Duration::from_millis(10), || false);
}
