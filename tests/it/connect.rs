//! Reaching the database: pools, schemas side by side, and what is said when it cannot be reached.

use crate::harness::{Running, SOON, TestDb, eventually};
use graphile_worker::devdb::{DevDb, Options};
use graphile_worker::{ErrorKind, JobSpec, Schema, WorkerOptions, WorkerUtils};
use r2d2_postgres::PostgresConnectionManager;
use std::time::{Duration, Instant};

fn noop(options: WorkerOptions) -> WorkerOptions {
    options.define_raw_job("t", |_| ())
}

fn pool(db: &TestDb, size: u32) -> r2d2::Pool<PostgresConnectionManager<postgres::NoTls>> {
    let manager = PostgresConnectionManager::new(db.url().parse().unwrap(), postgres::NoTls);
    r2d2::Pool::builder().max_size(size).build(manager).unwrap()
}

#[track_caller]
fn refused(options: WorkerOptions, kind: ErrorKind, words: &[&str]) {
    let error = noop(options).init().map(drop).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{error} does not say {word:?}");
    }
}

#[test]
fn a_worker_runs_on_the_callers_pool_alone() {
    let db = TestDb::new();
    db.add("'t', queue_name => 'q'");
    let running = Running::start(noop(WorkerOptions::default().pg_pool(pool(&db, 6)).concurrency(2)));
    eventually(SOON, || db.jobs() == 0);
    eventually(SOON, || db.backends("listen").len() == 1);
    db.add("'t'");
    eventually(SOON, || db.jobs() == 0);
    let (result, took) = running.stop();
    result.unwrap();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(db.locks(), 0);
}

#[test]
fn with_a_pool_and_a_url_the_pool_is_the_handlers_own() {
    let db = TestDb::new();
    let running = Running::start(noop(WorkerOptions::default().pg_pool(pool(&db, 1)).database_url(&db.url())));
    db.add("'t'");
    eventually(SOON, || db.jobs() == 0);
    assert_eq!(db.backends("fetch").len(), 1);
    drop(running);
}

#[test]
fn a_pool_without_room_for_engine_and_handlers_is_refused() {
    let db = TestDb::new();
    refused(WorkerOptions::default().pg_pool(pool(&db, 4)), ErrorKind::Config, &["pg_pool", "4"]);
    refused(db.worker().max_pg_conn(4), ErrorKind::Config, &["max_pg_conn: 4 is fewer than 5"]);
}

#[test]
fn options_out_of_range_are_named_with_their_limit() {
    let db = TestDb::new();
    refused(WorkerOptions::default(), ErrorKind::Config, &["database_url", "pg_pool"]);
    refused(db.worker().concurrency(0), ErrorKind::Config, &["concurrency: 0 is outside 1"]);
    refused(db.worker().poll_interval(Duration::ZERO), ErrorKind::Config, &["poll_interval", "1ms"]);
    refused(db.worker().schema("a$$b"), ErrorKind::Config, &["schema", "$"]);
    refused(db.worker().define_raw_job("t", |_| ()), ErrorKind::Config, &["task \"t\": is defined twice"]);
    refused(db.worker().define_raw_job("", |_| ()), ErrorKind::Config, &["task name: has 0 characters"]);
    let error = db.worker().init().map(drop).unwrap_err();
    assert!(error.to_string().contains("no task is defined"), "{error}");
}

#[test]
fn a_server_that_is_not_there_is_named_at_once() {
    let start = Instant::now();
    let url = "postgres://ada:s3cret@127.0.0.1:1/app";
    refused(WorkerOptions::default().database_url(url), ErrorKind::Connect, &["127.0.0.1:1"]);
    let error = WorkerUtils::connect("postgres://ada:s3cret@127.0.0.1:port/app").map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(!error.to_string().contains("s3cret"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_wrong_password_is_told_at_once_with_its_sqlstate() {
    let files = vec![("pg_hba.conf".to_owned(), "local all all trust\nhost all all all scram-sha-256\n".to_owned())];
    let server = DevDb::start(Options { fsync: false, files, ..Options::default() }).unwrap();
    let start = Instant::now();
    let url = format!("postgres://postgres:wr0ng@127.0.0.1:{}/postgres", server.port());
    let error = WorkerUtils::connect(&url).map(drop).unwrap_err();
    assert_eq!((error.kind(), error.sqlstate()), (ErrorKind::Auth, Some("28P01")), "{error}");
    assert!(!error.to_string().contains("wr0ng"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn on_a_thread_of_an_async_runtime_the_calls_say_what_to_do() {
    let db = TestDb::new();
    let utils = db.utils();
    let worker = noop(db.worker()).init().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let errors = [
            utils.add_raw_job("t", &1, JobSpec::new()).map(drop).unwrap_err(),
            WorkerUtils::connect(&db.url()).map(drop).unwrap_err(),
            worker.run().unwrap_err(),
            noop(db.worker()).init().map(drop).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Misuse);
            assert!(error.to_string().contains("spawn_blocking"), "{error}");
        }
    });
    runtime.block_on(async { tokio::task::yield_now().await });
}

#[test]
fn two_workers_on_two_schemas_of_one_database_do_not_disturb_each_other() {
    let db = TestDb::new();
    let odd = "Größe \"q\" ; drop schema x; 🦀";
    let first = Running::start(noop(db.worker().poll_interval(Duration::from_secs(3600))));
    let second = Running::start(noop(db.worker().schema(odd).poll_interval(Duration::from_secs(3600))));
    let utils = db.utils().schema(Schema::new(odd).unwrap());
    for n in 0..20 {
        utils.add_raw_job("t", &n, JobSpec::new().queue_name("q")).unwrap();
        db.add("'t', queue_name => 'q'");
    }
    eventually(SOON, || first.worker.stats().completed == 20 && second.worker.stats().completed == 20);
}

#[test]
fn a_worker_runs_once_at_a_time_and_can_run_again() {
    let db = TestDb::new();
    let running = Running::start(noop(db.worker()));
    eventually(SOON, || running.worker.stats().claims > 0);
    assert_eq!(running.worker.run_once().unwrap_err().kind(), ErrorKind::Misuse);
    let worker = noop(db.worker()).init().unwrap();
    worker.run_once().unwrap();
    let first = worker.worker_id().unwrap();
    worker.run_once().unwrap();
    assert_ne!(worker.worker_id().unwrap(), first, "every start has a name of its own");
}

#[test]
fn a_migration_that_is_announced_for_another_schema_stops_no_worker() {
    let db = TestDb::new();
    let running = Running::start(noop(db.worker()));
    eventually(SOON, || running.worker.stats().listener == graphile_worker::ListenerState::Listening);
    // The channel is one for all schemas of a database.
    db.execute("select pg_notify('worker:migrate', '{\"migrationNumber\": 99, \"breaking\": true}')");
    db.add("'t'");
    eventually(SOON, || running.worker.stats().completed == 1);
    running.stop().0.unwrap();
}
