//! Series: a worker takes the next jobs of a named queue along, if they are quick, and runs them one after another.

use crate::harness::{Running, SOON, TestDb, eventually};
use graphile_worker::{SweepStaleWorkersOptions, WorkerContext, WorkerOptions};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const JOBS: i32 = 500;

/// A database with many jobs in one queue. The payloads are the numbers from 1. Each job has one attempt.
fn one_queue() -> TestDb {
    let db = TestDb::new();
    let run_at = "now() - interval '1 hour' + n * interval '1 second'";
    db.add_many(JOBS as usize, &format!("'t', to_json(n), 'q', {run_at}, 1, null, null, null"));
    db
}

/// What the handlers of a test have seen.
#[derive(Default)]
struct Seen {
    /// The payloads, in the order in which the jobs ran.
    order: Mutex<Vec<i32>>,
    /// Whether any attempt was not the first one.
    is_again: AtomicBool,
    /// The most jobs that were locked while one ran: that one and those behind it.
    most: AtomicUsize,
}

impl Seen {
    /// Records a job. Returns its number, and how many jobs are locked: this one and those behind it. Asks the database only
    /// for some jobs, because the others must be quick on a busy machine too, and returns 0 for those.
    fn note(&self, ctx: &WorkerContext) -> (i32, i64) {
        let number = ctx.job().payload_as().unwrap();
        self.order.lock().unwrap().push(number);
        self.is_again.fetch_or(ctx.job().attempts() != 1, Ordering::SeqCst);
        if number > 20 && number % 25 != 0 {
            return (number, 0);
        }
        let locked = "select count(*) from graphile_worker._private_jobs where locked_at is not null and id >= $1";
        let locked: i64 = ctx.connection().unwrap().query_one(locked, &[&ctx.job().id()]).unwrap().get(0);
        self.most.fetch_max(locked as usize, Ordering::SeqCst);
        (number, locked)
    }

    fn order(&self) -> Vec<i32> {
        self.order.lock().unwrap().clone()
    }
}

/// A worker whose task `t` records each job, and calls `then` with its number and the number of locked jobs.
fn worker(
    db: &TestDb,
    seen: &Arc<Seen>,
    then: impl Fn(i32, i64) -> Result<(), &'static str> + Send + Sync + 'static,
) -> WorkerOptions {
    let seen = seen.clone();
    db.worker().poll_interval(Duration::from_secs(3600)).define_raw_job("t", move |ctx: WorkerContext| {
        let (number, locked) = seen.note(&ctx);
        then(number, locked)
    })
}

/// Holds the first job with at least two jobs behind it in its handler, until it is released.
#[derive(Default)]
struct Hold {
    job: AtomicI32,
    released: AtomicBool,
}

impl Hold {
    /// A worker whose handler holds a job.
    fn worker(self: &Arc<Self>, db: &TestDb, seen: &Arc<Seen>) -> WorkerOptions {
        let hold = self.clone();
        worker(db, seen, move |number, locked| {
            if locked > 2 && hold.job.compare_exchange(0, number, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                while !hold.released.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            Ok(())
        })
    }

    /// The number of the held job; waits for it.
    fn job(&self) -> i32 {
        eventually(SOON * 6, || self.job.load(Ordering::SeqCst) > 0);
        self.job.load(Ordering::SeqCst)
    }

    fn release(&self) {
        self.released.store(true, Ordering::SeqCst);
    }
}

fn all() -> Vec<i32> {
    (1..=JOBS).collect()
}

#[test]
fn quick_jobs_of_a_queue_are_claimed_together_and_run_in_order() {
    let (db, seen) = (one_queue(), Arc::new(Seen::default()));
    let running = Running::start(worker(&db, &seen, |_, _| Ok(())));
    eventually(SOON * 6, || db.jobs() == 0);
    assert_eq!(seen.order(), all());
    assert!(seen.most.load(Ordering::SeqCst) > 2, "several are locked at once");
    let claims = running.worker.stats().claims;
    assert!(claims < JOBS as u64, "{claims} claims");
    drop(running);
    assert_eq!(db.locks(), 0);
}

#[test]
fn slow_jobs_of_a_queue_are_claimed_one_at_a_time() {
    let (db, seen) = (one_queue(), Arc::new(Seen::default()));
    let most = Arc::new(AtomicI64::new(0));
    let locks = most.clone();
    let slow = move |number, locked| {
        if number <= 20 {
            locks.fetch_max(locked, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(30));
        }
        Ok(())
    };
    let _running = Running::start(worker(&db, &seen, slow));
    eventually(SOON * 6, || seen.order().len() > 20);
    assert_eq!(most.load(Ordering::SeqCst), 1);
}

#[test]
fn a_failure_gives_back_the_jobs_behind_it_with_their_attempt() {
    let (db, seen) = (one_queue(), Arc::new(Seen::default()));
    let has_failed = AtomicBool::new(false);
    let fails = move |_, locked| match locked > 2 && !has_failed.swap(true, Ordering::SeqCst) {
        true => Err("refused"),
        false => Ok(()),
    };
    let running = Running::start(worker(&db, &seen, fails));
    // The failed job stays.
    eventually(SOON * 6, || db.jobs() == 1 && db.locks() == 0);
    assert_eq!(seen.order(), all());
    assert!(!seen.is_again.load(Ordering::SeqCst), "no attempt was spent on a job that did not run");
    assert!(running.worker.stats().returned > 0);
}

#[test]
fn a_slow_job_gives_back_the_jobs_behind_it_and_a_more_urgent_one_is_next() {
    let (db, seen, hold) = (one_queue(), Arc::new(Seen::default()), Arc::new(Hold::default()));
    let _running = Running::start(hold.worker(&db, &seen));
    let slow = hold.job();
    // The row of the job that runs, and the row of its queue.
    eventually(SOON, || db.locks() == 2);
    assert_eq!(db.one::<i64>("select count(*) from graphile_worker._private_jobs where attempts > 0"), 1);
    db.add("'t', '0', queue_name => 'q', priority => -1");
    hold.release();
    eventually(SOON * 6, || db.jobs() == 0);
    let mut expected = all();
    expected.insert(slow as usize, 0);
    assert_eq!(seen.order(), expected);
}

#[test]
fn a_stop_gives_back_the_jobs_behind_the_one_that_runs() {
    let (db, seen, hold) = (one_queue(), Arc::new(Seen::default()), Arc::new(Hold::default()));
    let running = Running::start(hold.worker(&db, &seen));
    hold.job();
    running.worker.request_shutdown();
    hold.release();
    running.ends().unwrap();
    let ran = seen.order().len() as i32;
    assert_eq!(seen.order(), (1..=ran).collect::<Vec<_>>());
    assert_eq!((db.jobs(), db.locks()), (i64::from(JOBS - ran), 0));
    assert_eq!(db.one::<i64>("select count(*) from graphile_worker._private_jobs where attempts > 0"), 0);
}

#[test]
fn a_claim_that_is_lost_in_a_series_frees_the_queue() {
    let (db, seen, hold) = (one_queue(), Arc::new(Seen::default()), Arc::new(Hold::default()));
    let running = Running::start(hold.worker(&db, &seen));
    hold.job();
    // The job runs for so long that the others go back. An administrator deletes it.
    eventually(SOON, || db.locks() == 2);
    db.execute("delete from graphile_worker._private_jobs where id = (select min(id) from graphile_worker._private_jobs where locked_at is not null)");
    hold.release();
    // The worker does not poll, so it must learn that the queue is free.
    let ran = seen.order().len();
    eventually(SOON * 6, || seen.order().len() > ran + 2 && running.worker.stats().lost == 1);
    let order = seen.order();
    assert_eq!(order, (1..=order.len() as i32).collect::<Vec<_>>());
}

#[test]
fn a_recovery_counts_only_the_first_job_of_a_queue_that_a_dead_worker_holds() {
    let db = one_queue();
    db.execute(
        "insert into graphile_worker._native_workers (id, last_heartbeat_at) values ('dead', now() - interval '1 hour');
         update graphile_worker._private_jobs set locked_by = 'dead', locked_at = now(), attempts = attempts + 1 where id <= 5;
         update graphile_worker._private_job_queues set locked_by = 'dead', locked_at = now()",
    );
    let swept = db.utils().sweep_stale_workers(SweepStaleWorkersOptions::default()).unwrap();
    assert_eq!(swept.recovered_count, 5);
    assert_eq!(db.locks(), 0);
    assert_eq!(db.all::<i64>("select job_id from graphile_worker._native_recoveries"), [1]);
    assert_eq!(db.all::<i64>("select id from graphile_worker._private_jobs where last_error like 'recovered: %'"), [1]);
    // Any of them may have killed the worker, so each is claimed without others once.
    assert_eq!(db.one::<i64>("select count(*) from graphile_worker._private_jobs where last_error is not null"), 5);
    let due =
        "select id from graphile_worker._private_jobs where attempts = 0 and run_at <= now() order by run_at limit 5";
    assert_eq!(db.all::<i64>(due), [2, 3, 4, 5, 6], "the others wait in their order");
}

#[test]
fn a_job_that_was_tried_before_is_claimed_without_others() {
    let (db, seen) = (one_queue(), Arc::new(Seen::default()));
    db.execute(
        "update graphile_worker._private_jobs set last_error = 'recovered: its worker died' where id in (25, 100, 150)",
    );
    let locked_then = Arc::new(Mutex::new(Vec::new()));
    let noted = locked_then.clone();
    let notes = move |number, locked| {
        if [25, 100, 150].contains(&number) {
            noted.lock().unwrap().push(locked);
        }
        Ok(())
    };
    let _running = Running::start(worker(&db, &seen, notes));
    eventually(SOON * 6, || db.jobs() == 0);
    assert_eq!(seen.order(), all());
    assert_eq!(*locked_then.lock().unwrap(), [1, 1, 1]);
    assert!(seen.most.load(Ordering::SeqCst) > 2, "the others were claimed together");
}

#[test]
fn a_job_whose_claim_the_database_refuses_is_left_out_of_its_series() {
    const REFUSED: i32 = 100;
    let (db, seen) = (one_queue(), Arc::new(Seen::default()));
    db.execute(&format!(
        "create function refuse() returns trigger language plpgsql as
           $$ begin raise exception 'refused by a trigger'; end $$;
         create trigger refuse before update on graphile_worker._private_jobs for each row
           when (new.id = {REFUSED} and new.locked_at is not null) execute function refuse()"
    ));
    let _running = Running::start(worker(&db, &seen, |_, _| Ok(())).concurrency(1));
    eventually(SOON * 6, || db.jobs() == 1);
    let mut expected = all();
    expected.retain(|number| *number != REFUSED);
    assert_eq!(seen.order(), expected);
    assert!(seen.most.load(Ordering::SeqCst) > 2, "the others were claimed together");
}

#[test]
fn without_the_index_of_queues_jobs_are_claimed_one_at_a_time_in_their_order() {
    let (db, seen) = (one_queue(), Arc::new(Seen::default()));
    db.execute("drop index graphile_worker._native_jobs_queue");
    let _running = Running::start(worker(&db, &seen, |_, _| Ok(())));
    eventually(SOON * 6, || db.jobs() == 0);
    assert_eq!(seen.order(), all());
    assert_eq!(seen.most.load(Ordering::SeqCst), 1);
}
