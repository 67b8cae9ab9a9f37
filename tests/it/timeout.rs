//! Handlers that run longer than their task's timeout: they are cancelled, and reported if they do not end.

use crate::harness::{Running, SOON, TestDb, eventually, log_lines};
use crossbeam_channel::{bounded, unbounded};
use graphile_worker::{JobDefinition, JobTimeout, RetryPolicy, WorkerContext, WorkerOptions};
use std::time::{Duration, Instant};

const ROW: &str = "select concat_ws('|', attempts, round(extract(epoch from run_at - now())), last_error)
    from graphile_worker._private_jobs";

fn until_cancelled(ctx: &WorkerContext) {
    let start = Instant::now();
    while !ctx.is_cancelled() {
        assert!(start.elapsed() < SOON, "not cancelled in time");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn run(db: &TestDb, definition: JobDefinition) {
    db.worker().define_jobs([definition]).init().unwrap().run_once().unwrap();
}

#[test]
fn a_cancelled_handler_that_fails_has_timed_out() {
    let db = TestDb::new();
    db.add("'t', queue_name => 'q'");
    let slow = JobDefinition::raw("t", |ctx: WorkerContext| {
        until_cancelled(&ctx);
        Err("left off")
    });
    let slow = slow.timeout(Duration::from_millis(50)).backoff(RetryPolicy::fixed(Duration::from_secs(44)));
    let start = Instant::now();
    run(&db, slow);
    assert!(start.elapsed() >= Duration::from_millis(50));
    // The attempt counts; otherwise the job would time out again and again.
    assert_eq!(db.one::<String>(ROW), "1|44|timed out: left off");
    assert_eq!(db.locks(), 0);
}

#[test]
fn a_late_success_counts_as_success() {
    let db = TestDb::new();
    db.add("'t'");
    let late = JobDefinition::raw("t", |ctx: WorkerContext| until_cancelled(&ctx));
    run(&db, late.timeout(Duration::from_millis(20)));
    assert_eq!(db.jobs(), 0);
}

#[test]
fn a_timeout_belongs_to_its_task_and_starts_with_the_handler() {
    let db = TestDb::new();
    // With one thread, the second job waits longer than its timeout before it starts.
    db.add("'slow'");
    db.add("'quick'");
    let slow = JobDefinition::raw("slow", |ctx: WorkerContext| {
        std::thread::sleep(Duration::from_millis(150));
        assert!(!ctx.is_cancelled(), "has no timeout");
    });
    let quick = JobDefinition::raw("quick", |ctx: WorkerContext| assert!(!ctx.is_cancelled(), "has just started"));
    let quick = quick.timeout(Duration::from_millis(100));
    db.worker().concurrency(1).define_jobs([slow, quick]).init().unwrap().run_once().unwrap();
    assert_eq!(db.jobs(), 0);
}

#[test]
fn a_handler_that_ignores_its_timeout_is_reported_once_and_keeps_its_job() {
    let db = TestDb::new();
    let id = db.add("'t'");
    drop(log_lines());
    let (release, wait) = bounded::<()>(0);
    let stubborn = JobDefinition::raw("t", move |_| {
        let _ = wait.recv_timeout(SOON);
    });
    let options = |definition| -> WorkerOptions {
        db.worker().concurrency(1).shutdown_grace_period(Duration::from_millis(100)).define_jobs([definition])
    };
    let (send, told) = unbounded();
    let tell = options(stubborn.timeout(Duration::from_millis(20)))
        .on(JobTimeout, move |ctx| _ = send.send((ctx.job.id(), ctx.thread, ctx.stuck)));
    let running = Running::start(tell);
    for stuck in [false, true] {
        assert_eq!(told.recv_timeout(SOON).unwrap(), (id, "gw-run-0".to_owned(), stuck));
    }
    // No other worker runs the job.
    options(JobDefinition::raw("t", |_| assert_eq!(1, 2, "run twice"))).init().unwrap().run_once().unwrap();
    let worker_id = running.worker.worker_id().unwrap();
    let holder = format!("select locked_by from graphile_worker._private_jobs where id = {id}");
    assert_eq!(db.one::<String>(&holder), worker_id);
    assert_eq!((running.worker.stats().timed_out, running.worker.stats().stuck), (1, 1));
    let reports =
        log_lines().iter().filter(|line| line.of == worker_id && line.text.contains("ignores its timeout")).count();
    assert_eq!(reports, 1);
    // The handler may still succeed.
    drop(release);
    eventually(SOON, || db.jobs() == 0);
}

#[test]
fn a_timeout_of_zero_is_refused_by_name() {
    let db = TestDb::new();
    let never = JobDefinition::raw("t", |_| ()).timeout(Duration::ZERO);
    let error = db.worker().define_jobs([never]).init().err().unwrap();
    assert_eq!(error.to_string(), "timeout of task \"t\": 0ns is shorter than 1 ms");
}
