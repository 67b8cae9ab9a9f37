//! Times outside of the years 1 to 9999, and `infinity`.

use crate::cli::{on, said};
use crate::cron::Clocked;
use crate::harness::{SOON, TestDb, eventually};
use graphile_worker::{
    ErrorKind, HookRegistry, JobRecovery, JobRecoveryResult, JobSpec, ListJobsOptions, SweepStaleWorkersOptions,
    WorkerContext,
};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const FIRST: &str = "0001-01-01T00:00:00Z";
const LAST: &str = "9999-12-31T23:59:59.999999Z";

#[test]
fn times_beyond_the_years_1_to_9999_read_as_the_nearest_within() {
    let db = TestDb::new();
    for (stored, told) in [
        ("-infinity", FIRST),
        ("4713-01-01 BC", FIRST),
        ("0001-12-31 23:59:59 BC", FIRST),
        ("0001-01-01 00:00:00", FIRST),
        ("9999-12-31 23:59:59.999999", LAST),
        ("10000-01-01", LAST),
        ("294276-12-31 23:59:59.999999", LAST),
        ("infinity", LAST),
    ] {
        db.execute("truncate graphile_worker._private_jobs");
        db.add("'t'");
        db.execute(&format!(
            "set timezone = 'UTC';
             update graphile_worker._private_jobs
                set run_at = '{stored}', created_at = '{stored}', updated_at = '{stored}', locked_at = '{stored}', locked_by = 'w'"
        ));
        let list: Value = serde_json::from_str(&said(&on(&db, &["list", "--json"]))).unwrap();
        for field in ["run_at", "created_at", "updated_at", "locked_at"] {
            assert_eq!(list[0][field], told, "{stored}");
        }
        assert!(said(&on(&db, &["list"])).contains(&told[..19]), "{stored}");
        let job = db.utils().list_jobs(&ListJobsOptions::default()).unwrap().remove(0);
        assert_eq!(serde_json::to_value(&job).unwrap()["run_at"], told);
    }
}

#[test]
fn jobs_with_infinite_times_run_and_fail_as_usual() {
    let db = TestDb::new();
    for time in ["-infinity", "4000-01-01 BC", "2000-01-01"] {
        db.add(&format!("'ok', job_key => 'ok {time}', run_at => '{time}'"));
        db.add(&format!("'fail', queue_name => '{time}', run_at => '{time}'"));
    }
    db.execute("update graphile_worker._private_jobs set created_at = 'infinity'");
    db.add("'ok', run_at => 'infinity'");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    let worker = db.worker().concurrency(1).define_raw_job("fail", |_| Err("no"));
    let worker = worker.define_raw_job("ok", move |ctx: WorkerContext| {
        sink.lock().unwrap().push((json!(ctx.job().run_at()), json!(ctx.job().created_at())));
    });
    let worker = worker.init().unwrap();
    let before: String = db.one("select now()::text");
    worker.run_once().unwrap();
    let after: String = db.one("select now()::text");
    let expected = [FIRST, FIRST, "2000-01-01T00:00:00Z"].map(|run_at| (json!(run_at), json!(LAST)));
    assert_eq!(*seen.lock().unwrap(), expected);
    let left = format!(
        "select concat_ws(' ', attempts, last_error, run_at - exp(1) * interval '1 second' between '{before}' and '{after}')
           from graphile_worker._private_jobs where isfinite(run_at)"
    );
    assert_eq!(db.all::<String>(&left), ["1 no t"; 3], "e^1 seconds after the failure");
    assert_eq!((db.jobs(), db.locks()), (4, 0), "one job is due at infinity");
}

#[test]
fn a_failure_of_a_job_rescheduled_to_infinity_is_written() {
    for time in ["infinity", "294276-12-31"] {
        let db = TestDb::new();
        db.add("'t', max_attempts => 3");
        let url = db.url();
        let worker = db.worker().define_raw_job("t", move |ctx: WorkerContext| {
            let mut client = postgres::Client::connect(&url, postgres::NoTls).unwrap();
            let sql =
                format!("update graphile_worker._private_jobs set run_at = '{time}' where id = {}", ctx.job().id());
            client.batch_execute(&sql).unwrap();
            Err("no")
        });
        worker.init().unwrap().run_once().unwrap();
        let row = format!(
            "select concat_ws(' ', attempts, last_error, run_at = '{time}') from graphile_worker._private_jobs"
        );
        assert_eq!(db.one::<String>(&row), "1 no t");
        assert_eq!(db.locks(), 0);
    }
}

#[test]
fn a_time_outside_the_years_1_to_9999_is_refused() {
    let db = TestDb::new();
    for (time, year) in
        [("+10000-01-01T00:00:00Z", "10000"), ("0000-12-31T23:59:59Z", "0"), ("-0001-01-01T00:00:00Z", "-1")]
    {
        let error = db.utils().add_raw_job("t", &(), JobSpec::new().run_at(time.parse().unwrap())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert_eq!(error.to_string(), format!("run_at: year {year} is outside 1 to 9999"));
    }
    for time in [FIRST, LAST, "9999-12-31T23:59:59.999999999Z"] {
        let job = db.utils().add_raw_job("t", &(), JobSpec::new().run_at(time.parse().unwrap())).unwrap();
        assert_eq!(json!(job.run_at()), json!(time.replace("999999999Z", "999999Z")));
    }
}

#[test]
fn cron_goes_on_beside_entries_with_infinite_times() {
    let db = Clocked::new("2026-03-02 08:00:59.999Z");
    db.0.execute(
        "insert into graphile_worker._private_known_crontabs (identifier, known_since, last_execution)
         values ('ended', 'infinity', 'infinity'), ('old', '-infinity', '-infinity'), ('new', '-infinity', null);
         insert into graphile_worker._native_crontabs values ('old', 'infinity'), ('new', '-infinity')",
    );
    let running = db.scheduler("* * * * * ended\n* * * * * old ?fill=1m\n* * * * * new ?fill=1m\n* * * * * other");
    eventually(SOON, || db.known() == 4);
    // The jobs of these minutes are not backfilled: the scheduler runs.
    for minute in ["08:01", "08:02"] {
        db.set(&format!("2026-03-02 {minute}:59.999Z"));
        for task in ["old", "new", "other"] {
            eventually(SOON, || db.ticks(task).contains(&format!("02 {minute}")));
        }
    }
    assert_eq!(db.ticks("ended"), [""; 0]);
    assert!(db.0.one::<bool>(
        "select last_execution = 'infinity' from graphile_worker._private_known_crontabs where identifier = 'ended'"
    ));
    running.stop().0.unwrap();
}

#[test]
fn sweeps_go_on_beside_infinite_times() {
    let db = TestDb::new();
    db.execute(
        "insert into graphile_worker._native_workers (id, started_at, last_heartbeat_at)
         values ('ahead', 'infinity', 'infinity'), ('dead', '-infinity', '-infinity'), ('odd', '-infinity', now())",
    );
    db.add("'t'");
    db.execute("update graphile_worker._private_jobs set locked_by = 'dead', locked_at = '-infinity', run_at = '-infinity', attempts = 1");
    let utils = db.utils();
    let stale: Vec<(String, bool)> = utils
        .list_active_workers(Duration::from_secs(300))
        .unwrap()
        .into_iter()
        .map(|worker| (worker.worker_id, worker.is_stale))
        .collect();
    assert_eq!(stale, [("ahead".into(), false), ("odd".into(), false), ("dead".into(), true)]);
    said(&on(&db, &["workers", "--json"]));

    let mut hooks = HookRegistry::new();
    let never = "+200000-01-01T00:00:00Z".parse().unwrap();
    hooks.on(JobRecovery, move |_| JobRecoveryResult::Reschedule { run_at: never, attempts: None });
    let swept = utils.with_hooks(hooks.into()).sweep_stale_workers(SweepStaleWorkersOptions::default()).unwrap();
    assert_eq!((swept.worker_ids, swept.recovered_count), (vec!["dead".to_owned()], 1));
    assert_eq!(
        db.one::<String>("select run_at at time zone 'UTC' || '' from graphile_worker._private_jobs"),
        "9999-12-31 23:59:59.999999"
    );
}
