//! Large payloads, slow links, little memory: a worker goes on, keeps the order of its jobs, and does not exceed its
//! budget.

use crate::harness::{Running, SOON, Tally, TestDb, eventually, log_lines};
use crate::proxy::Proxy;
use crossbeam_channel::bounded;
use graphile_worker::{
    JobSpec, ListJobsOptions, LocalQueueConfig, RawJob, WorkerContext, WorkerOptions, WorkerRecoveryConfig,
};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const KIB: usize = 1024;

/// How long a slow link may take on a busy machine.
const LATE: Duration = Duration::from_secs(120);

/// Shorter than the default, so that a slow link exceeds it after a short time.
const DEADLINE: Duration = Duration::from_secs(3);

/// Adds jobs with payloads of `kib` KiB that PostgreSQL cannot compress.
fn add(db: &TestDb, task: &str, jobs: usize, kib: usize, arguments: &str) {
    db.execute(&format!(
        "with text as materialized (
           select string_agg(md5(random()::text), '') as text from generate_series(1, {kib} * 1024 / 32))
         select graphile_worker.add_job('{task}', to_json(n || text) {arguments})
           from text, generate_series(1, {jobs}) n"
    ));
}

/// The same, with payloads that PostgreSQL compresses to a hundredth of their size.
fn add_compressible(db: &TestDb, task: &str, jobs: usize, kib: usize) {
    db.execute(&format!(
        "select graphile_worker.add_job('{task}', to_json(n || repeat('x', {kib} * 1024)))
           from generate_series(1, {jobs}) n"
    ));
}

#[test]
fn urgent_jobs_overtake_payloads_slower_than_the_deadline() {
    let db = TestDb::new();
    let tally = Tally::default();
    db.execute("select graphile_worker.add_job('work') from generate_series(1, 600)");
    add(&db, "work", 120, 256, "");
    let proxy = Proxy::to_server_of(&db.url());
    proxy.limit(4 * KIB * KIB);
    let (counting, left_at_urgent) = (tally.clone(), Arc::new(AtomicUsize::new(0)));
    let left = left_at_urgent.clone();
    let options = db.worker().database_url(&proxy.url(&db.url())).database_timeout(DEADLINE);
    let options = options.define_raw_job("work", move |ctx: WorkerContext| counting.count(ctx.job().id()));
    let counting = tally.clone();
    let options = options.define_raw_job("urgent", move |_| left.store(720 - counting.jobs(), Ordering::SeqCst));
    let running = Running::start(options);
    eventually(LATE, || tally.jobs() >= 605);
    db.add("'urgent', priority => -1");
    eventually(LATE, || db.jobs() == 0);
    assert_eq!((tally.jobs(), tally.repeated()), (720, vec![]));
    assert!(left_at_urgent.load(Ordering::SeqCst) > 0, "the urgent job ran last");
    let stats = running.worker.stats();
    assert_eq!((stats.lost, stats.failed), (0, 0), "{stats:?}");
}

#[test]
fn a_payload_is_read_past_the_deadline_while_bytes_arrive() {
    let db = TestDb::new();
    let (tally, size) = (Tally::default(), Arc::new(AtomicUsize::new(0)));
    add(&db, "work", 1, 12 * KIB, "");
    let proxy = Proxy::to_server_of(&db.url());
    proxy.limit(2 * KIB * KIB);
    let (counting, sink) = (tally.clone(), size.clone());
    let options = db.worker().database_url(&proxy.url(&db.url())).database_timeout(DEADLINE);
    let running = Running::start(options.define_raw_job("work", move |ctx: WorkerContext| {
        sink.store(ctx.payload().len(), Ordering::SeqCst);
        counting.count(ctx.job().id());
    }));
    eventually(LATE, || db.jobs() == 0);
    assert_eq!((tally.runs(), running.worker.stats().lost), (1, 0));
    assert_eq!(size.load(Ordering::SeqCst), 12 * KIB * KIB + 3);
}

#[test]
fn held_payloads_stay_within_the_budget() {
    for compressible in [false, true] {
        let db = TestDb::new();
        match compressible {
            true => add_compressible(&db, "work", 100, 100),
            false => add(&db, "work", 100, 100, ""),
        }
        let tally = Tally::default();
        let (release, wait) = bounded::<()>(0);
        let counting = tally.clone();
        let queue = LocalQueueConfig::default().with_size(100);
        let options = db.worker().concurrency(1).local_queue(queue).max_held_bytes(1000 * KIB);
        let running = Running::start(options.define_raw_job("work", move |ctx: WorkerContext| {
            counting.count(ctx.job().id());
            let _ = wait.recv_timeout(LATE);
        }));
        // Some are held and one runs: the others, about ninety, were given back.
        let mut locked = 0;
        eventually(SOON, || {
            let stats = running.worker.stats();
            locked = db.locks();
            stats.held >= 5 && stats.held + stats.running == stats.in_flight && locked == stats.in_flight as i64
        });
        assert!(locked <= 11, "{locked} jobs are locked, compressible: {compressible}");
        drop(release);
        eventually(LATE, || db.jobs() == 0);
        assert_eq!((tally.jobs(), tally.repeated()), (100, vec![]));
        assert_eq!(running.worker.stats().lost, 0);
    }
}

#[test]
fn a_job_that_is_larger_than_the_budget_runs() {
    let db = TestDb::new();
    let tally = Tally::default();
    add(&db, "work", 5, 100, "");
    db.execute("select graphile_worker.add_job('work') from generate_series(1, 100)");
    let counting = tally.clone();
    let options = db.worker().max_held_bytes(1);
    let worker = options.define_raw_job("work", move |ctx: WorkerContext| counting.count(ctx.job().id()));
    worker.init().unwrap().run_once().unwrap();
    assert_eq!((tally.jobs(), tally.repeated(), db.jobs()), (105, vec![], 0));
}

#[test]
fn large_and_small_jobs_run_in_their_order() {
    let db = TestDb::new();
    for n in 1..=40 {
        let kib = if n % 4 == 0 { 100 } else { 0 };
        add(&db, "work", 1, kib, &format!(", priority => {n}"));
    }
    let order: Arc<Mutex<Vec<i16>>> = Arc::default();
    let sink = order.clone();
    let options = db.worker().concurrency(1).local_queue(LocalQueueConfig::default());
    let options = options.define_raw_job("work", move |ctx: WorkerContext| {
        let size = ctx.payload().len();
        assert!(if ctx.job().priority() % 4 == 0 { size > 100 * KIB } else { size < 10 });
        sink.lock().unwrap().push(ctx.job().priority());
    });
    options.init().unwrap().run_once().unwrap();
    assert_eq!(*order.lock().unwrap(), (1..=40).collect::<Vec<_>>());
    assert_eq!(db.jobs(), 0);
}

#[test]
fn an_unreadable_payload_is_named_and_delays_no_other_job() {
    let db = TestDb::new();
    drop(log_lines());
    let tally = Tally::default();
    add(&db, "work", 1, 300, ", priority => -1");
    let bad: i64 = db.one("select id from graphile_worker._private_jobs");
    db.execute("select graphile_worker.add_job('work') from generate_series(1, 50)");
    let proxy = Proxy::to_server_of(&db.url());
    proxy.drop_reply_to(usize::MAX, |sent| sent.sql.starts_with("-- The payloads of jobs"));
    let counting = tally.clone();
    let options = db.worker().database_url(&proxy.url(&db.url()));
    let running =
        Running::start(options.define_raw_job("work", move |ctx: WorkerContext| counting.count(ctx.job().id())));
    eventually(LATE, || db.jobs() == 1 && db.locks() == 0);
    assert_eq!((tally.jobs(), tally.repeated()), (50, vec![]));
    let waits = format!("select run_at > now() and attempts = 0 from graphile_worker._private_jobs where id = {bad}");
    assert!(db.one::<bool>(&waits), "the job waits, and its attempt does not count");
    let worker_id = running.worker.worker_id().unwrap();
    let said = |text: &str| log_lines().iter().any(|line| line.of == worker_id && line.text.contains(text));
    assert!(said("the payload of a job cannot be read"));
    proxy.drop_reply_to(0, |_| false);
    db.execute("update graphile_worker._private_jobs set run_at = now()");
    eventually(LATE, || db.jobs() == 0);
    assert_eq!((tally.jobs(), tally.repeated()), (51, vec![]));
}

#[test]
fn a_job_whose_payload_is_being_read_is_left_alone() {
    let db = TestDb::new();
    let tally = Tally::default();
    add(&db, "work", 1, 6 * KIB, "");
    let proxy = Proxy::to_server_of(&db.url());
    proxy.limit(2 * KIB * KIB);
    let counting = tally.clone();
    let beats = WorkerRecoveryConfig::default().heartbeat_interval(Duration::from_millis(20));
    let options = db.worker().database_url(&proxy.url(&db.url())).worker_recovery(beats);
    let running =
        Running::start(options.define_raw_job("work", move |ctx: WorkerContext| counting.count(ctx.job().id())));
    let mut kills = 0;
    eventually(LATE, || {
        if running.worker.stats().claimed > 0 && tally.jobs() == 0 {
            // A failed heartbeat makes lease compare the worker's jobs with the database.
            kills += db.backends("lease").into_iter().filter(|&pid| db.terminate(pid)).count();
            std::thread::sleep(Duration::from_millis(200));
        }
        db.jobs() == 0
    });
    let stats = running.worker.stats();
    assert!(kills >= 2, "lease had to reconcile only {kills} times");
    assert_eq!((tally.runs(), stats.lost, stats.reconciled), (1, 0, 0), "{stats:?}");
}

#[test]
fn a_stop_gives_back_jobs_whose_payloads_were_not_read() {
    const GRACE: Duration = Duration::from_millis(500);
    let db = TestDb::new();
    let tally = Tally::default();
    add(&db, "work", 40, 512, "");
    let proxy = Proxy::to_server_of(&db.url());
    proxy.limit(4 * KIB * KIB);
    let counting = tally.clone();
    let options = db.worker().database_url(&proxy.url(&db.url())).shutdown_grace_period(GRACE);
    let options = options.local_queue(LocalQueueConfig::default());
    let running =
        Running::start(options.define_raw_job("work", move |ctx: WorkerContext| counting.count(ctx.job().id())));
    eventually(LATE, || tally.jobs() > 0);
    let (result, _) = running.stop();
    result.unwrap();
    // A server process notices that its call was given up only when it goes on sending.
    eventually(SOON, || db.locks() == 0);
    assert_eq!(db.jobs() as usize + tally.jobs(), 40);
    assert_eq!(db.one::<i64>("select coalesce(sum(attempts), 0)::bigint from graphile_worker._private_jobs"), 0);
}

#[test]
fn long_failures_are_written_over_a_slow_link() {
    const JOBS: usize = 400;
    let db = TestDb::new();
    db.execute(&format!("select graphile_worker.add_job('work', max_attempts => 1) from generate_series(1, {JOBS})"));
    let proxy = Proxy::to_server_of(&db.url());
    proxy.limit(4 * KIB * KIB);
    let options = db.worker().database_url(&proxy.url(&db.url())).database_timeout(DEADLINE);
    let options = options.fail_job_batch_delay(Duration::from_secs(1));
    let running = Running::start(options.define_raw_job("work", |_| Err("x".repeat(64 * KIB))));
    eventually(LATE, || running.worker.stats().failed == JOBS as u64);
    let stats = running.worker.stats();
    assert_eq!(stats.lost, 0, "{stats:?}");
    // A statement writes about a megabyte.
    assert!(stats.settle_sizes.max() <= 17, "{stats:?}");
    let written = "select count(*) from graphile_worker._private_jobs where length(last_error) = 65536";
    assert_eq!(db.one::<i64>(written), JOBS as i64);
}

#[test]
fn many_large_jobs_are_added_over_a_slow_link() {
    let db = TestDb::new();
    let proxy = Proxy::to_server_of(&db.url());
    let utils = graphile_worker::WorkerUtils::connect(&proxy.url(&db.url())).unwrap().timeout(Duration::from_secs(1));
    proxy.limit(8 * KIB * KIB);
    let payload = serde_json::json!("x".repeat(512 * KIB)).to_string();
    let job = RawJob { identifier: "work".into(), payload, spec: JobSpec::new() };
    assert_eq!(utils.add_raw_jobs(vec![job; 16]).unwrap().len(), 16);
    assert_eq!(db.jobs(), 16);
}

#[test]
fn large_jobs_are_listed_over_a_slow_link() {
    let db = TestDb::new();
    add(&db, "work", 40, 512, "");
    let proxy = Proxy::to_server_of(&db.url());
    let utils = graphile_worker::WorkerUtils::connect(&proxy.url(&db.url())).unwrap().timeout(DEADLINE);
    proxy.limit(4 * KIB * KIB);
    assert_eq!(utils.list_jobs(&ListJobsOptions::default()).unwrap().len(), 40);
}

#[test]
fn a_budget_of_zero_is_refused() {
    let options = WorkerOptions::default().max_held_bytes(0).define_raw_job("t", |_| ());
    assert_eq!(options.init().err().unwrap().to_string(), "max_held_bytes: 0 is fewer than 1");
}
