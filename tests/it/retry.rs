//! When a job runs again: retry policies, and jobs that snooze.

use crate::harness::TestDb;
use graphile_worker::{JobDefinition, RetryPolicy, WorkerContext};
use std::time::Duration;

const ROW: &str = "select concat_ws('|', attempts, is_available, round(extract(epoch from run_at - now())), last_error)
    from graphile_worker._private_jobs";

/// Runs the due jobs of task `t` with this definition.
fn run(db: &TestDb, definition: JobDefinition) {
    db.worker().define_jobs([definition]).init().unwrap().run_once().unwrap();
}

fn failing(policy: RetryPolicy) -> JobDefinition {
    JobDefinition::raw("t", |_| Err("boom")).backoff(policy)
}

#[test]
fn a_failed_job_waits_according_to_its_tasks_policy() {
    let seconds = Duration::from_secs;
    let by_error = RetryPolicy::custom(|attempt, error| {
        assert_eq!(error, "boom");
        Duration::from_secs(1000) + Duration::from_secs(attempt.into())
    });
    for (policy, expected) in [
        (RetryPolicy::fixed(seconds(77)), [77, 77]),
        (RetryPolicy::linear(seconds(30), seconds(50)), [30, 50]),
        (RetryPolicy::exponential(seconds(40), seconds(3600)), [40, 80]),
        (by_error, [1001, 1002]),
    ] {
        let db = TestDb::new();
        db.add("'t', queue_name => 'q'");
        for (attempt, delay) in (1..).zip(expected) {
            db.execute("update graphile_worker._private_jobs set run_at = now()");
            run(&db, failing(policy.clone()));
            assert_eq!(db.one::<String>(ROW), format!("{attempt}|t|{delay}|boom"), "{policy:?}");
            assert_eq!(db.locks(), 0);
        }
    }
}

#[test]
fn a_policy_that_panics_leaves_the_delay_to_the_default() {
    let db = TestDb::new();
    db.add("'t'");
    run(&db, failing(RetryPolicy::custom(|_, _| panic!("no idea"))));
    assert_eq!(db.one::<String>(ROW), "1|t|3|boom");
}

#[test]
fn a_handler_can_set_the_delay_of_its_next_attempt() {
    let db = TestDb::new();
    db.add("'t'");
    let handler = |ctx: WorkerContext| {
        ctx.retry_after(Duration::from_secs(5));
        ctx.retry_after(Duration::from_secs(90));
        Err("asked to wait")
    };
    run(&db, JobDefinition::raw("t", handler).backoff(RetryPolicy::fixed(Duration::ZERO)));
    assert_eq!(db.one::<String>(ROW), "1|t|90|asked to wait");
}

#[test]
fn a_policy_gives_no_more_attempts_than_the_job_has() {
    let db = TestDb::new();
    db.add("'t', max_attempts => 1");
    run(&db, failing(RetryPolicy::fixed(Duration::ZERO)));
    assert_eq!(db.one::<String>(ROW), "1|f|0|boom");
}

#[test]
fn a_delay_beyond_a_hundred_years_is_refused_by_name() {
    let db = TestDb::new();
    let error = db.worker().define_jobs([failing(RetryPolicy::fixed(Duration::MAX))]).init().err().unwrap();
    assert!(
        error.to_string().starts_with("backoff of task \"t\": ") && error.to_string().ends_with("100 years"),
        "{error}"
    );
}

#[test]
fn a_snoozed_job_runs_later_and_uses_no_attempt() {
    let db = TestDb::new();
    // Also on its last attempt.
    db.add("'t', queue_name => 'q', max_attempts => 1");
    let worker = db.worker().define_raw_job("t", |ctx: WorkerContext| ctx.snooze(Duration::from_secs(90)));
    let worker = worker.init().unwrap();
    for _ in 0..2 {
        db.execute("update graphile_worker._private_jobs set run_at = now()");
        worker.run_once().unwrap();
        assert_eq!(db.one::<String>(ROW), "0|t|90");
        assert_eq!(db.locks(), 0);
        assert_eq!((worker.stats().snoozed, worker.stats().returned, worker.stats().failed), (1, 0, 0));
    }
}

#[test]
fn a_queue_goes_on_while_its_first_job_snoozes() {
    let db = TestDb::new();
    db.add("'t', '\"sleepy\"', queue_name => 'q'");
    db.add("'t', '\"next\"', queue_name => 'q'");
    let worker = db.worker().define_raw_job("t", |ctx: WorkerContext| {
        if ctx.payload() == b"\"sleepy\"" {
            ctx.snooze(Duration::from_secs(60));
        }
    });
    worker.init().unwrap().run_once().unwrap();
    assert_eq!(db.one::<String>("select payload::text from graphile_worker._private_jobs"), "\"sleepy\"");
}

#[test]
fn a_failure_after_a_snooze_is_a_failure() {
    let db = TestDb::new();
    db.add("'t'");
    run(
        &db,
        JobDefinition::raw("t", |ctx: WorkerContext| {
            ctx.snooze(Duration::from_secs(90));
            Err("boom")
        }),
    );
    assert_eq!(db.one::<String>(ROW), "1|t|3|boom");
}

#[test]
fn a_job_removed_while_it_runs_does_not_come_back_by_snoozing() {
    let db = TestDb::new();
    db.add("'t', job_key => 'k'");
    run(
        &db,
        JobDefinition::raw("t", |ctx: WorkerContext| -> graphile_worker::Result<()> {
            ctx.utils().remove_job("k")?;
            ctx.snooze(Duration::MAX);
            Ok(())
        }),
    );
    assert_eq!(db.one::<i64>("select count(*) from graphile_worker._private_jobs where is_available"), 0);
    assert_eq!(db.locks(), 0);
}
