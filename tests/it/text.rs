//! Databases with other encodings than UTF8: characters that they do not have, and text in them that is not UTF-8.

use crate::cli::{on, said};
use crate::harness::TestDb;
use graphile_worker::{
    Error, ErrorKind, JobSpec, JobState, ListJobsOptions, RawJob, RescheduleJobOptions, SweepStaleWorkersOptions,
    WorkerContext,
};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Attempts, error and lock of each job, by id.
fn fates(db: &TestDb) -> Vec<String> {
    db.all(
        "select concat_ws(' ', attempts, coalesce(last_error, '-'), locked_at is not null)
           from graphile_worker._private_jobs order by id",
    )
}

#[test]
fn a_failure_is_stored_with_escapes_in_another_encoding() {
    for (encoding, stored) in [
        ("LATIN1", "caf\u{e9} \\u{20ac}\\u{1f980} \\u{1f980}"),
        ("WIN1252", "caf\u{e9} \u{20ac}\\u{1f980} \\u{1f980}"),
        ("EUC_JP", "caf\u{e9} \\u{20ac}\\u{1f980} \\u{1f980}"),
    ] {
        let db = TestDb::encoded(encoding);
        db.execute("select graphile_worker.add_job('fail', max_attempts => 3) from generate_series(1, 5)");
        db.execute("select graphile_worker.add_job('work') from generate_series(1, 20)");
        let worker = db.worker().define_raw_job("work", |_: WorkerContext| ());
        let worker = worker.define_raw_job("fail", |_| Err("caf\u{e9} \u{20ac}\u{1f980} \u{1f980}")).init().unwrap();
        worker.run_once().unwrap();
        assert_eq!(fates(&db), vec![format!("1 {stored} f"); 5], "{encoding}");
        assert_eq!(db.utils().list_jobs(&ListJobsOptions::default()).unwrap()[0].last_error.as_deref(), Some(stored));
    }
}

#[test]
fn a_text_in_a_foreign_script_is_stored_as_escapes() {
    let db = TestDb::encoded("LATIN1");
    let id = db.add("'t'");
    let greek: String = ('α'..='ω').collect();
    let text = greek.clone();
    db.worker().define_raw_job("t", move |_| Err(text.clone())).init().unwrap().run_once().unwrap();
    let escapes: String = greek.chars().map(|c| c.escape_unicode().to_string()).collect();
    assert_eq!(fates(&db), [format!("1 {escapes} f")]);
    let failed = db.utils().permanently_fail_jobs(&[id], "ist \u{fc}berfl\u{fc}ssig \u{1f980}").unwrap();
    assert_eq!(failed[0].last_error.as_deref(), Some("ist \u{fc}berfl\u{fc}ssig \\u{1f980}"));
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, Error>, words: &str) {
    let error = answer.expect_err("must be refused");
    assert_eq!(
        (error.kind(), error.sqlstate(), error.is_transient()),
        (ErrorKind::Config, Some("22P05"), false),
        "{error}"
    );
    assert!(error.to_string().starts_with(words), "{error}");
}

#[test]
fn a_callers_text_is_refused_by_its_field_and_never_changed() {
    let db = TestDb::encoded("LATIN1");
    let utils = db.utils();
    let crab = "a\u{1f980}";
    let place = "character 2 is U+1F980, which the encoding of the database cannot hold";
    let spec = JobSpec::new;
    refused(utils.add_raw_job(crab, &json!({}), spec()), &format!("task name: {place}"));
    refused(utils.add_raw_job("t", &json!({ "secret": crab }), spec()), "payload: character 13 is U+1F980");
    refused(utils.add_raw_job("t", &json!({}), spec().queue_name(crab)), &format!("queue_name: {place}"));
    refused(utils.add_raw_job("t", &json!({}), spec().job_key(crab)), &format!("job_key: {place}"));
    refused(utils.add_raw_job("t", &json!({}), spec().flags(["x", crab])), &format!("flags: {place}"));
    let raw = |payload: &str, key: &str| RawJob {
        identifier: "t".into(),
        payload: payload.into(),
        spec: spec().job_key(key),
    };
    refused(utils.add_raw_jobs(vec![raw("1", "a"), raw("\"\u{1f980}\"", "b")]), "job 1: payload: character 2");
    refused(utils.add_raw_jobs(vec![raw("1", "a"), raw("2", crab)]), &format!("job 1: job_key: {place}"));
    refused(utils.remove_job(crab), &format!("job_key: {place}"));
    refused(utils.force_unlock_workers(&["w", crab]), &format!("worker id: {place}"));
    let of = |identifier: Option<&str>, queue: Option<&str>| ListJobsOptions {
        identifier: identifier.map(str::to_owned),
        queue: queue.map(str::to_owned),
        ..Default::default()
    };
    refused(utils.list_jobs(&of(Some(crab), None)), &format!("identifier: {place}"));
    refused(utils.list_jobs(&of(None, Some(crab))), &format!("queue: {place}"));
    let tables = "select (select count(*) from graphile_worker._private_jobs) + (select count(*) from graphile_worker._private_tasks)";
    assert_eq!(db.one::<i64>(tables), 0);

    utils.add_raw_job("caf\u{e9}", &"\u{e9}", spec().queue_name("\u{e9}").job_key("\u{e9}").flags(["\u{e9}"])).unwrap();
    assert_eq!(utils.list_jobs(&of(Some("caf\u{e9}"), Some("\u{e9}"))).unwrap().len(), 1);
    // A JSON escape is ASCII, so the database can store it unchanged.
    utils.add_raw_jobs(vec![raw("\"\\ud83e\\udd80\"", "k")]).unwrap();
}

#[test]
fn a_worker_with_a_name_outside_the_encoding_does_not_start() {
    let db = TestDb::encoded("LATIN1");
    let worker = || db.worker().define_raw_job("t", |_: WorkerContext| ());
    let cron = |text: &str| worker().with_cron(text).unwrap().init().map(drop);
    let named = db.worker().define_raw_job("a\u{1f980}", |_: WorkerContext| ());
    refused(named.init().map(drop), "task name: character 2 is U+1F980");
    refused(worker().add_forbidden_flag("a\u{1f980}").init().map(drop), "forbidden flag: character 2 is U+1F980");
    refused(cron("* * * * * t {a:'\u{1f980}'}"), "crontab entry \"t\": payload: character 7 is U+1F980");
    refused(cron("* * * * * t ?jobKey=%F0%9F%A6%80"), "crontab entry \"t\": job_key: character 1 is U+1F980");
    refused(cron("* * * * * '\u{1f980}' ?id=a"), "crontab entry \"a\": task name: character 1");
    assert_eq!(db.one::<i64>("select count(*) from graphile_worker._private_tasks"), 0);
    worker().with_cron("* * * * * t {a:'\u{e9}'}").unwrap().init().unwrap();
}

/// Adds jobs with one byte each that is not UTF-8, in different columns. Returns the ids of the three jobs whose broken
/// column a worker reads. A worker does not read the broken columns of the fourth job.
fn broken(db: &TestDb, byte: &str) -> [i64; 3] {
    let broken = [
        db.add(&format!("'t', E'\"{byte}\"'")),
        db.add(&format!("'t', job_key => E'key{byte}'")),
        db.add(&format!("'t', flags => array[E'flag{byte}']")),
    ];
    let id = db.add(&format!("'t', queue_name => E'queue{byte}', max_attempts => 3"));
    db.execute(&format!("update graphile_worker._private_jobs set last_error = E'error{byte}' where id = {id}"));
    broken
}

#[test]
fn unreadable_jobs_fail_with_the_column_and_the_others_run() {
    for (encoding, byte, why) in [
        ("SQL_ASCII", "\\xff", ["payload is not valid UTF-8", "key is not valid UTF-8", "flags is not valid UTF-8"]),
        (
            "WIN1252",
            "\\x81",
            [
                "payload has a character that UTF-8 does not have",
                "key has a character that UTF-8 does not have",
                "flags has a character that UTF-8 does not have",
            ],
        ),
    ] {
        let db = TestDb::encoded(encoding);
        let set_aside = broken(&db, byte);
        let add = "select graphile_worker.add_job('t', '\"caf\u{e9}\"', job_key => 'k\u{e9}' || n) from generate_series(1, 20) n";
        db.execute(add);
        let ran = Arc::new(AtomicUsize::new(0));
        let counter = ran.clone();
        let worker = db.worker().define_raw_job("t", move |ctx: WorkerContext| {
            assert!(ctx.job().key().is_none_or(|key| key.starts_with("k\u{e9}")));
            counter.fetch_add(1, Ordering::Relaxed);
        });
        worker.init().unwrap().run_once().unwrap();
        assert_eq!(ran.load(Ordering::Relaxed), 21, "{encoding}");
        assert_eq!(fates(&db), why.map(|why| format!("25 the job cannot be read: {why} f")), "{encoding}");
        assert_eq!(db.all::<i64>("select id from graphile_worker._private_jobs order by id"), set_aside);
    }
}

#[test]
fn a_job_that_is_read_again_may_be_the_first_of_its_claim() {
    let db = TestDb::encoded("SQL_ASCII");
    db.execute("select graphile_worker.add_job('t', '\"caf\u{e9}\"', priority => -1)");
    broken(&db, "\\xff");
    let worker = db.worker().concurrency(10).define_raw_job("t", |_| ());
    worker.init().unwrap().run_once().unwrap();
    assert_eq!(db.one::<i64>("select count(*) from graphile_worker._private_jobs where priority = -1"), 0);
}

#[test]
fn rows_that_cannot_be_read_are_shown_with_replacements() {
    for (encoding, byte) in [("SQL_ASCII", "\\xff"), ("WIN1252", "\\x81")] {
        let db = TestDb::encoded(encoding);
        let [payload, ..] = broken(&db, byte);
        db.execute(&format!(
            "update graphile_worker._private_job_queues set locked_at = now(), locked_by = E'w{byte}'"
        ));
        let utils = db.utils();
        let jobs = utils.list_jobs(&ListJobsOptions::default()).unwrap();
        assert_eq!(jobs[0].payload, "\"\u{fffd}\"");
        assert_eq!(jobs[1].key.as_deref(), Some("key\u{fffd}"));
        assert_eq!(jobs[2].flags, ["flag\u{fffd}"]);
        assert_eq!(jobs[3].last_error.as_deref(), Some("error\u{fffd}"));
        assert_eq!(utils.queues().unwrap()[0].queue_name, "queue\u{fffd}");
        assert_eq!(utils.locked_workers().unwrap()[0].worker_id, "w\u{fffd}");
        assert_eq!(utils.stats().unwrap().total, 4);

        let list: Value = serde_json::from_str(&said(&on(&db, &["list", "--json"]))).unwrap();
        assert_eq!(list[0]["payload"], "\u{fffd}");
        assert!(said(&on(&db, &["list"])).contains("key\u{fffd}"));
        assert!(said(&on(&db, &["show", &payload.to_string()])).contains("\u{fffd}"));
        assert!(said(&on(&db, &["queues"])).contains("queue\u{fffd}"));
        assert!(said(&on(&db, &["workers"])).contains("w\u{fffd}"));
        said(&on(&db, &["stats"]));

        // The calls that change these jobs work too.
        let all: Vec<i64> = jobs.iter().map(|job| job.id).collect();
        utils.reschedule_jobs(&all, RescheduleJobOptions { priority: Some(1), ..Default::default() }).unwrap();
        assert_eq!(utils.permanently_fail_jobs(&all[..1], "broken").unwrap()[0].state, JobState::Failed);
        assert_eq!(utils.complete_jobs(&all).unwrap().len(), 4);
    }
}

#[test]
fn a_sweep_recovers_jobs_that_cannot_be_read() {
    for (encoding, byte) in [("SQL_ASCII", "\\xff"), ("WIN1252", "\\x81")] {
        let db = TestDb::encoded(encoding);
        broken(&db, byte);
        db.execute("insert into graphile_worker._native_workers (id, last_heartbeat_at) values ('dead', now() - interval '1 h')");
        db.execute("update graphile_worker._private_jobs set locked_by = 'dead', locked_at = now(), attempts = 1");
        let swept = db.utils().sweep_stale_workers(SweepStaleWorkersOptions::default()).unwrap();
        assert_eq!(
            (swept.recovered_count, db.one::<i64>("select sum(attempts) from graphile_worker._private_jobs")),
            (4, 0),
            "{encoding}"
        );
    }
}

#[test]
fn jobs_run_in_databases_of_other_encodings() {
    for (encoding, text) in
        [("LATIN1", "caf\u{e9}"), ("EUC_JP", "\u{65e5}\u{672c}"), ("WIN1251", "\u{436}"), ("SQL_ASCII", "\u{1f980}")]
    {
        let db = TestDb::encoded(encoding);
        db.utils().add_raw_job(text, &text, JobSpec::new().queue_name(text).job_key(text)).unwrap();
        let seen = Arc::new(Mutex::new(None));
        let sink = seen.clone();
        let worker = db.worker().define_raw_job(text, move |ctx: WorkerContext| {
            *sink.lock().unwrap() =
                Some((ctx.job().payload_as::<String>().unwrap(), ctx.job().key().map(str::to_owned)));
        });
        worker.init().unwrap().run_once().unwrap();
        assert_eq!(*seen.lock().unwrap(), Some((text.to_owned(), Some(text.to_owned()))), "{encoding}");
    }
}
