//! The connection is cut after the server committed and before the reply arrives. The client finds out what was done:
//! no job is lost, no change is made twice, no lock stays.

use crate::harness::{Running, SOON, Tally, TestDb, eventually, signal};
use crate::proxy::{Proxy, Sent};
use graphile_worker::{
    CleanupTask, Error, ErrorKind, JobSpec, RawJob, RescheduleJobOptions, WorkerContext, WorkerOptions, WorkerUtils,
};
use postgres::Client;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const CLAIM: &str = "-- Claims";
const COMPLETE: &str = "-- Deletes";
const FAIL: &str = "-- Writes";
const GIVE_BACK: &str = "-- Gives";
const ADD_ONE: &str = "-- Adds one";
const ADD_MANY: &str = "-- Adds many";

/// Shorter than the interval of the reconcile, so an event within it is not due to that.
const AT_ONCE: Duration = Duration::from_secs(8);

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
    // A failed job of a queue is retried after e seconds, which may be before the last job of that queue ran.
    eventually(SOON, || tally.jobs() == 100 && running.worker.stats().failed >= 100);
    let worker = running.worker.clone();
    running.stop().0.unwrap();
    assert_eq!((proxy.replies_dropped(), db.locks()), (3, 0));
    assert_eq!((worker.stats().failed as usize, worker.stats().lost), (tally.runs(), 0));
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

/// The statements of an enqueue whose reply can be lost.
const BEGIN: &str = "-- Begins a transaction";
const OUTCOME: &str = "-- What became of";

#[test]
fn an_enqueue_is_one_job_whichever_of_its_replies_is_lost() {
    let (db, proxy) = behind_a_proxy();
    let utils = utils(&db, &proxy);
    let mut expected = 0;
    let job = |key: Option<String>| {
        let spec = key.map_or(JobSpec::new(), |key| JobSpec::new().job_key(key));
        RawJob { identifier: "t".into(), payload: "[1]".into(), spec }
    };
    for keyed in [false, true] {
        for many in [1, 3] {
            for lost in [BEGIN, if many == 1 { ADD_ONE } else { ADD_MANY }, "commit"] {
                let key = |n| keyed.then(|| format!("{many} {lost} {n}"));
                let before = proxy.replies_dropped();
                proxy.drop_reply_to(1, is(lost));
                let added = utils.add_raw_jobs((0..many).map(|n| job(key(n))).collect()).unwrap();
                expected += many;
                assert_eq!((proxy.replies_dropped(), added.len()), (before + 1, many), "{lost}");
                assert_eq!(db.jobs(), expected as i64, "{lost}, {many} jobs, keyed: {keyed}");
            }
        }
    }
    // A list added twice under one key would have been joined.
    assert_eq!(db.all::<String>("select distinct payload::text from graphile_worker._private_jobs"), ["[1]"]);
}

#[test]
fn a_keyed_job_that_ran_before_the_lost_reply_runs_once() {
    let (db, proxy) = behind_a_proxy();
    let ran: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = ran.clone();
    let _running = Running::start(db.worker().define_raw_job("t", move |ctx: WorkerContext| {
        seen.lock().unwrap().push(ctx.job().key().unwrap().to_owned());
    }));
    let utils = utils(&db, &proxy);
    for n in 0..20 {
        let (watched, committed) = (ran.clone(), proxy.replies_dropped());
        let mut lost = false;
        proxy.drop_reply_to(2, move |sent| {
            // The proxy forwards the next statement only after the job has run.
            if lost {
                eventually(SOON, || watched.lock().unwrap().len() > n);
                return false;
            }
            lost = sent.sql == "commit";
            lost
        });
        utils.add_raw_job("t", &n, JobSpec::new().job_key(format!("k{n}"))).unwrap();
        assert_eq!(proxy.replies_dropped(), committed + 1);
    }
    eventually(SOON, || db.jobs() == 0);
    assert_eq!(*ran.lock().unwrap(), (0..20).map(|n| format!("k{n}")).collect::<Vec<_>>());
}

#[test]
fn cut_enqueues_add_no_job_twice_and_return_correct_errors() {
    const ADDERS: usize = 4;
    const EACH: usize = 100;
    let (db, proxy) = behind_a_proxy();
    let ran: Arc<Mutex<HashMap<String, u32>>> = Arc::default();
    let seen = ran.clone();
    let running = Running::start(db.worker().define_raw_job("t", move |ctx: WorkerContext| {
        *seen.lock().unwrap().entry(ctx.job().payload_as().unwrap()).or_default() += 1;
    }));
    // Clients connect before the first cut: this test does not cover failed connects.
    let adders: Vec<_> = (0..ADDERS).map(|_| utils(&db, &proxy).timeout(Duration::from_secs(30))).collect();
    let mut sent = 0_u32;
    proxy.drop_reply_to(120, move |_| {
        sent += 1;
        sent.wrapping_mul(2_654_435_761) >> 28 == 0
    });
    let outcomes: Vec<(String, Option<ErrorKind>)> = thread::scope(|scope| {
        let adders: Vec<_> = adders
            .into_iter()
            .enumerate()
            .map(|(adder, utils)| {
                scope.spawn(move || {
                    let add = |n| {
                        let name = format!("{adder}-{n}");
                        let spec = if n % 2 == 0 { JobSpec::new().job_key(format!("k{name}")) } else { JobSpec::new() };
                        let answer = utils.add_raw_job("t", &name, spec);
                        (name, answer.err().map(|error| error.kind()))
                    };
                    (0..EACH).map(add).collect::<Vec<_>>()
                })
            })
            .collect();
        adders.into_iter().flat_map(|adder| adder.join().unwrap()).collect()
    });
    assert!(proxy.replies_dropped() > 20, "{}", proxy.replies_dropped());
    eventually(SOON, || db.jobs() == 0);
    running.stop().0.unwrap();
    let ran = ran.lock().unwrap();
    for (name, error) in outcomes {
        let runs = ran.get(&name).copied().unwrap_or(0);
        match error {
            None => assert_eq!(runs, 1, "{name} was added"),
            Some(ErrorKind::UnknownOutcome) => assert!(runs <= 1, "{name} may have been added"),
            Some(kind) => assert_eq!(runs, 0, "{name} was not added: {kind:?}"),
        }
    }
}

#[test]
fn an_outcome_that_cannot_be_asked_for_is_unknown() {
    let (db, proxy) = behind_a_proxy();
    let utils = utils(&db, &proxy).timeout(Duration::from_secs(1));
    proxy.drop_reply_to(usize::MAX, |sent| sent.sql == "commit" || sent.sql.starts_with(OUTCOME));
    for spec in [JobSpec::new(), JobSpec::new().job_key("k")] {
        let error = utils.add_raw_job("t", &1, spec).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnknownOutcome, "{error}");
        assert!(error.to_string().contains("may or may not"), "{error}");
        assert!(error.is_transient());
    }
    assert_eq!(db.jobs(), 2);
    assert_eq!(utils.remove_job("k").unwrap_err().kind(), ErrorKind::UnknownOutcome);
    assert_eq!(utils.complete_jobs(&[1]).unwrap_err().kind(), ErrorKind::UnknownOutcome);
    assert_eq!(db.jobs(), 0);
}

#[test]
fn without_other_sessions_a_commit_is_proved_by_the_job_row() {
    let (db, proxy) = behind_a_proxy();
    let role = format!("{}_app", db.name());
    db.execute(&format!(
        "create role {role} login bypassrls; grant usage on schema graphile_worker to {role};
         grant all on all tables in schema graphile_worker to {role};
         grant usage on all sequences in schema graphile_worker to {role}"
    ));
    let url = proxy.url(&db.url());
    let own = format!(
        "postgres://{role}@{}",
        url.split_once("://").unwrap().1.rsplit_once('@').map_or(url.as_str(), |at| at.1)
    );
    let utils = WorkerUtils::connect(&own).unwrap();
    proxy.drop_reply_to(1, is("commit"));
    let job = utils.add_raw_job("t", &1, JobSpec::new()).unwrap();
    assert_eq!((db.all::<i64>("select id from graphile_worker.jobs"), proxy.replies_dropped()), (vec![job.id()], 1));
    // The same, but a worker removed the job before the outcome was asked for.
    let mut client = db.client();
    proxy.drop_reply_to(2, move |sent| {
        if sent.sql.starts_with(OUTCOME) {
            client.batch_execute("delete from graphile_worker._private_jobs").unwrap();
        }
        sent.sql == "commit"
    });
    let error = utils.add_raw_job("t", &1, JobSpec::new()).unwrap_err();
    assert_eq!((error.kind(), proxy.replies_dropped()), (ErrorKind::UnknownOutcome, 2), "{error}");
    drop(utils);
    db.execute(&format!("drop owned by {role}; drop role {role}"));
}

#[test]
fn a_change_whose_commit_never_reached_the_server_was_not_made() {
    let (db, proxy) = behind_a_proxy();
    let id = db.add("'t', job_key => 'k'");
    let utils = utils(&db, &proxy).timeout(Duration::from_secs(1));
    type Call<'a> = Box<dyn Fn() -> Option<Error> + 'a>;
    let calls: [(&'static str, Call); 4] = [
        (ADD_ONE, Box::new(|| utils.add_raw_job("t", &1, JobSpec::new()).err())),
        (ADD_ONE, Box::new(|| utils.add_raw_job("t", &1, JobSpec::new().job_key("l")).err())),
        ("-- Removes", Box::new(|| utils.remove_job("k").err())),
        ("-- Deletes jobs", Box::new(|| utils.complete_jobs(&[id]).err())),
    ];
    for (statement, call) in calls {
        for lost in [BEGIN, statement] {
            proxy.drop_reply_to(usize::MAX, is(lost));
            let error = call().expect("the connection was cut each time");
            assert!(matches!(error.kind(), ErrorKind::Connect | ErrorKind::Timeout), "{error}");
            assert!(error.to_string().starts_with("not committed: "), "{error}");
            assert_eq!(db.all::<i64>("select id from graphile_worker.jobs where attempts = 0"), [id], "{lost}");
        }
    }
}

#[test]
fn changes_by_hand_are_made_once_whichever_of_their_replies_is_lost() {
    let (db, proxy) = behind_a_proxy();
    let utils = utils(&db, &proxy);
    for lost in [BEGIN, "commit"] {
        db.execute("delete from graphile_worker._private_jobs");
        let ids: Vec<i64> = (0..4).map(|n| db.add(&format!("'t', job_key => 'k{n}'"))).collect();
        let lose = || proxy.drop_reply_to(1, is(lost));
        lose();
        assert!(utils.remove_job("k0").unwrap(), "{lost}");
        lose();
        assert_eq!(utils.complete_jobs(&ids[1..2]).unwrap().len(), 1, "{lost}");
        lose();
        assert_eq!(utils.permanently_fail_jobs(&ids[2..3], "by hand").unwrap().len(), 1, "{lost}");
        lose();
        let options = RescheduleJobOptions { priority: Some(3), ..Default::default() };
        assert_eq!(utils.reschedule_jobs(&ids[3..], options).unwrap().len(), 1, "{lost}");
        lose();
        let failed = [CleanupTask::DeletePermanentlyFailedJobs];
        assert_eq!(utils.cleanup(&failed).unwrap().jobs, 1, "{lost}");
        assert_eq!(db.all::<i64>("select id from graphile_worker.jobs where priority = 3"), ids[3..]);
        assert_eq!(db.jobs(), 1);
    }
    assert_eq!(proxy.replies_dropped(), 10);
}

/// Makes each commit that adds a job wait until the session that is returned frees a lock. The wait also outlasts the
/// limits of the statement.
fn commits_wait(db: &TestDb) -> Client {
    db.execute(
        "create function public.dawdle() returns trigger language plpgsql as $$
         begin
           perform set_config('lock_timeout', '0', true);
           begin
             perform pg_advisory_xact_lock(1);
           exception when query_canceled then
             perform pg_advisory_xact_lock(1);
           end;
           return null;
         end $$;
         create constraint trigger dawdle after insert on graphile_worker._private_jobs
           deferrable initially deferred for each row execute function public.dawdle()",
    );
    let mut holder = db.client();
    holder.batch_execute("select pg_advisory_lock(1)").unwrap();
    holder
}

#[test]
fn a_slow_commit_is_waited_for() {
    let (db, proxy) = behind_a_proxy();
    let mut holder = commits_wait(&db);
    let asked = Arc::new(AtomicUsize::new(0));
    let counting = asked.clone();
    // The client asks for the outcome after three quarters of the time. The commit is then in progress, so it asks again.
    proxy.drop_reply_to(1, move |sent| {
        if sent.sql.starts_with(OUTCOME) && counting.fetch_add(1, Ordering::SeqCst) == 1 {
            holder.batch_execute("select pg_advisory_unlock(1)").unwrap();
        }
        false
    });
    let job = utils(&db, &proxy).timeout(Duration::from_secs(8)).add_raw_job("t", &1, JobSpec::new()).unwrap();
    assert_eq!(db.all::<i64>("select id from graphile_worker.jobs"), [job.id()]);
    assert!(asked.load(Ordering::SeqCst) > 1, "the commit was not slow");
}

#[test]
fn the_outcome_of_a_commit_that_outlasts_the_deadline_is_unknown() {
    let (db, proxy) = behind_a_proxy();
    let mut holder = commits_wait(&db);
    let error = utils(&db, &proxy).timeout(Duration::from_secs(2)).add_raw_job("t", &1, JobSpec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownOutcome, "{error}");
    assert_eq!(db.jobs(), 0, "the commit is in progress");
    holder.batch_execute("select pg_advisory_unlock(1)").unwrap();
    eventually(SOON, || db.jobs() == 1);
}

#[test]
fn an_added_job_survives_a_server_crash() {
    let db = TestDb::alone();
    db.execute("alter database postgres set synchronous_commit = on");
    let added: Mutex<Vec<i64>> = Mutex::default();
    let (stop, crashes) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for adder in 0..8 {
            let (utils, added, stop) = (db.utils(), &added, &stop);
            scope.spawn(move || {
                for n in (0..).map(|n| adder * 1_000_000 + n) {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    if utils.add_raw_job("t", &n, JobSpec::new()).is_ok() {
                        added.lock().unwrap().push(n);
                    }
                }
            });
        }
        for _ in 0..5 {
            let before = added.lock().unwrap().len();
            eventually(4 * SOON, || added.lock().unwrap().len() > before + 200);
            // The server ends all sessions when one of them is killed.
            let mut client = db.client();
            let pid: i32 = client.query_one("select pg_backend_pid()", &[]).unwrap().get(0);
            signal(pid as u32, "KILL");
            eventually(4 * SOON, || client.batch_execute("").is_err());
            crashes.fetch_add(1, Ordering::SeqCst);
        }
        stop.store(true, Ordering::SeqCst);
    });
    let rows = db.client().query("select payload::text::int8 from graphile_worker._private_jobs", &[]).unwrap();
    let there: HashSet<i64> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(there.len(), rows.len(), "a job was added twice");
    let lost: Vec<i64> = added.into_inner().unwrap().into_iter().filter(|n| !there.contains(n)).collect();
    assert_eq!((lost, crashes.into_inner()), (vec![], 5));
}

#[test]
fn a_keyed_enqueue_whose_reply_is_lost_adds_one_job() {
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
