//! Hooks: which events observers receive and when, and the effect of each result of an interceptor.

use crate::harness::{Running, SOON, TestDb, eventually};
use crossbeam_channel::{bounded, unbounded};
use graphile_worker::*;
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Collects words in their order.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Vec<String>>>);

impl Diary {
    fn note(&self, word: impl Into<String>) {
        self.0.lock().unwrap().push(word.into());
    }

    fn words(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// The number of jobs, and the attempts and the error of the first.
fn left(db: &TestDb) -> String {
    db.one(
        "select count(*) || coalesce(min(': attempts ' || attempts || ', ' || coalesce(last_error, 'no error')), '')
           from graphile_worker.jobs",
    )
}

#[test]
fn observers_see_every_step_after_the_database_has_it() {
    let db = Arc::new(TestDb::new());
    db.add("'t', '\"good\"'");
    let diary = Diary::default();
    let keep = |what: &'static str| {
        let (diary, db) = (diary.clone(), db.clone());
        move |job: Arc<Job>| diary.note(format!("{what} {} of {}", job.id(), left(&db)))
    };
    let [fetch, start, done, fail, last] = ["fetch", "start", "done", "fail", "last"].map(keep);
    let (begin, end) = (diary.clone(), diary.clone());
    let options = db
        .worker()
        .on(WorkerStart, move |ctx| begin.note(format!("begin {}", ctx.extensions.get::<u8>().unwrap())))
        .on(JobFetch, move |ctx| fetch(ctx.job))
        .on(JobStart, move |ctx| start(ctx.job))
        .on(JobComplete, move |ctx| done(ctx.job))
        .on(JobFail, move |ctx| {
            assert_eq!((ctx.error.as_str(), ctx.will_retry), ("no", true));
            fail(ctx.job)
        })
        .on(JobPermanentlyFail, move |ctx| last(ctx.job))
        .on(WorkerShutdown, move |ctx| end.note(format!("end {:?}", ctx.reason)))
        .add_extension(7_u8)
        .define_raw_job("t", |ctx: WorkerContext| if ctx.payload() == b"\"good\"" { Ok(()) } else { Err("no") });
    let worker = options.init().unwrap();
    worker.run_once().unwrap();
    let claimed = "1: attempts 1, no error";
    let all = diary.words();
    let mut sorted = all.clone();
    sorted.sort(); // The job's thread and gw-events are separate threads.
    assert_eq!(sorted.len(), 5, "{all:?}");
    assert_eq!(all[0], "begin 7");
    assert!(all.contains(&format!("start 1 of {claimed}")), "{all:?}");
    assert_eq!(all[3..], ["done 1 of 0", "end Graceful"]);

    diary.0.lock().unwrap().clear();
    db.add("'t', '\"bad\"', max_attempts => 2");
    worker.run_once().unwrap();
    db.execute("update graphile_worker._private_jobs set run_at = now()");
    worker.run_once().unwrap();
    let all = diary.words();
    assert!(all.contains(&"fail 2 of 1: attempts 1, no".to_owned()), "{all:?}");
    assert!(all.contains(&"last 2 of 1: attempts 2, no".to_owned()), "{all:?}");
    assert_eq!(all.iter().filter(|word| word.starts_with("fail")).count(), 1, "{all:?}");
}

/// Runs one job with a `BeforeJobRun` and an `AfterJobRun` hook, and checks what is left and which functions were
/// called.
#[track_caller]
fn check(
    before: impl Fn(BeforeJobRunContext) -> HookResult + Send + Sync + 'static,
    handler: Result<(), &'static str>,
    after: impl Fn(AfterJobRunContext) -> HookResult + Send + Sync + 'static,
    expected_left: &str,
    expected_calls: &[&str],
) {
    let db = TestDb::new();
    db.add("'t', '{\"a\": 1}'");
    let diary = Diary::default();
    let (start, run, ran) = (diary.clone(), diary.clone(), diary.clone());
    let options = db
        .worker()
        .on(BeforeJobRun, before)
        .on(JobStart, move |_| start.note("start"))
        .on(AfterJobRun, move |ctx| {
            ran.note("after");
            after(ctx)
        })
        .define_raw_job("t", move |_| {
            run.note("run");
            handler
        });
    options.init().unwrap().run_once().unwrap();
    assert_eq!(
        (left(&db).as_str(), diary.words()),
        (expected_left, expected_calls.iter().map(|w| w.to_string()).collect())
    );
    assert_eq!(db.locks(), 0);
}

#[test]
fn interceptors_of_a_run_decide_the_outcome_of_the_job() {
    use HookResult::{Continue, Fail, Skip};
    let all = ["start", "run", "after"];
    check(|ctx| if ctx.payload == json!({"a": 1}) { Continue } else { Skip }, Ok(()), |_| Continue, "0", &all);
    check(|_| Skip, Err("never called"), |_| Continue, "0", &[]);
    check(|_| Fail("not today".into()), Ok(()), |_| Continue, "1: attempts 1, not today", &[]);
    check(|_| Continue, Err("oh"), |ctx| if ctx.result == Err("oh".into()) { Skip } else { Continue }, "0", &all);
    check(|_| Continue, Ok(()), |_| Fail("too good".into()), "1: attempts 1, too good", &all);
    check(|_| Continue, Err("oh"), |_| Continue, "1: attempts 1, oh", &all);
}

#[test]
fn the_first_interceptor_that_decides_ends_the_chain() {
    let db = TestDb::new();
    db.add("'t'");
    let options = db
        .worker()
        .on(BeforeJobRun, |_| HookResult::Continue)
        .on(BeforeJobRun, |_| HookResult::Fail("second".into()))
        .on(BeforeJobRun, |_| HookResult::Skip);
    options.define_raw_job("t", |_| ()).init().unwrap().run_once().unwrap();
    assert_eq!(left(&db), "1: attempts 1, second");
}

#[test]
fn a_panic_in_a_hook_stops_neither_worker_nor_next_hook() {
    let db = TestDb::new();
    db.add("'t'");
    let told = Arc::new(AtomicUsize::new(0));
    let (at_start, at_end) = (told.clone(), told.clone());
    let options = db
        .worker()
        .on(WorkerInit, |_| panic!("init"))
        .on(JobStart, |_| panic!("start"))
        .on(JobStart, move |_| _ = at_start.fetch_add(1, Ordering::SeqCst))
        .on(AfterJobRun, |_| panic!("after"))
        .on(JobComplete, |_| panic!("complete"))
        .on(JobComplete, move |_| _ = at_end.fetch_add(1, Ordering::SeqCst));
    options.define_raw_job("t", |_| ()).init().unwrap().run_once().unwrap();
    assert_eq!((left(&db).as_str(), told.load(Ordering::SeqCst)), ("0", 2));
}

#[test]
fn an_interceptor_that_panics_before_the_run_fails_the_attempt() {
    let panics = |_: BeforeJobRunContext| panic!("out of order");
    let failed = "1: attempts 1, the hook BeforeJobRun panicked: out of order";
    check(panics, Ok(()), |_| HookResult::Continue, failed, &[]);
}

#[test]
fn enqueue_interceptors_can_change_skip_or_refuse_a_job() {
    let db = TestDb::new();
    let options = db
        .worker()
        .on(BeforeJobSchedule, |ctx| match ctx.payload["what"].as_str() {
            Some("skip") => JobScheduleResult::Skip,
            Some("fail") => JobScheduleResult::Fail("no such thing".into()),
            Some("panic") => panic!("broken"),
            Some("change") => JobScheduleResult::Continue(json!({"by": 1})),
            _ => JobScheduleResult::Continue(ctx.payload),
        })
        .on(BeforeJobSchedule, |mut ctx| {
            if let Some(by) = ctx.payload["by"].as_i64() {
                ctx.payload["by"] = json!(by + 1);
            }
            JobScheduleResult::Continue(ctx.payload)
        })
        .define_raw_job("parent", |ctx: WorkerContext| {
            ctx.utils().add_raw_job("t", &json!({"what": "change"}), JobSpec::new()).map(drop)
        });
    let worker = options.init().unwrap();
    let utils = worker.create_utils();
    let add = |what: &str| utils.add_raw_job("t", &json!({"what": what}), JobSpec::new()).map(drop);
    let refused = |what: &str| add(what).unwrap_err();
    assert_eq!(refused("skip").kind(), ErrorKind::JobScheduleSkipped);
    assert_eq!(refused("fail").kind(), ErrorKind::JobScheduleFailed);
    assert!(refused("fail").to_string().contains("no such thing"));
    assert_eq!(refused("panic").kind(), ErrorKind::JobScheduleFailed);
    let raw = |payload: &str| RawJob { identifier: "t".into(), payload: payload.into(), spec: JobSpec::new() };
    let both = utils.add_raw_jobs(vec![raw("{}"), raw("{\"what\": \"skip\"}")]);
    assert!(both.unwrap_err().to_string().starts_with("job 1: "), "all or none");
    let mut client = db.client();
    utils.with_executor(&mut client).add_raw_job("t", &json!({"what": "fail"}), JobSpec::new()).unwrap_err();
    assert_eq!(db.jobs(), 0);

    let odd = r#"{ "b":1,  "a" : 1.10, "a":2 }"#;
    utils.add_raw_jobs(vec![raw(odd)]).unwrap();
    add("change").unwrap();
    utils.add_raw_job("parent", &json!({}), JobSpec::new()).unwrap();
    worker.run_once().unwrap();
    let stored: Vec<String> = db.all("select payload::text from graphile_worker._private_jobs order by id");
    assert_eq!(stored, [odd, r#"{"by":2}"#, r#"{"by":2}"#], "changed by both, or untouched byte for byte");
}

#[test]
fn an_interrupted_job_is_reported_after_it_is_given_back() {
    let db = Arc::new(TestDb::new());
    db.add("'t'");
    let (send, told) = unbounded();
    let seen = db.clone();
    let options = db
        .worker()
        .shutdown_grace_period(Duration::from_millis(50))
        .on(JobInterrupted, move |ctx| _ = send.send((ctx.reason, left(&seen))))
        .define_raw_job("t", |ctx: WorkerContext| {
            while !ctx.is_cancelled() {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err("stopped early")
        });
    let running = Running::start(options);
    eventually(SOON, || running.worker.stats().running == 1);
    running.stop().0.unwrap();
    let told: Vec<_> = told.try_iter().collect();
    assert_eq!(told, [(FailureReason::ShutdownAborted, "1: attempts 0, no error".to_owned())]);
}

#[test]
fn a_job_that_loses_its_lock_is_reported_lost_and_not_done() {
    let db = TestDb::new();
    db.add("'t'");
    let diary = Diary::default();
    let (lost, done) = (diary.clone(), diary.clone());
    let (release, wait) = bounded::<()>(0);
    let options = db
        .worker()
        .on(JobLost, move |ctx| lost.note(format!("lost {}", ctx.job.id())))
        .on(JobComplete, move |_| done.note("done"));
    let running = Running::start(options.define_raw_job("t", move |_| _ = wait.recv_timeout(SOON)));
    eventually(SOON, || running.worker.stats().running == 1);
    db.execute("update graphile_worker._private_jobs set locked_by = 'another', locked_at = now()");
    drop(release);
    eventually(SOON, || !diary.words().is_empty());
    running.stop().0.unwrap();
    assert_eq!(diary.words(), ["lost 1"]);
}

#[test]
fn an_observer_that_hangs_delays_no_job_and_no_stop() {
    let db = TestDb::new();
    db.add_many(3000, "'t', null, null, null, null, null, null, null");
    let (release, wait) = bounded::<()>(0);
    let options = db.worker().concurrency(2).on(JobComplete, move |_| _ = wait.recv());
    let running = Running::start(options.define_raw_job("t", |_| ()));
    // If each of the 2,000 events that find the queue full waited 100 ms, two threads would need 100 s.
    eventually(Duration::from_secs(60), || db.jobs() == 0);
    // The observer hangs until after the stop, so the stop does not wait for it.
    let (result, _) = running.stop();
    result.unwrap();
    drop(release);
}

#[test]
fn without_an_observer_there_is_no_thread_for_events() {
    fn threads() -> Vec<String> {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
        names.map(|name| name.trim().to_owned()).collect()
    }
    if std::env::var_os("HOOKS_ALONE").is_none() {
        // Other tests of this binary register observers, so look in a separate process.
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        alone.args(["--exact", "hooks::without_an_observer_there_is_no_thread_for_events"]).env("HOOKS_ALONE", "1");
        assert!(alone.output().unwrap().status.success());
        return;
    }
    let db = TestDb::new();
    let silent = Running::start(db.worker().on(JobStart, |_| ()).define_raw_job("t", |_| ()));
    eventually(SOON, || silent.worker.stats().claims > 0);
    assert!(!threads().contains(&"gw-events".to_owned()));
    let observed = Running::start(db.worker().on(JobComplete, |_| ()).define_raw_job("t", |_| ()));
    eventually(SOON, || observed.worker.stats().claims > 0);
    assert!(threads().contains(&"gw-events".to_owned()));
}
