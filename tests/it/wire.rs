//! A wire that is cut after the server committed and before the reply: what was done is found out,
//! nothing is lost, nothing is done twice, nothing stays locked.

use crate::harness::{Running, SOON, Tally, TestDb, eventually};
use crate::proxy::{Proxy, Sent};
use graphile_worker::{ErrorKind, JobSpec, RawJob, WorkerContext, WorkerOptions, WorkerUtils};
use std::time::{Duration, Instant};

const CLAIM: &str = "-- Claims";
const COMPLETE: &str = "-- Deletes";
const FAIL: &str = "-- Writes";
const GIVE_BACK: &str = "-- Gives";
const ADD_ONE: &str = "-- Adds one";
const ADD_MANY: &str = "-- Adds many";

/// Sooner than any interval of the engine but its poll: what happens by then was not found by chance.
const AT_ONCE: Duration = Duration::from_secs(3);

fn behind_a_proxy() -> (TestDb, Proxy) {
    let db = TestDb::new();
    let proxy = Proxy::to_server_of(&db.url());
    (db, proxy)
}

fn worker(db: &TestDb, proxy: &Proxy) -> WorkerOptions {
    db.worker().database_url(&proxy.url(&db.url())).database_timeout(Duration::from_secs(1))
}

fn utils(db: &TestDb, proxy: &Proxy) -> WorkerUtils {
    WorkerUtils::connect(&proxy.url(&db.url())).unwrap()
}

fn is(start: &'static str) -> impl FnMut(&Sent) -> bool + Send {
    move |sent| sent.sql.starts_with(start)
}

/// A hundred jobs, a third of them in ten queues.
fn add_hundred(db: &TestDb) {
    db.execute(
        "select graphile_worker.add_job('t', queue_name => case when n % 3 = 0 then 'q' || n % 10 end)
           from generate_series(1, 100) n",
    );
}

#[test]
fn jobs_of_a_claim_whose_reply_is_lost_run_once_and_soon() {
    let (db, proxy) = behind_a_proxy();
    add_hundred(&db);
    proxy.drop_reply_to(3, is(CLAIM));
    let (tally, start) = (Tally::default(), Instant::now());
    let counting = tally.clone();
    let running = Running::start(
        worker(&db, &proxy).define_raw_job("t", move |ctx: WorkerContext| counting.count(ctx.job().id())),
    );
    eventually(SOON, || db.jobs() == 0);
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    assert_eq!((proxy.replies_dropped(), tally.jobs(), tally.repeated()), (3, 100, vec![]));
    assert_eq!(db.locks(), 0);
    let stats = running.worker.stats();
    assert!(stats.reconciled > 0 && stats.lost == 0, "{stats:?}");
}

#[test]
fn a_completion_whose_reply_is_lost_counts_once() {
    let (db, proxy) = behind_a_proxy();
    add_hundred(&db);
    proxy.drop_reply_to(3, is(COMPLETE));
    let tally = Tally::default();
    let counting = tally.clone();
    let running = Running::start(
        worker(&db, &proxy).define_raw_job("t", move |ctx: WorkerContext| counting.count(ctx.job().id())),
    );
    eventually(AT_ONCE, || running.worker.stats().completed == 100);
    assert_eq!((proxy.replies_dropped(), tally.jobs(), tally.repeated()), (3, 100, vec![]));
    assert_eq!((db.jobs(), db.locks(), running.worker.stats().lost), (0, 0, 0));
}

#[test]
fn a_failure_whose_reply_is_lost_counts_once() {
    let (db, proxy) = behind_a_proxy();
    add_hundred(&db);
    proxy.drop_reply_to(3, is(FAIL));
    let tally = Tally::default();
    let counting = tally.clone();
    let running = Running::start(worker(&db, &proxy).define_raw_job("t", move |ctx: WorkerContext| {
        counting.count(ctx.job().id());
        Err("boom")
    }));
    // A failed job of a queue comes back in e seconds, and may do so before its last sibling ran.
    eventually(SOON, || tally.jobs() == 100 && running.worker.stats().failed >= 100);
    running.stop().0.unwrap();
    assert_eq!((proxy.replies_dropped(), db.locks()), (3, 0));
    assert_eq!(
        db.one::<i64>(
            "select count(*) from graphile_worker.jobs where last_error = 'boom' and attempts between 1 and 2"
        ),
        100
    );
    let attempts: i64 = db.one("select sum(attempts) from graphile_worker.jobs");
    assert_eq!(attempts as usize, tally.runs(), "an attempt for each run");
}

#[test]
fn a_give_back_whose_reply_is_lost_counts_once() {
    let (db, proxy) = behind_a_proxy();
    add_hundred(&db);
    let options = worker(&db, &proxy).shutdown_grace_period(Duration::from_millis(100));
    let running = Running::start(options.define_raw_job("t", |ctx: WorkerContext| {
        while !ctx.is_cancelled() {
            std::thread::sleep(Duration::from_millis(5));
        }
        Err("stopped early")
    }));
    eventually(SOON, || running.worker.stats().running == 4);
    proxy.drop_reply_to(1, is(GIVE_BACK));
    let worker = running.worker.clone();
    let (result, took) = running.stop();
    result.unwrap();
    assert!(took < Duration::from_millis(1100), "grace + 1 s, but took {took:?}");
    assert_eq!((proxy.replies_dropped(), db.locks()), (1, 0));
    assert_eq!(db.one::<i64>("select count(*) from graphile_worker.jobs where attempts = 0"), 100);
    let stats = worker.stats();
    assert_eq!((stats.lost, stats.failed), (0, 0), "{stats:?}");
}

#[test]
fn an_enqueue_without_a_key_whose_reply_is_lost_says_so_and_is_not_repeated() {
    let (db, proxy) = behind_a_proxy();
    let utils = utils(&db, &proxy);
    proxy.drop_reply_to(1, is(ADD_ONE));
    let error = utils.add_raw_job("t", &1, JobSpec::new()).unwrap_err();
    assert_eq!((error.kind(), proxy.replies_dropped()), (ErrorKind::UnknownOutcome, 1));
    assert_eq!(db.jobs(), 1);
    // In bulk the commit decides.
    let job = RawJob { identifier: "t".into(), payload: "1".into(), spec: JobSpec::new() };
    proxy.drop_reply_to(1, |sent| sent.sql.eq_ignore_ascii_case("commit"));
    let error = utils.add_raw_jobs(vec![job.clone(); 3]).unwrap_err();
    assert_eq!((error.kind(), proxy.replies_dropped(), db.jobs()), (ErrorKind::UnknownOutcome, 2, 4));
    proxy.drop_reply_to(1, is(ADD_MANY));
    let error = utils.add_raw_jobs(vec![job; 3]).unwrap_err();
    assert_eq!((error.kind(), proxy.replies_dropped(), db.jobs()), (ErrorKind::UnknownOutcome, 3, 4));
}

#[test]
fn an_enqueue_with_a_key_whose_reply_is_lost_is_repeated_and_is_one_job() {
    let (db, proxy) = behind_a_proxy();
    let utils = utils(&db, &proxy);
    proxy.drop_reply_to(1, is(ADD_ONE));
    let job = utils.add_raw_job("t", &1, JobSpec::new().job_key("k")).unwrap();
    assert_eq!((proxy.replies_dropped(), db.all::<i64>("select id from graphile_worker.jobs")), (1, vec![job.id()]));
    proxy.drop_reply_to(1, |sent| sent.sql.eq_ignore_ascii_case("commit"));
    let jobs = (0..3).map(|n| RawJob {
        identifier: "t".into(),
        payload: "1".into(),
        spec: JobSpec::new().job_key(format!("bulk {n}")),
    });
    assert_eq!(utils.add_raw_jobs(jobs.collect()).unwrap().len(), 3);
    assert_eq!((proxy.replies_dropped(), db.jobs()), (2, 4));
}
