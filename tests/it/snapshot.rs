//! Claims while a transaction elsewhere stays open, so that the rows of finished jobs cannot be removed; and claims of
//! several workers at once.

use crate::harness::{Running, SOON, TestDb, eventually};
use crate::plans::claim_statement;
use graphile_worker::{JobSpec, WorkerContext};
use postgres::Client;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Opens a transaction that keeps all dead rows, and makes this number of them, before all other jobs in the order.
fn dead_jobs(db: &TestDb, jobs: usize) -> Client {
    let mut holder = db.client();
    holder.batch_execute("begin isolation level repeatable read; select from graphile_worker._private_jobs").unwrap();
    db.execute(&format!(
        "insert into graphile_worker._private_tasks (identifier) values ('t') on conflict do nothing;
         insert into graphile_worker._private_jobs (task_id, run_at)
           select t.id, timestamptz '2000-01-01' + n * interval '1 second'
             from generate_series(1, {jobs}) n, graphile_worker._private_tasks t where t.identifier = 't'"
    ));
    db.execute("delete from graphile_worker._private_jobs");
    holder
}

/// How many jobs ran when the job with the payload "urgent" ran.
fn position_of_urgent(options: graphile_worker::WorkerOptions) -> (graphile_worker::WorkerOptions, Arc<AtomicUsize>) {
    let (ran, position) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let noted = position.clone();
    let options = options.define_raw_job("t", move |ctx: WorkerContext| {
        let before = ran.fetch_add(1, Ordering::SeqCst);
        if ctx.job().payload_as::<String>().is_ok() {
            noted.store(before + 1, Ordering::SeqCst);
        }
        std::thread::sleep(Duration::from_millis(1));
    });
    (options, position)
}

#[test]
fn a_job_added_before_the_others_does_not_wait_for_them_behind_dead_rows() {
    const JOBS: usize = 20_000;
    for urgent in [JobSpec::new().priority(-1), JobSpec::new().run_at(std::time::UNIX_EPOCH.into())] {
        let db = TestDb::new();
        let _holder = dead_jobs(&db, 100_000);
        db.execute(&format!(
            "select count(*) from graphile_worker.add_jobs(array(
               select row('t', '{{}}', null, null, null, null, null, null)::graphile_worker.job_spec
                 from generate_series(1, {JOBS})))"
        ));
        let options = db.worker().concurrency(4).poll_interval(Duration::from_millis(200));
        let (options, position) = position_of_urgent(options);
        let running = Running::start(options);
        eventually(SOON, || running.worker.stats().completed > 2000);
        let utils = db.utils();
        utils.add_raw_job("t", &serde_json::json!("now"), urgent).unwrap();
        eventually(Duration::from_secs(120), || position.load(Ordering::SeqCst) > 0);
        let position = position.load(Ordering::SeqCst);
        assert!(position < JOBS, "the job was number {position} of {JOBS}");
    }
}

#[test]
fn a_run_until_empty_leaves_no_job_behind_dead_rows() {
    let db = TestDb::new();
    let _holder = dead_jobs(&db, 100_000);
    db.add_many(3000, "'t', to_json(n), null, null, null, null, null, null");
    let worker = db.worker().define_raw_job("t", |ctx: WorkerContext| -> Result<(), Box<dyn std::error::Error>> {
        // The last job adds others that are before all that have run.
        if ctx.job().payload_as::<i32>()? == 3000 {
            let add = "select graphile_worker.add_job('t', to_json(0), run_at => 'epoch', priority => $1)";
            for priority in [-5_i32, 0, 5] {
                ctx.connection()?.execute(&add.replace("$1", &priority.to_string()), &[])?;
            }
        }
        Ok(())
    });
    worker.init().unwrap().run_once().unwrap();
    assert_eq!((db.jobs(), db.locks()), (0, 0));
}

#[test]
fn claims_behind_dead_rows_do_not_read_them_again() {
    let db = TestDb::new();
    let _holder = dead_jobs(&db, 60_000);
    db.execute("select graphile_worker.add_job('t') from generate_series(1, 200)");
    let claim = |bounds: &str, listed: &str| {
        let plan = crate::plans::plan_of(
            &db,
            include_str!("../../src/sql/claim/claim.sql"),
            &format!("'w', array[1], 10, null, null, null, 0, null, false, 2000, {bounds}, {listed}, 0, 0, null, null"),
        );
        let claimed = "select count(*) from graphile_worker._private_jobs where locked_by = 'w'";
        assert_eq!(db.one::<i64>(claimed), 10, "{plan}");
        db.execute("update graphile_worker._private_jobs set locked_by = null, locked_at = null, attempts = 0");
        crate::plans::buffers(&plan)
    };
    let everywhere = claim("null, null", "null");
    let ahead = claim("array[0]::smallint[], array[now() - interval '1 hour']", "null");
    let ids: Vec<i64> = db.all("select id from graphile_worker._private_jobs order by id limit 10");
    let listed = claim("null, null", &format!("array{ids:?}::bigint[]"));
    assert!(ahead * 3 < everywhere, "{ahead} and {everywhere} buffers");
    assert!(listed * 3 < everywhere, "{listed} and {everywhere} buffers");
}

#[test]
fn a_claim_behind_bounds_takes_the_first_jobs_of_queues() {
    let db = TestDb::new();
    db.add_many(60, "'t', to_json(n), 'q' || n % 3, now() - n * interval '1 hour', null, null, null, null");
    let queue: i32 = db.one("select id from graphile_worker._private_job_queues where queue_name = 'q1'");
    let sql = claim_statement();
    let mut client = db.client();
    client.batch_execute(&format!("prepare claim as {sql}")).unwrap();
    let mut claim = |hours: i32, queues: &str| {
        let bounds = format!("array[0]::smallint[], array[now() - interval '{hours} hours']");
        let claim = format!(
            "execute claim('w', array[1], 5, null, null, null, 100, null, false, 2000, {bounds}, null, 1, 9, array[1], {queues})"
        );
        let rows = client.query(&claim, &[]).unwrap();
        db.execute(
            "update graphile_worker._private_jobs set locked_by = null, locked_at = null, attempts = 0;
             update graphile_worker._private_job_queues set locked_by = null, locked_at = null",
        );
        let number = |row: &postgres::Row| row.get::<_, serde_json::Value>("payload").as_i64().unwrap();
        rows.iter().map(number).collect::<Vec<_>>()
    };
    assert_eq!(claim(30, "null"), [60, 59, 58, 57, 56, 55], "queues of which it sees a job");
    assert!(claim(0, "null").is_empty(), "it sees none");
    assert_eq!(claim(0, &format!("array[{queue}]")), [58, 55], "a queue that came free");
}

#[test]
fn a_large_claim_waits_for_its_turn_and_a_small_one_does_not() {
    let db = TestDb::new();
    db.execute(
        "create table public.turns (has boolean);
         create function note() returns trigger language plpgsql as
           $$ begin
                if current_setting('application_name') = 'graphile-worker:fetch' then
                  insert into public.turns
                    select exists (select from pg_locks
                                    where pid = pg_backend_pid() and locktype = 'advisory' and mode = 'ExclusiveLock' and granted);
                end if;
                return null;
              end $$;
         create trigger note after update on graphile_worker._private_jobs for each statement execute function note()",
    );
    let any_has = || db.one::<Option<bool>>("select bool_or(has) from public.turns");
    for (threads, has) in [(200, true), (2, false)] {
        db.execute(
            "truncate public.turns;
             select count(*) from (select graphile_worker.add_job('t') from generate_series(1, 1000)) added",
        );
        let worker =
            db.worker().concurrency(threads).define_raw_job("t", |_| std::thread::sleep(Duration::from_millis(1)));
        worker.init().unwrap().run_once().unwrap();
        assert_eq!(any_has(), Some(has), "{threads} threads");
    }
}

#[test]
fn a_session_that_does_not_end_its_turn_stops_no_claim() {
    let db = TestDb::new();
    let mut stopped = db.client();
    let turn =
        include_str!("../../src/sql/claim/wait_for_turn.sql").replace(":GRAPHILE_WORKER_SCHEMA", "graphile_worker");
    let mut transaction = stopped.transaction().unwrap();
    for number in [0, 1] {
        transaction.execute(&turn, &[&number]).unwrap();
    }
    db.add_many(2000, "'t', null, null, null, null, null, null, null");
    let worker = db.worker().concurrency(200).define_raw_job("t", |_| ()).init().unwrap();
    worker.run_once().unwrap();
    assert_eq!((db.jobs(), worker.stats().database_errors), (0, 0));
}
