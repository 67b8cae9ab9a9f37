//! Database faults during work: killed and stopped backends, a paused server, lost locks. Work goes on; no job is lost
//! or runs twice, and no lock stays.

use crate::harness::{Frozen, Running, SOON, Tally, TestDb, eventually, log_lines};
use crossbeam_channel::bounded;
use graphile_worker::{ErrorKind, JobSpec, WorkerContext, WorkerOptions};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(1);

/// Runs jobs of 5 ms, a fourth of them in ten queues. Each job counts its runs and checks that jobs of its queue do not
/// overlap.
struct Work {
    tally: Tally,
    overlapped: Arc<AtomicBool>,
}

impl Work {
    fn new() -> Self {
        Self { tally: Tally::default(), overlapped: Arc::default() }
    }

    fn add(db: &TestDb, jobs: usize) {
        db.execute(&format!(
            "select graphile_worker.add_job('work', queue_name => case when n % 4 = 0 then 'q' || n % 10 end)
               from generate_series(1, {jobs}) n"
        ));
    }

    fn options(&self, options: WorkerOptions) -> WorkerOptions {
        let (tally, overlapped, busy) = (self.tally.clone(), self.overlapped.clone(), Mutex::new(HashSet::new()));
        options.database_timeout(DEADLINE).define_raw_job("work", move |ctx: WorkerContext| {
            let queue = ctx.job().job_queue_id();
            if queue.is_some_and(|queue| !busy.lock().unwrap().insert(queue)) {
                overlapped.store(true, Ordering::SeqCst);
            }
            tally.count(ctx.job().id());
            // A handler's connection may break; the handler must deal with the error.
            let _ = ctx.connection().and_then(|mut connection| Ok(connection.execute("select pg_sleep(0.001)", &[])?));
            thread::sleep(Duration::from_millis(4));
            queue.map(|queue| busy.lock().unwrap().remove(&queue));
        })
    }

    #[track_caller]
    fn check(&self, db: &TestDb, jobs: usize) {
        assert_eq!((self.tally.jobs(), self.tally.repeated()), (jobs, vec![]));
        assert!(!self.overlapped.load(Ordering::SeqCst), "two jobs of one queue ran at once");
        assert_eq!((db.jobs(), db.locks()), (0, 0));
    }
}

#[test]
fn killed_backends_of_every_role_cost_no_job() {
    const KILLS: usize = 12;
    let (db, work) = (TestDb::new(), Work::new());
    Work::add(&db, 1000);
    let mut added = 1000;
    let running = Running::start(work.options(db.worker()));
    let start = Instant::now();
    let mut kills = HashMap::new();
    for _ in 0..KILLS {
        for role in ["listen", "handler", "fetch", "settle", "lease"] {
            let mut pids = Vec::new();
            // Each fault needs running jobs, and work must have recovered from the fault before.
            if db.jobs() < 300 {
                Work::add(&db, 300);
                added += 300;
            }
            let before = work.tally.jobs();
            eventually(SOON, || work.tally.jobs() > before + 20);
            eventually(SOON, || {
                pids = db.backends(role);
                !pids.is_empty()
            });
            if db.terminate(pids[0]) {
                *kills.entry(role).or_insert(0) += 1;
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
    assert!(start.elapsed() >= Duration::from_secs(10), "{:?} is too short a storm", start.elapsed());
    assert!(kills.len() == 5 && kills.values().all(|&kills| kills >= 10), "{kills:?}");
    // If a kill interrupted a reconcile, the worker may have to wait for the next one.
    eventually(2 * SOON, || db.jobs() == 0);
    work.check(&db, added);
    let stats = running.worker.stats();
    assert!(stats.lost == 0 && stats.failed == 0 && stats.database_errors > 0, "{stats:?}");
    running.stop().0.unwrap();
}

/// Stops a backend of this role between two statements. A backend stopped within a statement might hold locks that no
/// other session can take from it.
fn freeze_between_statements(db: &TestDb, role: &str) -> (i32, Frozen) {
    let mut frozen = None;
    eventually(SOON, || {
        let Some(&pid) = db.backends(role).first() else { return false };
        let candidate = Frozen::new(pid);
        let idle = db.one_with::<bool>(
            // ClientRead: a backend that is between statements, but still updates its statistics, may hold unnamed
            // locks.
            "select wait_event is not distinct from 'ClientRead' and not exists (select from pg_locks where pid = $1)
               from pg_stat_activity where pid = $1",
            &[&pid],
        );
        if idle {
            frozen = Some((pid, candidate));
        }
        idle
    });
    frozen.expect("the backend became idle")
}

#[test]
fn work_goes_on_while_a_backend_of_any_role_is_stopped() {
    let (db, work) = (TestDb::alone(), Work::new());
    // Few connections give each role one session; a second fetch session could avoid the fault.
    let running = Running::start(work.options(db.worker().max_pg_conn(8)));
    let mut added = 0;
    for role in ["listen", "fetch", "settle", "lease"] {
        Work::add(&db, 200);
        added += 200;
        // Lease connects when it needs its session.
        while role == "lease" && db.backends(role).is_empty() {
            db.backends("fetch").first().map(|&pid| db.terminate(pid));
            thread::sleep(Duration::from_millis(50));
        }
        let before = work.tally.jobs();
        eventually(SOON, || work.tally.jobs() > before + 20);
        let (pid, frozen) = freeze_between_statements(&db, role);
        if role == "lease" {
            // Killing fetch's session makes the worker ask lease for a reconcile.
            db.terminate(db.backends("fetch")[0]);
        }
        Work::add(&db, 100);
        added += 100;
        eventually(SOON, || db.jobs() == 0);
        drop(frozen);
        if role != "listen" {
            eventually(SOON, || !db.backends(role).contains(&pid));
        }
        work.check(&db, added);
    }
    let stats = running.worker.stats();
    assert!(stats.lost == 0 && stats.failed == 0, "{stats:?}");
}

#[test]
fn a_stop_is_in_time_and_unlocks_all_with_a_stopped_backend() {
    const GRACE: Duration = Duration::from_millis(600);
    let db = TestDb::alone();
    for role in ["fetch", "settle", "lease"] {
        let work = Work::new();
        // Without queues no second statement follows a claim, between which the backend could be stopped.
        db.execute("select graphile_worker.add_job('work') from generate_series(1, 1000)");
        let options = work.options(db.worker()).database_timeout(Duration::from_secs(10)).shutdown_grace_period(GRACE);
        let running = Running::start(options);
        eventually(SOON, || work.tally.jobs() > 20);
        while role == "lease" && db.backends(role).is_empty() {
            db.backends("fetch").first().map(|&pid| db.terminate(pid));
            thread::sleep(Duration::from_millis(50));
        }
        let (_pid, frozen) = freeze_between_statements(&db, role);
        let ran = work.tally.jobs();
        match role {
            // A claim waits for the stopped backend, and no other work is left.
            "fetch" => eventually(SOON, || {
                let stats = running.worker.stats();
                stats.held + stats.running == 0 && stats.claimed == stats.completed + stats.returned
            }),
            // Outcomes wait for the stopped backend.
            "settle" => eventually(SOON, || work.tally.jobs() > ran + 4),
            _ => {}
        }
        let (result, took) = running.stop();
        result.unwrap();
        assert!(took < GRACE + Duration::from_secs(1), "{role}: {took:?}");
        drop(frozen);
        eventually(SOON, || ["fetch", "settle", "lease"].iter().all(|role| db.backends(role).is_empty()));
        assert_eq!(db.locks(), 0, "{role}");
        assert_eq!(work.tally.repeated(), [0; 0]);
        assert_eq!(db.jobs() as usize + work.tally.jobs(), 1000, "{role}: a job either ran or is still in the table");
        db.execute("delete from graphile_worker._private_jobs");
    }
}

#[test]
fn a_stopped_pool_backend_delays_an_enqueue_up_to_its_deadline() {
    let db = TestDb::alone();
    let utils = db.utils().timeout(DEADLINE);
    utils.add_raw_job("t", &1, JobSpec::new()).unwrap();
    let limit = DEADLINE + Duration::from_millis(200);

    // Stopped between two calls: the pool uses another connection.
    let (_, frozen) = freeze_between_statements(&db, "handler");
    let start = Instant::now();
    let answer = utils.add_raw_job("t", &2, JobSpec::new());
    assert!(start.elapsed() < limit, "{:?}", start.elapsed());
    answer.unwrap();
    drop(frozen);
    assert_eq!(db.jobs(), 2);

    // Stopped within a call: its transaction is never committed, even after the server resumes.
    for key in [None, Some("k")] {
        let before = db.jobs();
        let mut locker = db.client();
        let mut lock = locker.transaction().unwrap();
        lock.batch_execute("lock table graphile_worker._private_jobs in share row exclusive mode").unwrap();
        let (adder, start) = (utils.clone(), Instant::now());
        let adding = thread::spawn(move || {
            let spec = key.map_or(JobSpec::new(), |key| JobSpec::new().job_key(key));
            (adder.add_raw_job("t", &3, spec), start.elapsed())
        });
        let waiting = "select pid from pg_stat_activity where application_name = 'graphile-worker:handler' and wait_event_type = 'Lock'";
        eventually(SOON, || !db.all::<i32>(waiting).is_empty());
        let frozen = Frozen::new(db.all::<i32>(waiting)[0]);
        let (answer, took) = adding.join().unwrap();
        assert!(took < limit, "{took:?}");
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::Timeout);
        drop(frozen);
        lock.rollback().unwrap();
        eventually(SOON, || {
            db.all::<i32>("select pid from pg_stat_activity where application_name = 'graphile-worker:handler' and state <> 'idle'").is_empty()
        });
        assert_eq!(db.jobs(), before);
    }
}

#[test]
fn a_worker_is_dropped_in_time_while_the_server_is_paused() {
    let db = TestDb::alone();
    let options = db.worker().concurrency(2).define_raw_job("t", |ctx: WorkerContext| {
        // The connection closes this prepared statement with its next message, which may be its last.
        ctx.connection().unwrap().execute("select pg_sleep(0.05)", &[]).unwrap();
    });
    db.execute("select graphile_worker.add_job('t') from generate_series(1, 4)");
    let worker = options.init().unwrap();
    worker.run_once().unwrap();
    assert!(!db.backends("handler").is_empty());
    db.server().pause().unwrap();
    let start = Instant::now();
    let dropping = thread::spawn(move || drop(worker));
    while !dropping.is_finished() && start.elapsed() < Duration::from_secs(1) {
        thread::sleep(Duration::from_millis(1));
    }
    let in_time = dropping.is_finished();
    db.server().resume().unwrap();
    assert!(in_time, "the drop waits for a server that does not reply");
    eventually(SOON, || db.backends("handler").is_empty());
}

#[test]
fn a_paused_server_causes_few_log_lines() {
    const PAUSE: Duration = Duration::from_secs(8);
    const GRACE: Duration = Duration::from_millis(500);
    let (db, work) = (TestDb::alone(), Work::new());
    drop(log_lines());
    Work::add(&db, 1500);
    let running = Running::start(work.options(db.worker()).shutdown_grace_period(GRACE));
    eventually(SOON, || work.tally.jobs() > 200);
    let worker_id = running.worker.worker_id().unwrap();
    let lines = || log_lines().iter().filter(|line| line.of == worker_id && line.text != "job completed").count();
    db.server().pause().unwrap();
    let before = lines();
    thread::sleep(PAUSE);
    let said = lines() - before;
    db.server().resume().unwrap();
    eventually(2 * SOON, || db.jobs() == 0);
    assert!(said <= 2 * PAUSE.as_secs() as usize, "{said} lines in {PAUSE:?}");
    work.check(&db, 1500);
    assert_eq!(running.worker.stats().lost, 0);

    Work::add(&db, 400);
    eventually(SOON, || work.tally.jobs() > 1600);
    db.server().pause().unwrap();
    // The error may name handlers that wait for the database.
    let (_, took) = running.stop();
    db.server().resume().unwrap();
    assert!(took < GRACE + Duration::from_secs(1), "{took:?}");
}

#[test]
fn the_last_value_of_a_key_runs_despite_races_with_workers() {
    let db = TestDb::new();
    drop(log_lines());
    let seen: Arc<Mutex<HashMap<String, u64>>> = Arc::default();
    let sink = seen.clone();
    let options = db.worker().define_raw_job("race", move |ctx: WorkerContext| {
        let value: u64 = ctx.job().payload_as().unwrap();
        let mut seen = sink.lock().unwrap();
        let newest = seen.entry(ctx.job().key().unwrap().to_owned()).or_default();
        *newest = value.max(*newest);
        drop(seen);
        thread::sleep(Duration::from_millis(1));
    });
    let _running = Running::start(options);
    let utils = db.utils();
    let end = Instant::now() + Duration::from_secs(6);
    let collisions = || {
        log_lines().iter().filter(|line| line.of.starts_with("race ") && line.text.contains("adding it again")).count()
    };
    // Collisions are random: run at least six seconds, and until there are at least 100.
    let over = Arc::new(AtomicBool::new(false));
    let adders: Vec<_> = (0..8)
        .map(|adder| {
            let (utils, over) = (utils.clone(), over.clone());
            thread::spawn(move || {
                let mut last = 0_u64;
                while !over.load(Ordering::SeqCst) {
                    last += 1;
                    for key in 0..10 {
                        let spec = JobSpec::new().job_key(format!("race {adder} {key}"));
                        // The second add meets the claim that the first one caused.
                        utils.add_raw_job("race", &(last - 1), spec.clone()).unwrap();
                        utils.add_raw_job("race", &last, spec).unwrap();
                    }
                }
                last
            })
        })
        .collect();
    eventually(12 * SOON, || Instant::now() >= end && collisions() >= 100);
    over.store(true, Ordering::SeqCst);
    let last: Vec<u64> = adders.into_iter().map(|adder| adder.join().unwrap()).collect();
    eventually(SOON, || db.jobs() == 0);
    let seen = seen.lock().unwrap();
    for (adder, last) in last.iter().enumerate() {
        for key in 0..10 {
            assert_eq!(seen.get(&format!("race {adder} {key}")), Some(last));
        }
    }
}

/// Starts a worker with one running job. The handler runs until the sender is dropped or the job is cancelled.
fn one_held_job(db: &TestDb, poll: Duration) -> (Running, crossbeam_channel::Sender<()>, Tally) {
    let (release, wait) = bounded::<()>(0);
    let tally = Tally::default();
    let counting = tally.clone();
    let options = db.worker().poll_interval(poll).define_raw_job("held", move |ctx: WorkerContext| {
        counting.count(ctx.job().id());
        while !ctx.is_cancelled() && wait.try_recv() == Err(crossbeam_channel::TryRecvError::Empty) {
            thread::sleep(Duration::from_millis(1));
        }
    });
    let running = Running::start(options);
    // After the listener has sent its probe, the claim that follows each new session is over.
    eventually(SOON, || {
        db.one(
            "select exists (select from pg_stat_activity where datname = current_database()
                 and application_name = 'graphile-worker:listen' and state = 'idle' and query like '%pg_notify%')",
        )
    });
    db.add("'held', queue_name => 'q'");
    eventually(SOON, || running.worker.stats().running == 1);
    (running, release, tally)
}

/// A claim that is on its way does not find the job: it is due only after `make_due`.
fn take_the_lock_away(db: &TestDb, running: &Running) {
    let worker_id = running.worker.worker_id().unwrap();
    db.execute(&format!(
        "update graphile_worker._private_jobs set run_at = now() + interval '1 day';
         select graphile_worker.force_unlock_workers(array['{worker_id}'])"
    ));
    assert_eq!(db.locks(), 0);
}

fn make_due(db: &TestDb) {
    db.execute("update graphile_worker._private_jobs set run_at = now(); notify \"jobs:insert\"");
}

#[test]
fn the_outcome_of_a_job_that_lost_its_lock_is_ignored() {
    let db = TestDb::new();
    let (running, release, tally) = one_held_job(&db, Duration::from_secs(3600));
    take_the_lock_away(&db, &running);
    drop(release);
    eventually(SOON, || running.worker.stats().lost == 1);
    // The completion changed no row, so the row is still there for another run.
    make_due(&db);
    eventually(SOON, || running.worker.stats().completed == 1);
    assert_eq!((tally.runs(), db.jobs(), running.worker.stats().lost), (2, 0, 1));
    assert_eq!(db.locks(), 0);
}

#[test]
fn a_job_claimed_again_cancels_its_handler_and_runs_after_it() {
    let db = TestDb::new();
    let (running, _release, tally) = one_held_job(&db, Duration::from_secs(3600));
    take_the_lock_away(&db, &running);
    make_due(&db);
    eventually(SOON, || running.worker.stats().lost == 1);
    eventually(SOON, || db.locks() == 0 && running.worker.stats().running == 0);
    assert_eq!(tally.runs(), 1, "never two runs at once");
    make_due(&db);
    eventually(SOON, || tally.runs() == 2);
}
