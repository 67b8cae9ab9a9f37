//! Stopping: at once when idle, after the running jobs within the grace period, at most one second after it.

use crate::harness::{Running, SOON, TestDb, eventually};
use crossbeam_channel::bounded;
use graphile_worker::{ErrorKind, JobDefinition, LocalQueueConfig, ShutdownSignal, WorkerContext};
use std::sync::Arc;
use std::time::Duration;

#[test]
fn an_idle_worker_stops_at_once() {
    let db = TestDb::new();
    let running = Running::start(db.worker().define_raw_job("t", |_| ()));
    eventually(SOON, || running.worker.stats().claims > 0 && !db.backends("listen").is_empty());
    let (result, took) = running.stop();
    result.unwrap();
    assert!(took < Duration::from_millis(300), "{took:?}");
}

#[test]
fn a_running_job_is_finished_before_run_returns() {
    let db = TestDb::new();
    db.add("'t'");
    let running = Running::start(db.worker().define_raw_job("t", |_| std::thread::sleep(Duration::from_millis(500))));
    eventually(SOON, || running.worker.stats().running == 1);
    running.stop().0.unwrap();
    assert_eq!(db.jobs(), 0);
}

#[test]
fn a_handler_that_ends_when_cancelled_loses_no_attempt() {
    let db = TestDb::new();
    db.add("'t', queue_name => 'q'");
    let options =
        db.worker().shutdown_grace_period(Duration::from_millis(100)).define_raw_job("t", |ctx: WorkerContext| {
            while !ctx.is_cancelled() {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err("stopped early")
        });
    let running = Running::start(options);
    eventually(SOON, || running.worker.stats().running == 1);
    let (result, took) = running.stop();
    result.unwrap();
    assert!(took < Duration::from_millis(1100), "{took:?}");
    let row = "select attempts || ' ' || round(extract(epoch from run_at - now()) / 10) || ' ' || (last_error is null) from graphile_worker.jobs";
    assert_eq!(db.one::<String>(row), "0 3 true", "due again in 30 seconds");
    assert_eq!(db.locks(), 0);
}

#[test]
fn a_handler_that_ignores_the_stop_is_named_and_its_job_given_back() {
    let db = TestDb::new();
    db.add("'stubborn'");
    let (release, wait) = bounded::<()>(0);
    let options = db.worker().shutdown_grace_period(Duration::from_millis(200));
    let running = Running::start(options.define_raw_job("stubborn", move |_| {
        let _ = wait.recv_timeout(Duration::from_secs(3600));
    }));
    eventually(SOON, || running.worker.stats().running == 1);
    let (result, took) = running.stop();
    assert!(took < Duration::from_millis(1200), "grace + 1 s, but took {took:?}");
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stopped);
    assert!(error.to_string().contains("(task stubborn) on thread gw-run-"), "{error}");
    assert_eq!(db.one::<i16>("select attempts from graphile_worker.jobs"), 0);
    assert_eq!(db.locks(), 0);
    drop(release);
}

#[test]
fn held_jobs_are_given_back_without_using_an_attempt() {
    let db = TestDb::new();
    // The first jobs are quick, so the worker holds more of them; then every thread blocks.
    db.add_many(1000, "'t', to_json(n > 400), null, null, null, null, null, null");
    let (release, wait) = bounded::<()>(0);
    let options = db.worker().concurrency(2).shutdown_grace_period(Duration::ZERO);
    let running = Running::start(options.define_raw_job("t", move |ctx: WorkerContext| {
        if ctx.payload() == b"true" {
            let _ = wait.recv();
            return Err("released");
        }
        Ok(())
    }));
    eventually(SOON, || running.worker.stats().running == 2 && running.worker.stats().held > 0);
    let (result, _) = running.stop();
    result.unwrap_err();
    drop(release);
    assert_eq!(db.one::<i64>("select count(*) from graphile_worker.jobs where attempts = 0"), 600);
    assert_eq!(db.locks(), 0);
}

#[test]
fn the_callers_signal_and_a_request_before_the_start_both_end_run() {
    let db = TestDb::new();
    let signal = ShutdownSignal::new();
    signal.trigger();
    let options = || db.worker().listen_os_shutdown_signals(false).define_raw_job("t", |_| ());
    options().shutdown_signal(signal).init().unwrap().run().unwrap();
    let worker = options().init().unwrap();
    worker.request_shutdown();
    worker.run().unwrap();
}

#[test]
fn no_thread_outlives_a_stop_without_a_database() {
    let db = TestDb::alone();
    let (release, wait) = bounded::<()>(0);
    let kept = Arc::new(());
    let socket = format!(
        "postgres:///postgres?host={}&port={}&user=postgres",
        db.server().socket_dir().display(),
        db.server().port()
    );
    let options =
        db.worker().database_url(&socket).shutdown_grace_period(Duration::from_millis(100)).define_raw_job("t", {
            let kept = kept.clone();
            move |_| {
                let _kept = &kept;
                let _ = wait.recv();
            }
        });
    db.add("'t'");
    let running = Running::start(options);
    eventually(SOON, || running.worker.stats().running == 1);
    db.server().stop_server().unwrap();
    drop(release);
    let (_, took) = running.stop();
    assert!(took < Duration::from_millis(1200), "{took:?}");
    eventually(SOON, || Arc::strong_count(&kept) == 1);
}

#[test]
fn durations_without_an_end_count_as_long_ones() {
    let db = TestDb::new();
    db.add("'t'");
    let options = db.worker().poll_interval(Duration::MAX).shutdown_grace_period(Duration::MAX);
    let queue = LocalQueueConfig::default().with_ttl(Duration::MAX);
    let task = JobDefinition::raw("t", |_| ()).timeout(Duration::MAX);
    let running = Running::start(options.local_queue(queue).define_jobs([task]));
    eventually(SOON, || db.jobs() == 0);
    running.stop().0.unwrap();
}
