//! The outcomes of a job: it runs, is retried or fails permanently; and when it starts.

use crate::harness::{Running, SOON, TestDb, eventually};
use graphile_worker::{IntoTaskHandlerResult, JobSpec, TaskHandler, WorkerContext};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[derive(Serialize, Deserialize)]
struct Greet {
    name: String,
}

/// Collects the greetings of `Greet`.
struct Greetings(Mutex<Vec<String>>);

impl TaskHandler for Greet {
    const IDENTIFIER: &'static str = "greet";

    fn run(self, ctx: WorkerContext) -> impl IntoTaskHandlerResult {
        let greetings: &Arc<Greetings> = ctx.get_ext().ok_or("no extension")?;
        greetings.0.lock().unwrap().push(format!("hello {}", self.name));
        Ok::<(), &str>(())
    }
}

#[test]
fn a_typed_job_runs_and_its_row_is_deleted() {
    let db = TestDb::new();
    let greetings = Arc::new(Greetings(Mutex::default()));
    db.utils().add_job(Greet { name: "ada".into() }, JobSpec::new()).unwrap();
    db.worker().define_job::<Greet>().add_extension(greetings.clone()).init().unwrap().run_once().unwrap();
    assert_eq!(*greetings.0.lock().unwrap(), ["hello ada"]);
    assert_eq!(db.jobs(), 0);
}

#[test]
fn an_error_is_stored_and_the_job_retried_after_the_backoff() {
    let db = TestDb::new();
    db.add("'t', queue_name => 'q'");
    let worker = db.worker().define_raw_job("t", |_| Err("boom")).init().unwrap();
    worker.run_once().unwrap();
    let row = "select attempts || ' ' || last_error || ' ' || round(extract(epoch from run_at - now())) from graphile_worker.jobs";
    assert_eq!(db.one::<String>(row), "1 boom 3", "e^1 seconds");
    assert_eq!(db.locks(), 0);
    db.execute("update graphile_worker._private_jobs set run_at = now()");
    worker.run_once().unwrap();
    assert_eq!(db.one::<String>(row), "2 boom 7", "e^2 seconds");
}

#[test]
fn a_panic_is_a_failure_and_the_thread_goes_on() {
    let db = TestDb::new();
    db.add("'t', '\"panic\"'");
    db.add("'t', '\"go on\"'");
    let worker = db.worker().concurrency(1).define_raw_job("t", |ctx: WorkerContext| {
        assert!(ctx.payload() != b"\"panic\"", "no panics here, please");
    });
    worker.init().unwrap().run_once().unwrap();
    assert_eq!(
        db.all::<String>("select last_error from graphile_worker.jobs"),
        ["the handler panicked: no panics here, please"]
    );
}

#[test]
fn after_the_last_attempt_a_job_stays_permanently_failed() {
    let db = TestDb::new();
    db.add("'t', max_attempts => 1");
    let worker = db.worker().define_raw_job("t", |_| Err("no")).init().unwrap();
    worker.run_once().unwrap();
    db.execute("update graphile_worker._private_jobs set run_at = now()");
    worker.run_once().unwrap();
    assert_eq!(db.one::<String>("select attempts || last_error from graphile_worker.jobs"), "1no");
    assert!(!db.one::<bool>("select is_available from graphile_worker._private_jobs"));
}

#[test]
fn a_payload_that_does_not_fit_fails_and_is_not_shown() {
    let db = TestDb::new();
    db.add("'greet', '{\"nom\": \"s3cret\"}'");
    let greetings = Arc::new(Greetings(Mutex::default()));
    db.worker().define_job::<Greet>().add_extension(greetings).init().unwrap().run_once().unwrap();
    let error: String = db.one("select last_error from graphile_worker.jobs");
    assert!(error.contains("does not fit task greet") && !error.contains("s3cret"), "{error}");
}

#[test]
fn payloads_arrive_byte_for_byte() {
    let db = TestDb::new();
    let odd = r#"{ "b":1,  "a" : 1.10, "a":2, "n": 1e400, "u": "\u0000", "x": "\ud800" }"#;
    db.add(&format!("'t', '{odd}'"));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    let worker =
        db.worker().define_raw_job("t", move |ctx: WorkerContext| *sink.lock().unwrap() = ctx.payload().to_vec());
    worker.init().unwrap().run_once().unwrap();
    assert_eq!(String::from_utf8(seen.lock().unwrap().clone()).unwrap(), odd);
}

#[test]
fn jobs_start_by_priority_then_run_at_and_never_early() {
    let db = TestDb::new();
    db.add("'t', '\"late\"', run_at => now() - interval '1 minute'");
    db.add("'t', '\"urgent\"', priority => -1");
    db.add("'t', '\"old\"', run_at => now() - interval '1 hour'");
    db.add("'t', '\"tomorrow\"', priority => -9, run_at => now() + interval '1 day'");
    let order = Arc::new(Mutex::new(Vec::new()));
    let sink = order.clone();
    let worker = db.worker().concurrency(1).define_raw_job("t", move |ctx: WorkerContext| {
        sink.lock().unwrap().push(ctx.job().payload_as::<String>().unwrap());
    });
    worker.init().unwrap().run_once().unwrap();
    assert_eq!(*order.lock().unwrap(), ["urgent", "old", "late"]);
    assert_eq!(db.jobs(), 1);
}

#[test]
fn a_job_of_an_unknown_task_is_left_to_others() {
    let db = TestDb::new();
    db.add("'other'");
    db.worker().define_raw_job("t", |_| ()).init().unwrap().run_once().unwrap();
    assert_eq!(db.one::<i16>("select attempts from graphile_worker.jobs"), 0);
}

#[test]
fn an_idle_worker_is_notified_of_a_job_at_once() {
    let db = TestDb::new();
    let ran = Arc::new(AtomicUsize::new(0));
    let count = ran.clone();
    let running = Running::start(db.worker().poll_interval(Duration::from_secs(3600)).define_raw_job("t", move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    }));
    // The claim that follows each new listen session may find the first job.
    for nth in 1..=3 {
        let start = Instant::now();
        db.add("'t'");
        eventually(SOON, || ran.load(Ordering::SeqCst) == nth);
        assert!(start.elapsed() < Duration::from_secs(1) || nth == 1, "{:?}", start.elapsed());
        eventually(SOON, || db.jobs() == 0);
    }
    drop(running);
}

#[test]
fn a_job_that_comes_due_is_found_by_polling_without_notifications() {
    let db = TestDb::new();
    db.add("'t', run_at => now() + interval '300 milliseconds'");
    let options = db.worker().poll_interval(Duration::from_millis(50)).use_notification_delivery(false);
    let _running = Running::start(options.define_raw_job("t", |_| ()));
    eventually(SOON, || db.jobs() == 0);
    assert_eq!(db.backends("listen").len(), 0);
}

#[test]
fn handlers_enqueue_and_use_the_database() {
    let db = TestDb::new();
    db.execute("create table seen (id bigint)");
    db.add("'first'");
    let worker = db.worker().define_raw_job("first", |ctx: WorkerContext| -> Result<(), Box<dyn std::error::Error>> {
        ctx.connection()?.execute("insert into seen values ($1)", &[&ctx.job().id()])?;
        ctx.utils().add_raw_job("second", &"next", JobSpec::new())?;
        Ok(())
    });
    worker.define_raw_job("second", |_| ()).init().unwrap().run_once().unwrap();
    assert_eq!(db.one::<i64>("select count(*) from seen"), 1);
    assert_eq!(db.jobs(), 0);
}

#[test]
fn flags_keep_jobs_from_workers() {
    let db = TestDb::new();
    db.add("'t', '\"plain\"'");
    db.add("'t', '\"big\"', flags => array['big']");
    db.add("'t', '\"both\"', flags => array['big', 'gpu']");
    let run = |options: graphile_worker::WorkerOptions| {
        options.define_raw_job("t", |_| ()).init().unwrap().run_once().unwrap()
    };
    let left = || db.all::<String>("select payload #>> '{}' from graphile_worker._private_jobs order by 1");
    run(db.worker().add_accepted_flag("gpu").add_forbidden_flag("big"));
    assert_eq!(left(), ["big", "both", "plain"]);
    run(db.worker().add_accepted_flag("gpu"));
    assert_eq!(left(), ["big", "plain"]);
    run(db.worker().add_forbidden_flag("big"));
    assert_eq!(left(), ["big"]);
}

#[test]
fn a_job_that_fails_and_then_succeeds_is_deleted() {
    let db = TestDb::new();
    db.add("'t', queue_name => 'q'");
    let worker = db.worker().define_raw_job("t", |ctx: WorkerContext| match ctx.job().attempts() {
        3 => Ok(()),
        _ => Err("not yet"),
    });
    let worker = worker.init().unwrap();
    for left in [1, 1, 0] {
        worker.run_once().unwrap();
        assert_eq!((db.jobs(), db.locks()), (left, 0));
        db.execute("update graphile_worker._private_jobs set run_at = now()");
    }
}

#[test]
fn an_error_with_a_nul_is_stored_without_it() {
    let db = TestDb::new();
    db.add("'t'");
    let worker = db.worker().define_raw_job("t", |_| Err("nul\0 here"));
    worker.init().unwrap().run_once().unwrap();
    let error: String = db.one("select last_error from graphile_worker.jobs");
    assert!(error.starts_with("nul") && error.ends_with(" here"), "{error}");
    assert_eq!(db.locks(), 0);
}

#[test]
fn jobs_without_a_queue_run_in_parallel_and_on_one_thread() {
    let db = TestDb::new();
    let inside = Arc::new(AtomicUsize::new(0));
    let add = |jobs| db.execute(&format!("select graphile_worker.add_job('t') from generate_series(1, {jobs})"));
    add(4);
    let all = inside.clone();
    let worker = db.worker().concurrency(4).define_raw_job("t", move |_| {
        all.fetch_add(1, Ordering::SeqCst);
        let start = Instant::now();
        while all.load(Ordering::SeqCst) < 4 {
            assert!(start.elapsed() < SOON, "the other jobs did not start");
            std::thread::yield_now();
        }
    });
    worker.init().unwrap().run_once().unwrap();
    assert_eq!(db.jobs(), 0, "each job ran beside the three others");
    add(100);
    db.worker().concurrency(1).define_raw_job("t", |_| ()).init().unwrap().run_once().unwrap();
    assert_eq!(db.jobs(), 0);
}

#[test]
fn a_backlog_is_worked_off_without_waiting_for_a_poll() {
    let db = TestDb::new();
    db.execute("select graphile_worker.add_job('t') from generate_series(1, 500)");
    let options = db.worker().poll_interval(Duration::from_secs(3600)).use_notification_delivery(false);
    let _running = Running::start(options.define_raw_job("t", |_| std::thread::sleep(Duration::from_millis(2))));
    eventually(SOON, || db.jobs() == 0);
}

#[test] // Upstream: nodeTime.test.ts
fn use_local_time_selects_the_clock() {
    let db = TestDb::new();
    // A database whose clock is years behind the worker's.
    db.execute(
        "alter function pg_catalog.now() rename to now_of_the_machine;
         create function pg_catalog.now() returns timestamptz language sql stable as $$select '2001-01-01'::timestamptz$$",
    );
    db.add("'t', run_at => '2002-01-01'");
    let run = |local| {
        db.worker().use_local_time(local).define_raw_job("t", |_| ()).init().unwrap().run_once().unwrap();
        db.jobs()
    };
    assert_eq!((run(false), run(true)), (1, 0));
}

#[test]
fn a_first_job_added_while_the_worker_starts_runs() {
    let db = TestDb::new();
    let mut other = db.client();
    let mut adding = other.transaction().unwrap();
    adding.execute("select graphile_worker.add_job('t')", &[]).unwrap();
    let options = db.worker().define_raw_job("t", |_| ());
    let starting = std::thread::spawn(move || options.init().unwrap());
    eventually(SOON, || db.waiting() > 0);
    adding.commit().unwrap();
    starting.join().unwrap().run_once().unwrap();
    assert_eq!(db.jobs(), 0);
}
