//! Named queues: one job at a time, in order, however many threads and workers there are.

use crate::harness::{Running, SOON, TestDb, eventually};
use crate::plans::claim_statement;
use graphile_worker::WorkerContext;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::time::Duration;

#[test]
fn jobs_of_one_queue_never_overlap_and_all_run_before_run_once_ends() {
    let db = TestDb::new();
    db.execute("select graphile_worker.add_job('t', queue_name => 'serial') from generate_series(1, 20)");
    let (inside, most) = (Arc::new(AtomicI32::new(0)), Arc::new(AtomicI32::new(0)));
    let (now, peak) = (inside.clone(), most.clone());
    let worker = db.worker().define_raw_job("t", move |_| {
        peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(2));
        now.fetch_sub(1, Ordering::SeqCst);
    });
    worker.init().unwrap().run_once().unwrap();
    assert_eq!(most.load(Ordering::SeqCst), 1);
    assert_eq!(db.jobs(), 0);
    assert_eq!(db.locks(), 0);
}

#[test]
fn two_workers_never_overlap_in_any_of_many_queues() {
    let db = TestDb::new();
    // The unique key makes an overlap an error of the handler.
    db.execute("create table inside (queue int primary key); create table failed (queue int)");
    let jobs = "select graphile_worker.add_job('t', to_json(q), 'q' || q) from generate_series(1, 20) q, generate_series(1, 15)";
    db.execute(jobs);
    let overlaps = Arc::new(AtomicUsize::new(0));
    let start = || {
        let overlaps = overlaps.clone();
        Running::start(db.worker().define_raw_job("t", move |ctx: WorkerContext| {
            let queue: i32 = ctx.job().payload_as().unwrap();
            let mut client = ctx.connection().unwrap();
            if client.execute("insert into inside values ($1)", &[&queue]).is_err() {
                overlaps.fetch_add(1, Ordering::SeqCst);
            }
            client.execute("delete from inside where queue = $1", &[&queue]).unwrap();
        }))
    };
    let (first, second) = (start(), start());
    eventually(Duration::from_secs(60), || {
        let both = first.worker.stats().completed > 0 && second.worker.stats().completed > 0;
        if !both && db.jobs() == 0 {
            db.execute(jobs);
        }
        both && db.jobs() == 0
    });
    assert_eq!(overlaps.load(Ordering::SeqCst), 0);
    drop((first, second));
    assert_eq!(db.locks(), 0);
}

#[test]
fn a_queue_goes_on_after_a_failure_without_waiting_for_the_next_poll() {
    let db = TestDb::new();
    db.execute("select graphile_worker.add_job('t', to_json(n), 'q') from generate_series(1, 5) n");
    let options = db.worker().poll_interval(Duration::from_secs(3600)).define_raw_job("t", |ctx: WorkerContext| {
        match ctx.job().payload_as::<i32>() {
            Ok(2) => Err("second"),
            _ => Ok(()),
        }
    });
    let running = Running::start(options);
    eventually(SOON, || db.jobs() == 1);
    assert_eq!(running.worker.stats().failed, 1);
}

#[test]
fn jobs_with_and_without_queue_run_in_one_order() {
    let db = TestDb::new();
    db.execute(
        "select graphile_worker.add_job('t', to_json(n), case when n % 2 = 0 then 'q' || n end,
                now() - interval '1 day' + n * interval '1 second', priority => (n > 50)::int)
           from generate_series(1, 100) n",
    );
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = order.clone();
    let worker = db.worker().concurrency(1).define_raw_job("t", move |ctx: WorkerContext| {
        sink.lock().unwrap().push(ctx.job().payload_as::<i32>().unwrap());
    });
    worker.init().unwrap().run_once().unwrap();
    assert_eq!(*order.lock().unwrap(), (1..=100).collect::<Vec<_>>());
}

#[test]
fn a_job_that_changes_while_a_claim_looks_for_it_is_not_claimed_as_it_was() {
    let changes = ["run_at = now() + interval '1 hour'", "task_id = 2", "flags = '{\"no\": true}'"];
    // The claim has found the jobs, and waits before it locks them.
    let found = "from heads h\n";
    let waits =
        "from (select h.* from heads h cross join lateral (select pg_advisory_xact_lock_shared(7)) w offset 0) h\n";
    let claim = claim_statement();
    assert_eq!(claim.matches(found).count(), 1);
    let claim = claim.replace(found, waits);
    for change in changes {
        for (changed, claimed) in [(1, vec![]), (2, vec![1])] {
            let db = TestDb::new();
            db.add_many(
                3,
                "'t', to_json(n), 'q', now() - interval '1 hour' + n * interval '1 second', null, null, null, null",
            );
            db.execute("insert into graphile_worker._private_job_queues (queue_name) values ('r')");
            let mut holder = db.client();
            holder.batch_execute("begin; select pg_advisory_xact_lock(7)").unwrap();
            let taken: Vec<i32> = std::thread::scope(|scope| {
                let claims = scope.spawn(|| {
                    let arguments = "'w', array[1], 10, array['no'], null, null, 42, null, false, 2000, null, null, null, 3, 30, array[1], null";
                    let mut client = db.client();
                    client.batch_execute(&format!("prepare claim as {claim}")).unwrap();
                    let rows = client.query(&format!("execute claim({arguments})"), &[]).unwrap();
                    rows.iter().map(|row| row.get::<_, serde_json::Value>("payload").as_i64().unwrap() as i32).collect()
                });
                eventually(SOON, || db.waiting() == 1);
                db.execute(&format!(
                    "update graphile_worker._private_jobs set {change} where (payload #>> '{{}}')::int = {changed}"
                ));
                holder.batch_execute("commit").unwrap();
                claims.join().unwrap()
            });
            assert_eq!(taken, claimed, "job {changed}: {change}");
        }
    }
}
