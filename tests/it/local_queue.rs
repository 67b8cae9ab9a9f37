//! Jobs held ahead and outcomes written in batches, with sizes and delays that the caller sets.

use crate::harness::{Running, SOON, Tally, TestDb, eventually};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use graphile_worker::*;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A task `t` whose handlers wait until the sender sends or is dropped.
fn slow(options: WorkerOptions) -> (WorkerOptions, Sender<()>) {
    let (release, wait): (Sender<()>, Receiver<()>) = bounded(0);
    (options.define_raw_job("t", move |_| _ = wait.recv_timeout(SOON)), release)
}

fn add(db: &TestDb, jobs: usize, more: &str) {
    db.execute(&format!("select graphile_worker.add_job('t'{more}) from generate_series(1, {jobs})"));
}

#[test]
fn a_fixed_local_queue_holds_its_size_and_a_stop_returns_it() {
    let db = TestDb::new();
    add(&db, 100, "");
    let queue = LocalQueueConfig::default().with_size(7);
    let (options, release) = slow(db.worker().concurrency(1).local_queue(queue));
    let running = Running::start(options);
    eventually(SOON, || running.worker.stats().running == 1 && running.worker.stats().held >= 4);
    assert!(running.worker.stats().held <= 7, "{:?}", running.worker.stats());
    drop(release);
    eventually(SOON, || db.jobs() == 0);
    running.stop().0.unwrap();

    add(&db, 30, "");
    let queue = LocalQueueConfig::default().with_size(7).with_queue_count(2);
    let (options, release) = slow(db.worker().concurrency(2).local_queue(queue));
    let running = Running::start(options);
    eventually(SOON, || running.worker.stats().running == 2 && running.worker.stats().held >= 7);
    assert!(running.worker.stats().held <= 14, "{:?}", running.worker.stats());
    running.worker.request_shutdown();
    eventually(SOON, || db.locks() == 2);
    drop(release);
    running.stop().0.unwrap();
    let unused = "select count(*) from graphile_worker._private_jobs where attempts = 0 and locked_at is null";
    assert_eq!((db.one::<i64>(unused), db.jobs()), (28, 28));
}

#[test]
fn jobs_held_longer_than_the_ttl_are_given_back() {
    let db = TestDb::new();
    add(&db, 10, "");
    let queue = LocalQueueConfig::default().with_ttl(Duration::from_millis(200));
    let start = Instant::now();
    let options = db.worker().concurrency(1).poll_interval(Duration::from_secs(3600)).local_queue(queue);
    let (options, release) = slow(options);
    let running = Running::start(options);
    eventually(SOON, || db.locks() == 10);
    eventually(SOON, || db.locks() == 1);
    assert!(start.elapsed() >= Duration::from_millis(200));
    eventually(SOON, || running.worker.stats().returned == 9);
    assert_eq!(db.one::<i64>("select count(*) from graphile_worker.jobs where attempts = 0"), 9, "unspent");
    drop(release);
}

#[test]
fn jobs_fetched_ahead_are_given_back_if_every_thread_is_busy() {
    let db = TestDb::new();
    // The first jobs are quick, so the worker holds more of them; then both threads block.
    db.add_many(1000, "'t', to_json(n > 400), null, null, null, null, null, null");
    let (release, wait) = bounded::<()>(0);
    let options = db.worker().concurrency(2).poll_interval(Duration::from_secs(3600));
    let running = Running::start(options.define_raw_job("t", move |ctx: WorkerContext| {
        if ctx.payload() == b"true" {
            _ = wait.recv_timeout(SOON);
        }
    }));
    eventually(SOON, || running.worker.stats().running == 2 && running.worker.stats().returned > 0);
    eventually(SOON, || db.locks() == 2);
    assert_eq!(db.one::<i64>("select count(*) from graphile_worker.jobs where attempts = 0"), 598, "unspent");
    drop(release);
}

/// Runs the worker until no job is due, on a separate thread. The receiver gets the result of `run_once`.
fn run_once(worker: &Arc<Worker>) -> Receiver<Result<()>> {
    let (ended, wait) = bounded(1);
    let worker = worker.clone();
    std::thread::spawn(move || ended.send(worker.run_once()));
    wait
}

/// Tasks `t`, which ends at once, and `slow`, whose handlers wait for the sender.
fn slow_and_quick(options: WorkerOptions) -> (Arc<Worker>, Sender<()>) {
    let (release, wait): (Sender<()>, Receiver<()>) = bounded(0);
    let options = options.define_raw_job("slow", move |_| _ = wait.recv_timeout(3 * SOON));
    (Arc::new(options.define_raw_job("t", |_| ()).init().unwrap()), release)
}

#[test]
fn run_once_runs_returned_jobs_on_the_next_idle_thread() {
    let db = TestDb::new();
    db.execute("select graphile_worker.add_job('slow') from generate_series(1, 2)");
    db.execute("select graphile_worker.add_job('t', priority => 1) from generate_series(1, 3)");
    let queue = LocalQueueConfig::default().with_ttl(Duration::from_millis(100));
    let (worker, release) = slow_and_quick(db.worker().concurrency(2).local_queue(queue));
    let ended = run_once(&worker);
    eventually(SOON, || worker.stats().returned == 3);
    release.send(()).unwrap();
    // `run_once` does not listen for notifications, and does not poll while a job is held or runs.
    eventually(SOON, || db.jobs() == 1);
    release.send(()).unwrap();
    ended.recv_timeout(SOON).unwrap().unwrap();
}

#[test]
fn a_lost_held_job_does_not_keep_run_once_waiting() {
    let db = TestDb::new();
    let queue = LocalQueueConfig::default().with_ttl(Duration::from_secs(1));
    let beats = WorkerRecoveryConfig::default().heartbeat_interval(Duration::from_millis(20));
    let options = db.worker().concurrency(1).local_queue(queue).worker_recovery(beats);
    let (worker, release) = slow_and_quick(options);
    db.add("'slow'");
    let lost = db.add("'t', priority => 1");
    db.add("'t', priority => 2");
    let ended = run_once(&worker);
    eventually(SOON, || worker.stats().held == 2);
    let far = "locked_by = null, locked_at = null, run_at = now() + interval '1 day'";
    db.execute(&format!("update graphile_worker._private_jobs set {far} where id = {lost}"));
    // A failed heartbeat makes lease compare the worker's jobs with the database.
    db.backends("lease").into_iter().for_each(|pid| _ = db.terminate(pid));
    eventually(SOON, || worker.stats().lost == 1);
    eventually(SOON, || worker.stats().returned == 1);
    release.send(()).unwrap();
    ended.recv_timeout(SOON).unwrap().unwrap();
}

/// Records the events of a local queue.
fn observed(options: WorkerOptions) -> (WorkerOptions, Receiver<String>) {
    let (notes, heard) = unbounded();
    let note = || {
        let notes = notes.clone();
        move |text: String| _ = notes.send(text)
    };
    let (init, mode, came, back) = (note(), note(), note(), note());
    let (pause, abort, expired) = (note(), note(), note());
    let options = options
        .on(LocalQueueInit, move |_| init("init".into()))
        .on(LocalQueueSetMode, move |ctx| mode(format!("{:?} to {:?}", ctx.old_mode, ctx.new_mode)))
        .on(LocalQueueGetJobsComplete, move |ctx| came(format!("{} came", ctx.jobs_count)))
        .on(LocalQueueReturnJobs, move |ctx| back(format!("{} went back", ctx.jobs_count)))
        .on(LocalQueueRefetchDelayStart, move |ctx| pause(format!("pause, at most {} came", ctx.threshold)))
        .on(LocalQueueRefetchDelayAbort, move |ctx| abort(format!("abort at {}", ctx.abort_threshold)))
        .on(LocalQueueRefetchDelayExpired, move |_| expired("goes on".into()));
    (options, heard)
}

/// Waits for these notes in this order; other notes may come between them.
#[track_caller]
fn hears(heard: &Receiver<String>, words: &[&str]) {
    for word in words {
        while heard.recv_timeout(SOON).unwrap_or_else(|_| panic!("no note {word:?}")) != *word {}
    }
}

#[test]
fn observers_see_the_events_of_a_fixed_local_queue() {
    let db = TestDb::new();
    let delay = RefetchDelayConfig::default().with_threshold(1).with_max_abort_threshold(1);
    let queue = |delay| LocalQueueConfig::default().with_size(3).with_refetch_delay(delay);
    let worker = || db.worker().concurrency(1).poll_interval(Duration::from_secs(3600));

    let short = queue(delay.clone().with_duration(Duration::from_millis(1))).with_ttl(Duration::from_millis(100));
    let (options, heard) = observed(worker().local_queue(short));
    let (options, release) = slow(options);
    add(&db, 3, "");
    let running = Running::start(options);
    hears(&heard, &["init", "Starting to Polling", "3 came", "Polling to Waiting", "2 went back"]);
    hears(&heard, &["Waiting to TtlExpired"]);
    // The next poll is an hour away, so the returned jobs must be in the database before the next claim.
    eventually(SOON, || db.locks() == 1);
    drop(release);
    hears(&heard, &["TtlExpired to Polling", "pause, at most 1 came", "goes on"]);
    eventually(SOON, || db.jobs() == 0);
    running.stop().0.unwrap();
    hears(&heard, &["Polling to Released"]);

    let long = queue(delay.with_duration(Duration::from_secs(3600)));
    let (options, heard) = observed(worker().local_queue(long).define_raw_job("t", |_| ()));
    let running = Running::start(options);
    eventually(SOON, || running.worker.stats().listener == ListenerState::Listening);
    // The start of the listener may cause a second claim after the first; wait for both, so that neither takes the job.
    let mut came = 0;
    eventually(SOON, || {
        came += heard.try_iter().filter(|note| note == "0 came").count() as u64;
        came > 0 && came == running.worker.stats().claims
    });
    add(&db, 1, "");
    hears(&heard, &["abort at 1", "1 came"]);
}

#[test]
fn a_local_queue_never_locks_jobs_with_forbidden_flags() {
    let db = TestDb::new();
    add(&db, 5, ", flags => array['big']");
    add(&db, 5, "");
    let options = db.worker().add_forbidden_flag("big").local_queue(LocalQueueConfig::default());
    let running = Running::start(options.define_raw_job("t", |_| ()));
    eventually(SOON, || db.jobs() == 5);
    assert_eq!(db.locks(), 0);
    assert_eq!(running.worker.stats().claimed, 5);
}

const LONG: Duration = Duration::from_secs(10);

/// Measures how long a job waits that is added right after the worker's first, empty claim.
fn wait_of_a_job(delay: Option<RefetchDelayConfig>) -> Duration {
    let db = TestDb::new();
    let queue = LocalQueueConfig::default();
    let queue = match delay {
        Some(delay) => queue.with_refetch_delay(delay),
        None => queue,
    };
    let options = db.worker().poll_interval(LONG).local_queue(queue);
    let _running = Running::start(options.define_raw_job("t", |_| ()));
    // The wakes that the start itself causes have been handled, or are delayed too.
    let has_claimed = "select count(*) > 0 from pg_stat_activity where application_name = 'graphile-worker:fetch' and state = 'idle' and query like '-- Claims%'";
    eventually(SOON, || !db.backends("listen").is_empty() && db.one::<bool>(has_claimed));
    std::thread::sleep(Duration::from_millis(100));
    let start = Instant::now();
    add(&db, 1, "");
    eventually(LONG + SOON, || db.jobs() == 0);
    start.elapsed()
}

#[test]
fn a_refetch_delay_delays_claims_until_it_ends_or_is_aborted() {
    let long = || RefetchDelayConfig::default().with_duration(LONG);
    // The delay lasts at least half of its duration, from the claim before the job was added.
    assert!(wait_of_a_job(Some(long())) >= LONG / 4);
    assert!(wait_of_a_job(Some(long().with_max_abort_threshold(1))) < LONG / 2);
    assert!(wait_of_a_job(None) < LONG / 2);
}

#[test]
fn completions_are_batched_for_the_set_delay() {
    let db = TestDb::new();
    add(&db, 20, ", queue_name => null");
    let start = Instant::now();
    let options = db.worker().complete_job_batch_delay(Duration::from_millis(700));
    let worker = options.define_raw_job("t", |_| ()).init().unwrap();
    worker.run_once().unwrap();
    assert!(start.elapsed() >= Duration::from_millis(700));
    assert_eq!((worker.stats().settlements, worker.stats().completed), (1, 20));
}

#[test]
fn failures_are_batched_for_the_set_delay() {
    let db = TestDb::new();
    add(&db, 20, "");
    let options = db.worker().fail_job_batch_delay(Duration::from_millis(700));
    let worker = options.define_raw_job("t", |_| Err("boom")).init().unwrap();
    worker.run_once().unwrap();
    assert_eq!((worker.stats().settlements, worker.stats().failed), (1, 20));
}

#[test]
fn a_stop_writes_batched_outcomes_at_once() {
    let db = TestDb::new();
    add(&db, 5, "");
    let options = db.worker().complete_job_batch_delay(Duration::from_secs(60)).define_raw_job("t", |_| ());
    let running = Running::start(options);
    eventually(SOON, || {
        let stats = running.worker.stats();
        stats.in_flight == 5 && stats.held == 0 && stats.running == 0
    });
    let (result, took) = running.stop();
    result.unwrap();
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(db.jobs(), 0);
}

#[test]
fn options_out_of_range_are_refused_by_name_and_limit() {
    let db = TestDb::new();
    let refused = |options: WorkerOptions| options.define_raw_job("t", |_| ()).init().err().unwrap().to_string();
    let long = Duration::from_secs(61);
    assert_eq!(refused(db.worker().complete_job_batch_delay(long)), "complete_job_batch_delay: 61s is longer than 60s");
    assert_eq!(refused(db.worker().fail_job_batch_delay(long)), "fail_job_batch_delay: 61s is longer than 60s");
    let empty = LocalQueueConfig::default().with_size(0);
    assert_eq!(refused(db.worker().local_queue(empty)), "local_queue: size 0 is outside 1 to 2147483647");
}

#[test]
fn jobs_of_workers_with_a_local_queue_of_any_size_run_once() {
    for size in [1, 500] {
        let db = TestDb::new();
        let tally = Tally::default();
        let start = || {
            let (tally, queue) = (tally.clone(), LocalQueueConfig::default().with_size(size));
            let options = db.worker().local_queue(queue);
            Running::start(options.define_raw_job("t", move |ctx: WorkerContext| tally.count(ctx.job().id())))
        };
        let workers = [start(), start(), start()];
        add(&db, 600, "");
        eventually(SOON, || db.jobs() == 0);
        assert_eq!((tally.jobs(), tally.repeated(), db.locks()), (600, vec![], 0), "size {size}");
        drop(workers);
    }
}

#[test]
fn jobs_that_end_during_the_last_write_of_a_stop_are_written() {
    let db = TestDb::new();
    let tally = Tally::default();
    for stop in 1..=5 {
        let counting = tally.clone();
        add(&db, 300, "");
        let options = db.worker().concurrency(16).complete_job_batch_delay(Duration::from_millis(30));
        let running = Running::start(options.define_raw_job("t", move |ctx: WorkerContext| {
            std::thread::sleep(Duration::from_millis(ctx.job().id() as u64 % 20));
            counting.count(ctx.job().id());
        }));
        let before = tally.jobs();
        eventually(SOON, || tally.jobs() > before + 40);
        running.stop().0.unwrap();
        assert_eq!((db.jobs() as usize + tally.jobs(), tally.repeated()), (stop * 300, vec![]), "stop {stop}");
        assert_eq!(db.locks(), 0, "stop {stop}");
    }
}

#[test]
fn run_once_with_batched_completions_runs_all_of_a_queue() {
    let db = TestDb::new();
    add(&db, 10, ", queue_name => 'q'");
    let options = db.worker().complete_job_batch_delay(Duration::from_millis(20));
    options.define_raw_job("t", |_| ()).init().unwrap().run_once().unwrap();
    assert_eq!((db.jobs(), db.locks()), (0, 0));
}
