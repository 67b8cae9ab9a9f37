//! Keys: what happens to a key's job if the key is added again or removed, in each state of the job.

use crate::harness::{Running, SOON, TestDb, eventually};
use crossbeam_channel::{Sender, bounded};
use graphile_worker::{ErrorKind, JobKeyMode, JobSpec, RawJob, WorkerContext};
use std::time::Duration;

/// The payload, key, attempts and error of each job, oldest first.
fn rows(db: &TestDb) -> Vec<String> {
    db.all(
        "select concat_ws(' ', payload, coalesce(key, 'no key'), attempts || '/' || max_attempts, last_error)
           from graphile_worker._private_jobs order by id",
    )
}

/// A worker that has started the added job. A handler ends when the sender is dropped, and fails if the payload is
/// "old".
fn running(db: &TestDb) -> (Running, Sender<()>) {
    let (release, wait) = bounded::<()>(0);
    let options = db.worker().concurrency(1).define_raw_job("t", move |ctx: WorkerContext| {
        let _ = wait.recv_timeout(SOON);
        if ctx.payload() == b"\"old\"" { Err("too late") } else { Ok(()) }
    });
    let running = Running::start(options);
    eventually(SOON, || running.worker.stats().running == 1);
    (running, release)
}

#[test] // Upstream: main.runTaskList.test.ts, addJob.test.ts
fn replacing_a_pending_job_sets_every_attribute() {
    let db = TestDb::new();
    let first = db.add("'a', '{\"n\": 1}', 'q', now() + interval '1 day', 3, 'k', 7, array['f']");
    assert_eq!(db.add("'b', job_key => 'k'"), first);
    let row =
        "select concat_ws(' ', task_identifier, queue_name, run_at <= now(), max_attempts, priority, flags, revision)
                 from graphile_worker.jobs";
    assert_eq!((db.one::<String>(row).as_str(), rows(&db)), ("b t 25 0 1", vec!["{} k 0/25".to_owned()]));
}

#[test]
fn run_at_is_preserved_only_before_the_first_attempt() {
    let db = TestDb::new();
    let utils = db.utils();
    let preserve = || JobSpec::new().job_key("k").job_key_mode(JobKeyMode::PreserveRunAt);
    let first = utils.add_raw_job("t", "old", JobSpec::new().job_key("k")).unwrap();
    assert_eq!(utils.add_raw_job("t", "old", preserve()).unwrap().run_at(), first.run_at());
    db.worker().define_raw_job("t", |_| Err("no")).init().unwrap().run_once().unwrap();
    let failed = "select run_at > now() and attempts = 1 and last_error = 'no' from graphile_worker.jobs";
    assert!(db.one::<bool>(failed));
    let again = utils.add_raw_job("t", "new", preserve()).unwrap();
    assert_eq!(again.id(), first.id());
    assert!(db.one::<bool>("select run_at <= now() from graphile_worker.jobs"), "due at once");
    assert_eq!(rows(&db), ["\"new\" k 0/25"], "all attempts left and no error");
}

#[test]
fn an_unknown_key_mode_is_refused_by_the_shared_functions() {
    let db = TestDb::new();
    let add = "select graphile_worker.add_job('t', job_key => 'k', job_key_mode => 'often')";
    let error = db.client().batch_execute(add).unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some("GWBKM"));
    assert_eq!(db.jobs(), 0);
}

#[test]
fn the_key_of_a_completed_job_adds_a_new_one() {
    let db = TestDb::new();
    let first = db.add("'t', job_key => 'k'");
    db.worker().define_raw_job("t", |_| ()).init().unwrap().run_once().unwrap();
    assert_ne!(db.add("'t', job_key => 'k'"), first);
    assert_eq!(rows(&db), ["{} k 0/25"]);
}

#[test]
fn the_key_of_a_running_job_adds_a_second_and_ends_its_retries() {
    let db = TestDb::new();
    db.add("'t', '\"old\"', job_key => 'k'");
    let (running, release) = running(&db);
    db.add("'t', '\"new\"', job_key => 'k', run_at => now() + interval '1 day'");
    assert_eq!(rows(&db), ["\"old\" no key 25/25", "\"new\" k 0/25"]);
    drop(release);
    eventually(SOON, || running.worker.stats().failed == 1);
    assert_eq!(rows(&db), ["\"old\" no key 25/25 too late", "\"new\" k 0/25"]);
    assert_eq!((db.locks(), running.worker.stats().lost), (0, 0));
}

#[test]
fn removed_jobs_are_deleted_or_if_running_not_retried() {
    let db = TestDb::new();
    let utils = db.utils();
    db.add("'t', job_key => 'k'");
    assert!(utils.remove_job("k").unwrap());
    assert_eq!(db.jobs(), 0);
    for (payload, expected) in [("old", vec!["\"old\" no key 25/25 too late"]), ("new", vec![])] {
        db.execute("delete from graphile_worker._private_jobs");
        db.add(&format!("'t', '\"{payload}\"', job_key => 'k'"));
        let (running, release) = running(&db);
        assert!(utils.remove_job("k").unwrap());
        assert_eq!(rows(&db), [format!("\"{payload}\" no key 25/25")]);
        drop(release);
        eventually(SOON, || running.worker.stats().failed + running.worker.stats().completed == 1);
        assert_eq!((rows(&db), db.locks()), (expected.into_iter().map(str::to_owned).collect(), 0));
    }
}

#[test]
fn a_removal_leaves_a_job_alone_that_is_added_meanwhile() {
    let db = TestDb::new();
    // Stops a removal between its statements, until the holder lets it go on.
    db.execute(
        "create function public.wait() returns trigger language plpgsql as $$
         begin perform pg_advisory_xact_lock(7); return null; end $$;
         create trigger wait after delete on graphile_worker._private_jobs
           for each statement execute function public.wait()",
    );
    let (mut holder, mut adder) = (db.client(), db.client());
    holder.batch_execute("select pg_advisory_lock(7)").unwrap();
    let mut adding = adder.transaction().unwrap();
    adding.batch_execute("select graphile_worker.add_job('t', job_key => 'k')").unwrap();
    let utils = db.utils();
    let removal = std::thread::spawn(move || utils.remove_job("k"));
    eventually(SOON, || removal.is_finished() || db.waiting() > 0);
    adding.commit().unwrap();
    holder.batch_execute("select pg_advisory_unlock(7)").unwrap();
    assert!(!removal.join().unwrap().unwrap(), "no job had the key");
    assert_eq!(rows(&db), ["{} k 0/25"]);
}

#[test]
fn lists_of_one_key_are_joined_and_anything_else_is_replaced() {
    let db = TestDb::new();
    let add = |payload: &str| {
        db.add(&format!("'t', '{payload}', job_key => 'k'"));
        db.one::<String>("select payload::text from graphile_worker._private_jobs")
    };
    assert_eq!(add("[1]"), "[1]");
    assert_eq!(add("[{\"a\": 2}]"), "[1, {\"a\": 2}]");
    assert_eq!(add("{\"a\": 3}"), "{\"a\": 3}");
    assert_eq!(add("[4]"), "[4]");
}

#[test]
fn joined_lists_keep_every_byte_of_their_items() {
    let db = TestDb::new();
    let utils = db.utils();
    let lists = [
        r#"["\u0000"]"#,
        r#" [ "\ud800" , "\udc00\ud800" ] "#,
        r#"[{"b":1,  "a":1.10, "b":2}]"#,
        "[123456789012345678901234567890.10, 1e400, -0.0, 1E5]",
        "\n[\t\"ä🦀\"\r]\n",
        "[[], {}, null, \"]\", \"[\"]",
    ];
    let inside = lists.map(|list| {
        let list = list.trim();
        &list[1..list.len() - 1]
    });
    let payload = "select payload::text from graphile_worker._private_jobs where key = 'k'";
    for (count, list) in (1..).zip(lists) {
        let job = RawJob { identifier: "t".into(), payload: list.into(), spec: JobSpec::new().job_key("k") };
        let beside = RawJob { identifier: "t".into(), payload: "1".into(), spec: JobSpec::new().job_key("beside") };
        // Alone in a call, and together with another job.
        let added = utils.add_raw_jobs(if count % 2 == 0 { vec![job] } else { vec![job, beside] }).unwrap();
        let joined = db.one::<String>(payload);
        assert_eq!(joined.trim(), format!("[{}]", inside[..count].join(", ")));
        assert_eq!(added[0].payload(), joined.as_bytes());
    }
    let before = db.one::<String>(payload);
    for empty in ["[]", " [ \n] "] {
        db.add(&format!("'t', '{empty}', job_key => 'k'"));
        assert_eq!(db.one::<String>(payload), before);
        db.add(&format!("'t', '{empty}', job_key => 'empty'"));
    }
    db.add("'t', '[1 ]', job_key => 'empty'");
    assert_eq!(db.one::<String>("select payload::text from graphile_worker._private_jobs where key = 'empty'"), "[1 ]");
}

#[test]
fn a_list_that_another_workers_function_cannot_join_is_named() {
    let db = TestDb::new();
    db.execute(
        "do $do$ begin execute regexp_replace(
           pg_get_functiondef('graphile_worker.add_jobs'::regproc), 'then case.*?end\\s+else excluded',
           'then (job.payload::jsonb || excluded.payload::jsonb)::json else excluded'); end $do$",
    );
    let utils = db.utils();
    let job = |key: &str, payload: &str| RawJob {
        identifier: "t".into(),
        payload: payload.into(),
        spec: JobSpec::new().job_key(key),
    };
    utils.add_raw_jobs(vec![job("good", "[1]"), job("bad", "[1]"), job("other", "{}")]).unwrap();
    let bad = || job("bad", r#"["\ud800"]"#);
    for jobs in [vec![bad()], vec![job("good", "[2]"), bad(), job("other", "{}")]] {
        let error = utils.add_raw_jobs(jobs).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Payload, "{error}");
        assert!(error.to_string().starts_with("job_key \"bad\": a list"), "{error}");
    }
    // The jobs are added in the order of their keys.
    assert_eq!(rows(&db), ["[1] bad 0/25", "[1] good 0/25", "{} other 0/25"]);
}

#[test] // Upstream: the async crate's test of deduplication
fn concurrent_adds_with_a_running_jobs_key_lose_no_job() {
    let db = TestDb::new();
    db.add("'t', '\"old\"', job_key => 'k'");
    let (_running, release) = running(&db);
    let spec = JobSpec::new().job_key("k").run_at("2040-01-01T00:00:00Z".parse().unwrap());
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (utils, spec) = (db.utils(), spec.clone());
            scope.spawn(move || {
                let job = RawJob { identifier: "t".into(), payload: format!("[{n}]"), spec };
                assert_eq!(utils.add_raw_jobs(vec![job]).unwrap()[0].key(), Some("k"));
            });
        }
    });
    // Lists of one key are joined, so the list shows that no job was lost.
    let had: Vec<i32> = db.all(
        "select value::text::int from graphile_worker._private_jobs, json_array_elements(payload)
          where key = 'k' order by 1",
    );
    assert_eq!((had, db.jobs()), ((0..8).collect(), 2));
    drop(release);
}

#[test]
fn a_job_that_was_superseded_while_it_ran_is_not_revived_by_a_stop() {
    let db = TestDb::new();
    for supersede in ["add_job('t', '\"new\"', job_key => 'k', run_at => '2040-01-01')", "remove_job('k')"] {
        db.execute("delete from graphile_worker._private_jobs");
        // With one attempt, only the key distinguishes the job from one that may be retried.
        db.add("'t', '\"old\"', job_key => 'k', max_attempts => 1");
        let options =
            db.worker().shutdown_grace_period(Duration::from_millis(50)).define_raw_job("t", |ctx: WorkerContext| {
                while !ctx.is_cancelled() {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err("stopped early")
            });
        let running = Running::start(options);
        eventually(SOON, || running.worker.stats().running == 1);
        db.execute(&format!("select graphile_worker.{supersede}"));
        running.stop().0.unwrap();
        let old: String = db.one(
            "select is_available || ' ' || (locked_at is null) || ' ' || (key is null)
               from graphile_worker._private_jobs where payload::text = '\"old\"'",
        );
        assert_eq!(old, "false true true", "after {supersede}");
    }
}
