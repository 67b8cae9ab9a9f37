//! Rows that cannot be written, because another session locks them or a trigger refuses the write. All other jobs go
//! on, the outcome is written when it can be, and a stop names the outcomes that it could not write.

use crate::harness::{Running, SOON, Tally, TestDb, eventually};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use graphile_worker::{ErrorKind, Result, WorkerContext, WorkerOptions};
use std::time::Duration;

const GRACE: Duration = Duration::from_millis(200);

/// Runs "quick" jobs, "held" jobs that wait until they are released, and "broken" jobs that fail.
struct Work {
    tally: Tally,
    started: Receiver<i64>,
    release: Sender<()>,
    worker: WorkerOptions,
}

impl Work {
    fn new(db: &TestDb) -> Self {
        let (tally, (begin, started), (release, released)) = (Tally::default(), unbounded(), bounded(0));
        let (quick, held, broken) = (tally.clone(), tally.clone(), tally.clone());
        let worker = db
            .worker()
            .shutdown_grace_period(GRACE)
            .define_raw_job("quick", move |ctx: WorkerContext| quick.count(ctx.job().id()))
            .define_raw_job("held", move |ctx: WorkerContext| {
                held.count(ctx.job().id());
                begin.send(ctx.job().id()).unwrap();
                let _ = released.recv();
            })
            .define_raw_job("broken", move |ctx: WorkerContext| {
                broken.count(ctx.job().id());
                Err::<(), _>("broken as ordered")
            });
        Self { tally, started, release, worker }
    }
}

/// A trigger on the table that raises this SQLSTATE if the condition holds.
fn raising(db: &TestDb, when: &str, table: &str, condition: &str, state: &str) {
    db.execute(&format!(
        "create function raising_{table}() returns trigger language plpgsql as $$
         begin
           if {condition} then raise exception 'refused by a trigger' using errcode = '{state}'; end if;
           return case when tg_op = 'DELETE' then old else new end;
         end $$;
         create trigger raising {when} on graphile_worker.{table} for each row execute function raising_{table}()"
    ));
}

/// Another session locks one row while its job ends: the other jobs go on, and this one ends after the lock is
/// released.
fn a_held_row_holds_up_its_own_job_only(task: &str, queue: &str, hold: &str) {
    let db = TestDb::new();
    let Work { tally, started, release, worker } = Work::new(&db);
    // So long that only the short wait of settle for a lock can be what lets the others go on.
    let running = Running::start(worker.database_timeout(3 * SOON));
    let job = db.add(&format!("'{task}', queue_name => {queue}, max_attempts => 1"));
    if task == "held" {
        started.recv_timeout(SOON).unwrap();
    }
    let mut stranger = db.client();
    let mut transaction = stranger.transaction().unwrap();
    transaction.execute(&hold.replace("$1", &job.to_string()), &[]).unwrap();
    drop(release);
    db.execute("select graphile_worker.add_job('quick', queue_name => case when n % 3 = 0 then 'other' end) from generate_series(1, 30) n");
    eventually(SOON, || db.jobs() == 1);
    assert_eq!(tally.runs(), 31);
    // Its outcome waits; the replies for the other jobs may still be on their way.
    eventually(SOON, || running.worker.stats().in_flight == 1);
    assert_eq!(db.waiting(), 0, "no session waits for the lock");
    transaction.rollback().unwrap();
    eventually(SOON, || db.jobs() == 0);
    assert_eq!((tally.runs(), db.locks()), (31, 0));
    running.stop().0.unwrap();
}

#[test]
fn a_selected_job_row_holds_up_its_own_job_only() {
    a_held_row_holds_up_its_own_job_only(
        "held",
        "null",
        "select from graphile_worker._private_jobs where id = $1 for update",
    );
}

#[test]
fn an_uncommitted_update_holds_up_its_own_job_only() {
    a_held_row_holds_up_its_own_job_only(
        "held",
        "null",
        "update graphile_worker._private_jobs set priority = 3 where id = $1",
    );
}

#[test]
fn a_held_queue_row_holds_up_its_own_job_only() {
    a_held_row_holds_up_its_own_job_only(
        "held",
        "'its own'",
        "update graphile_worker._private_job_queues set locked_at = now()
          where id = (select job_queue_id from graphile_worker._private_jobs where id = $1)",
    );
}

#[test]
fn a_stop_names_the_job_whose_row_another_session_holds() {
    let db = TestDb::new();
    let Work { started, release, worker, .. } = Work::new(&db);
    let running = Running::start(worker);
    let job = db.add("'held'");
    started.recv_timeout(SOON).unwrap();
    let mut stranger = db.client();
    let mut transaction = stranger.transaction().unwrap();
    transaction.execute("select from graphile_worker._private_jobs for update", &[]).unwrap();
    drop(release);
    db.execute("select graphile_worker.add_job('quick') from generate_series(1, 30)");
    eventually(SOON, || db.jobs() == 1);
    let error = running.stop().0.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stopped);
    let named =
        format!("1 outcome(s) could not be written, so these jobs may run again: job {job} (task held, completed)");
    assert!(error.to_string().contains(&named), "{error}");
    assert_eq!(db.locks(), 1);
    transaction.rollback().unwrap();
}

/// Runs a worker until no job is due, on a thread of its own: a call that never returns fails the test.
fn run_until_empty(worker: WorkerOptions) -> Receiver<Result<()>> {
    let (send, ended) = bounded(1);
    let worker = worker.listen_os_shutdown_signals(false).init().unwrap();
    std::thread::spawn(move || send.send(worker.run_once()));
    ended
}

const HOLD: &str = "select from graphile_worker._private_jobs where id = $1 for update";

#[test]
fn a_run_until_empty_names_the_job_whose_row_another_session_holds() {
    let db = TestDb::new();
    let Work { started, release, worker, tally, .. } = Work::new(&db);
    let job = db.add("'held', priority => -1");
    db.execute("select graphile_worker.add_job('quick') from generate_series(1, 30)");
    let ended = run_until_empty(worker);
    started.recv_timeout(SOON).unwrap();
    let mut stranger = db.client();
    let mut transaction = stranger.transaction().unwrap();
    transaction.execute(HOLD, &[&job]).unwrap();
    drop(release);
    let error = ended.recv_timeout(6 * SOON).expect("the call ends while the row is held").unwrap_err().to_string();
    assert!(error.contains(&format!("job {job} (task held, completed)")), "{error}");
    assert_eq!((tally.runs(), db.jobs(), db.locks()), (31, 1, 1));
    transaction.rollback().unwrap();
}

#[test]
fn a_run_until_empty_waits_for_a_held_row_in_its_grace_period() {
    let db = TestDb::new();
    let Work { started, release, worker, tally, .. } = Work::new(&db);
    let job = db.add("'held'");
    let ended = run_until_empty(worker.shutdown_grace_period(30 * SOON));
    started.recv_timeout(SOON).unwrap();
    let mut stranger = db.client();
    let mut transaction = stranger.transaction().unwrap();
    transaction.execute(HOLD, &[&job]).unwrap();
    drop(release);
    // gw-settle asks which rows are held each time before it writes deferred outcomes.
    let asks = "select query from pg_stat_activity where datname = current_database()
                   and application_name = 'graphile-worker:settle' and query like '-- Returns the jobs that cannot be written now%'";
    eventually(SOON, || !db.all::<String>(asks).is_empty());
    db.execute("select graphile_worker.add_job('quick') from generate_series(1, 30)");
    eventually(SOON, || tally.runs() == 31 && db.jobs() == 1);
    assert!(ended.is_empty(), "the call waits: {:?}", ended.try_recv());
    transaction.rollback().unwrap();
    ended.recv_timeout(6 * SOON).expect("the call ends after the row is free").unwrap();
    assert_eq!((tally.runs(), db.jobs(), db.locks()), (31, 0, 0));
}

#[test]
fn a_run_until_empty_skips_a_job_whose_row_is_held_before_its_claim() {
    let db = TestDb::new();
    let Work { worker, tally, .. } = Work::new(&db);
    let job = db.add("'quick', priority => -1");
    db.execute("select graphile_worker.add_job('quick') from generate_series(1, 30)");
    let mut stranger = db.client();
    let mut transaction = stranger.transaction().unwrap();
    transaction.execute(HOLD, &[&job]).unwrap();
    run_until_empty(worker).recv_timeout(6 * SOON).expect("the call ends while the row is held").unwrap();
    assert_eq!((tally.runs(), db.locks()), (30, 0));
    assert_eq!(db.all::<i64>("select id from graphile_worker._private_jobs where attempts = 0"), [job]);
    transaction.rollback().unwrap();
}

/// Ten jobs, of which the trigger refuses one: nine are settled at once, and the tenth after the trigger is dropped.
#[track_caller]
fn a_refused_outcome_waits_alone(task: &str, when: &str, state: &str) {
    let db = TestDb::new();
    let Work { tally, worker, .. } = Work::new(&db);
    let settled = if task == "quick" { "true" } else { "new.locked_at is null and old.locked_at is not null" };
    raising(&db, when, "_private_jobs", &format!("{settled} and old.payload ->> 'poison' = 'yes'"), state);
    db.execute(&format!(
        "select graphile_worker.add_job('{task}', case n when 4 then '{{\"poison\": \"yes\"}}'::json end, max_attempts => 1)
           from generate_series(1, 10) n"
    ));
    let running = Running::start(worker);
    eventually(SOON, || tally.runs() == 10 && db.locks() == 1);
    let left: i64 = db.one("select count(*) from graphile_worker._private_jobs where last_error is null");
    assert_eq!(left, 1, "{state}");
    eventually(SOON, || running.worker.stats().database_errors > 0);
    db.execute("drop trigger raising on graphile_worker._private_jobs");
    eventually(SOON, || db.locks() == 0);
    assert_eq!(tally.runs(), 10);
    assert_eq!(db.jobs(), if task == "quick" { 0 } else { 10 });
    running.stop().0.unwrap();
}

#[test]
fn a_completion_that_a_trigger_refuses_waits_alone() {
    for state in ["P0001", "23505", "40001", "42P01", "53100", "57014", "0A000", "XX000"] {
        a_refused_outcome_waits_alone("quick", "after delete", state);
    }
    a_refused_outcome_waits_alone("quick", "before delete", "57P01");
}

#[test]
fn a_failure_that_a_trigger_refuses_waits_alone() {
    for state in ["P0001", "40P01", "08006"] {
        a_refused_outcome_waits_alone("broken", "before update", state);
    }
}

#[test]
fn a_job_whose_completion_stays_refused_fails_permanently() {
    let db = TestDb::new();
    let Work { tally, worker, .. } = Work::new(&db);
    raising(&db, "after delete", "_private_jobs", "old.priority = 1", "P0001");
    let job = db.add("'quick', priority => 1");
    let running = Running::start(worker.database_timeout(Duration::from_secs(1)));
    eventually(6 * SOON, || db.locks() == 0 && tally.runs() == 1);
    let error: String = db.one(&format!(
        "select last_error from graphile_worker._private_jobs where id = {job} and attempts = max_attempts"
    ));
    assert_eq!(
        error,
        "the job has run and completed, but this could not be stored: refused by a trigger (SQLSTATE P0001)"
    );
    assert_eq!(running.worker.stats().permanently_failed, 1);
    running.stop().0.unwrap();
}

#[test]
fn a_stop_gives_back_jobs_and_names_those_it_could_not_write() {
    let db = TestDb::new();
    let Work { tally, worker, .. } = Work::new(&db);
    raising(
        &db,
        "before delete or update",
        "_private_jobs",
        "old.locked_at is not null and (tg_op = 'DELETE' or old.priority = 2)",
        "P0001",
    );
    let (free, stuck) = (db.add("'quick', priority => 1"), db.add("'quick', priority => 2"));
    let running = Running::start(worker);
    eventually(SOON, || tally.runs() == 2 && running.worker.stats().database_errors > 0);
    let error = running.stop().0.unwrap_err().to_string();
    for job in [free, stuck] {
        assert!(error.contains(&format!("job {job} (task quick, completed)")), "{error}");
    }
    let locked: Vec<i64> = db.all("select id from graphile_worker._private_jobs where locked_at is not null");
    assert_eq!(locked, [stuck], "the other one was given back");
}

/// Five jobs of fifty cannot be claimed: the others run, and these run after the trigger is dropped.
#[track_caller]
fn a_refused_claim_holds_up_its_own_job_only(state: &str) {
    let db = TestDb::new();
    let Work { tally, worker, .. } = Work::new(&db);
    let claim = "old.locked_at is null and new.locked_at is not null and old.payload ->> 'poison' = 'yes'";
    raising(&db, "before update", "_private_jobs", claim, state);
    db.execute(
        "select graphile_worker.add_job('quick', case when n % 10 = 4 then '{\"poison\": \"yes\"}'::json end,
                queue_name => case when n > 40 then 'q' || n end)
           from generate_series(1, 50) n",
    );
    let running = Running::start(worker);
    eventually(6 * SOON, || db.jobs() == 5);
    assert_eq!((tally.runs(), db.locks()), (45, 0));
    db.execute("drop trigger raising on graphile_worker._private_jobs");
    eventually(6 * SOON, || db.jobs() == 0);
    assert_eq!(tally.runs(), 50);
    running.stop().0.unwrap();
}

#[test]
fn a_claim_that_a_trigger_refuses_holds_up_its_own_job_only() {
    a_refused_claim_holds_up_its_own_job_only("P0001");
}

#[test]
fn a_transiently_refused_claim_holds_up_its_own_job_only() {
    a_refused_claim_holds_up_its_own_job_only("40001");
}

#[test]
fn a_claim_refused_as_admin_shutdown_holds_up_its_own_job_only() {
    a_refused_claim_holds_up_its_own_job_only("57P01");
}

#[test]
fn a_run_until_empty_names_the_jobs_whose_claim_is_refused() {
    let db = TestDb::new();
    let Work { tally, worker, .. } = Work::new(&db);
    raising(&db, "before update", "_private_jobs", "new.locked_at is not null and old.priority = 1", "P0001");
    let job = db.add("'quick', priority => 1");
    db.execute("select graphile_worker.add_job('quick') from generate_series(1, 10)");
    let error = worker.init().unwrap().run_once().unwrap_err().to_string();
    assert!(error.contains(&format!("the database refuses the claim of 1 job(s): job {job}")), "{error}");
    assert_eq!((tally.runs(), db.jobs(), db.locks()), (10, 1, 0));
}

#[test]
fn a_held_heartbeat_entry_stops_no_other_duty_of_the_worker() {
    let db = TestDb::new();
    let Work { tally, worker, .. } = Work::new(&db);
    let running =
        Running::start(worker.heartbeat_interval(Duration::from_millis(50)).database_timeout(Duration::from_secs(1)));
    db.add("'quick'");
    eventually(SOON, || db.jobs() == 0);
    let mut stranger = db.client();
    let mut transaction = stranger.transaction().unwrap();
    transaction.execute("select from graphile_worker._native_workers for update", &[]).unwrap();
    eventually(SOON, || running.worker.stats().database_errors > 0);
    // A broken claim makes the worker ask which jobs it holds, and no job starts before the reply.
    for pid in db.backends("fetch") {
        db.terminate(pid);
    }
    db.add("'quick'");
    eventually(SOON, || tally.runs() == 2 && db.jobs() == 0);
    transaction.rollback().unwrap();
    running.stop().0.unwrap();
}
