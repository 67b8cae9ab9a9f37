//! Managing jobs: listing, changes by hand, and the cleanup beside running enqueues.

use crate::harness::{Running, SOON, TestDb, eventually};
use graphile_worker::{
    CleanupResult, CleanupTask, ErrorKind, ForceUnlockResult, JobSpec, JobState, JobStats, ListJobsOptions, RawJob,
    RescheduleJobOptions,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const NOTHING: RescheduleJobOptions =
    RescheduleJobOptions { run_at: None, now: false, priority: None, attempts: None, max_attempts: None };

/// A job, and its queue if it has one, locked by `worker` for the given number of hours.
fn held(db: &TestDb, worker: &str, hours: u32, arguments: &str) -> i64 {
    let id = db.add(arguments);
    db.execute(&format!(
        "update graphile_worker._private_jobs
            set locked_by = '{worker}', locked_at = now() - interval '{hours} hours', attempts = attempts + 1
          where id = {id};
         update graphile_worker._private_job_queues
            set locked_by = '{worker}', locked_at = now() - interval '{hours} hours'
          where id = (select job_queue_id from graphile_worker._private_jobs where id = {id})"
    ));
    id
}

fn failed(db: &TestDb, arguments: &str) -> i64 {
    let id = db.add(arguments);
    db.execute(&format!("update graphile_worker._private_jobs set attempts = max_attempts where id = {id}"));
    id
}

fn row(db: &TestDb, job: i64, what: &str) -> String {
    db.one(&format!("select coalesce(({what})::text, 'null') from graphile_worker._private_jobs where id = {job}"))
}

/// All rows that a change could modify.
fn snapshot(db: &TestDb) -> String {
    db.one(
        "select jsonb_build_array(
           (select jsonb_agg(j order by id) from graphile_worker._private_jobs j),
           (select jsonb_agg(q order by id) from graphile_worker._private_job_queues q),
           (select jsonb_agg(t order by id) from graphile_worker._private_tasks t))::text",
    )
}

fn ids(jobs: &[graphile_worker::ListedJob]) -> Vec<i64> {
    jobs.iter().map(|job| job.id).collect()
}

#[test]
fn jobs_are_listed_by_task_queue_and_state_page_by_page() {
    let db = TestDb::new();
    let ready = db.add("'a', '{\"n\": 1.50}', queue_name => 'q', job_key => 'k', flags => array['x']");
    let scheduled = db.add("'a', run_at => now() + interval '1 day'");
    let locked = held(&db, "w", 0, "'b', queue_name => 'q'");
    let failed = failed(&db, "'b', max_attempts => 1");
    let utils = db.utils();
    let list = |options: ListJobsOptions| ids(&utils.list_jobs(&options).unwrap());
    let all = || ListJobsOptions::default();
    assert_eq!(list(all()), [ready, scheduled, locked, failed]);
    assert_eq!(list(ListJobsOptions { identifier: Some("a".into()), ..all() }), [ready, scheduled]);
    assert_eq!(list(ListJobsOptions { queue: Some("q".into()), ..all() }), [ready, locked]);
    for (state, id) in JobState::ALL.into_iter().zip([ready, scheduled, locked, failed]) {
        assert_eq!(list(ListJobsOptions { state: Some(state), ..all() }), [id], "{state}");
    }
    assert_eq!(list(ListJobsOptions { limit: 2, offset: 1, ..all() }), [scheduled, locked]);

    let job = utils.job(ready).unwrap().unwrap();
    assert_eq!((&*job.task_identifier, job.queue_name.as_deref(), job.key.as_deref()), ("a", Some("q"), Some("k")));
    assert_eq!((&*job.payload, &*job.flags, job.state), ("{\"n\": 1.50}", &["x".to_owned()][..], JobState::Ready));
    let json = serde_json::to_string(&job).unwrap();
    assert!(json.contains("\"payload\":{\"n\": 1.50},"), "byte for byte: {json}");
    assert!(!format!("{job:?}").contains("1.50"), "no payload in a log");
    assert!(utils.job(ready + 100).unwrap().is_none());
    let error = utils.list_jobs(&ListJobsOptions { limit: -1, ..all() }).unwrap_err();
    assert_eq!((error.kind(), &*error.to_string()), (ErrorKind::Config, "limit: -1 is negative"));
}

#[test]
fn stats_queues_and_locked_workers_count_what_is_there() {
    let db = TestDb::new();
    db.add("'t', queue_name => 'a'");
    db.add("'t', queue_name => 'a', run_at => now() + interval '1 day'");
    held(&db, "w", 0, "'t', queue_name => 'b'");
    held(&db, "w", 0, "'t'");
    held(&db, "v", 0, "'t'");
    failed(&db, "'t'");
    let utils = db.utils();
    let expected = JobStats { total: 6, ready: 1, scheduled: 1, locked: 3, failed: 1 };
    assert_eq!(utils.stats().unwrap(), expected);
    let queues = utils.queues().unwrap();
    let counts: Vec<_> = queues.iter().map(|q| (&*q.queue_name, q.job_count, q.ready_count)).collect();
    assert_eq!(counts, [("a", 2, 1), ("b", 1, 0)]);
    assert_eq!((queues[0].locked_by.as_deref(), queues[1].locked_by.as_deref()), (None, Some("w")));
    let workers = utils.locked_workers().unwrap();
    let counts: Vec<_> = workers.iter().map(|w| (&*w.worker_id, w.locked_jobs, w.locked_queues)).collect();
    assert_eq!(counts, [("v", 1, 0), ("w", 2, 1)]);
}

#[test]
fn changes_by_hand_reach_waiting_jobs_and_leave_running_ones_alone() {
    let db = TestDb::new();
    let utils = db.utils();
    let later = "2031-02-03T04:05:06Z".parse().unwrap();
    let (running, one, two) = (held(&db, "w", 0, "'t'"), db.add("'t', queue_name => 'q'"), db.add("'t'"));
    let before = row(&db, running, "to_jsonb(_private_jobs)");
    let all = [running, one, two, 4711];

    let options = RescheduleJobOptions { run_at: Some(later), priority: Some(-7), max_attempts: Some(3), ..NOTHING };
    let jobs = utils.reschedule_jobs(&all, options).unwrap();
    assert_eq!(ids(&jobs), [one, two]);
    assert_eq!((jobs[0].run_at, jobs[0].priority, jobs[0].max_attempts, jobs[0].attempts), (later, -7, 3, 0));
    assert_eq!((jobs[0].queue_name.as_deref(), jobs[0].state), (Some("q"), JobState::Scheduled));

    let jobs = utils.permanently_fail_jobs(&all, "enough").unwrap();
    assert_eq!((ids(&jobs), jobs[1].state), (vec![one, two], JobState::Failed));
    assert_eq!(row(&db, two, "last_error"), "enough");
    utils.permanently_fail_jobs(&[two], "").unwrap();
    assert_eq!(row(&db, two, "last_error"), "Manually marked as failed");

    assert_eq!(ids(&utils.complete_jobs(&all).unwrap()), [one, two]);
    assert_eq!((db.jobs(), row(&db, running, "to_jsonb(_private_jobs)")), (1, before));
    assert!(utils.complete_jobs(&[]).unwrap().is_empty());
}

#[test] // Node's reschedule treats 0 as "do not change".
fn reschedule_sets_zero() {
    let db = TestDb::new();
    let job = failed(&db, "'t', priority => 5");
    let options = RescheduleJobOptions { priority: Some(0), attempts: Some(0), ..NOTHING };
    let jobs = db.utils().reschedule_jobs(&[job], options).unwrap();
    assert_eq!((jobs[0].priority, jobs[0].attempts, jobs[0].state), (0, 0, JobState::Ready));
    assert_eq!(row(&db, job, "priority || ' ' || attempts"), "0 0");
}

#[test]
fn reschedule_to_now_uses_the_database_time() {
    let db = TestDb::new();
    let job = db.add("'t', run_at => now() + interval '1 day'");
    let jobs = db.utils().reschedule_jobs(&[job], RescheduleJobOptions { now: true, ..NOTHING }).unwrap();
    assert_eq!(jobs[0].state, JobState::Ready);
    assert_eq!(row(&db, job, "run_at = updated_at"), "true", "both are its transaction's now()");
}

#[test] // Node's worker and the async crate leave the lock of the job and of its queue in place.
fn a_lock_older_than_four_hours_is_freed_with_its_queue() {
    let db = TestDb::new();
    let utils = db.utils();
    let job = |queue: &str| held(&db, "dead", 5, &format!("'t', queue_name => '{queue}'"));
    let (complete, fail, again) = (job("a"), job("b"), job("c"));
    held(&db, "living", 1, "'t', queue_name => 'd'");
    assert_eq!(ids(&utils.complete_jobs(&[complete]).unwrap()), [complete]);
    assert_eq!(utils.permanently_fail_jobs(&[fail], "").unwrap()[0].locked_by, None);
    assert_eq!(
        utils.reschedule_jobs(&[again], RescheduleJobOptions { now: true, ..NOTHING }).unwrap()[0].locked_by,
        None
    );
    let queues: Vec<String> =
        db.all("select queue_name from graphile_worker._private_job_queues where not is_available");
    assert_eq!((queues, db.locks()), (vec!["d".to_owned()], 2));
}

#[test]
fn a_rescheduled_or_unlocked_job_starts_without_waiting_for_the_next_poll() {
    let db = TestDb::new();
    let (later, stuck) = (db.add("'t', run_at => now() + interval '1 day'"), held(&db, "dead", 0, "'t'"));
    let options = db.worker().poll_interval(Duration::from_secs(3600)).define_raw_job("t", |_| ());
    let worker = Running::start(options);
    eventually(SOON, || !db.backends("listen").is_empty());
    db.utils().add_raw_job("t", &0, JobSpec::new()).unwrap();
    eventually(SOON, || db.jobs() == 2);
    let utils = worker.worker.create_utils();
    utils.reschedule_jobs(&[later], RescheduleJobOptions { now: true, ..NOTHING }).unwrap();
    eventually(SOON, || db.jobs() == 1);
    utils.force_unlock_workers(&["dead"]).unwrap();
    eventually(SOON, || db.jobs() == 0);
    let _ = stuck;
}

#[test]
fn a_rescheduled_job_has_not_been_recovered_yet() {
    let db = TestDb::new();
    let (one, other) = (db.add("'t'"), db.add("'t'"));
    db.execute(&format!("insert into graphile_worker._native_recoveries values ({one}, 0, 2), ({other}, 0, 2)"));
    db.utils().reschedule_jobs(&[one], RescheduleJobOptions { now: true, ..NOTHING }).unwrap();
    assert_eq!(db.all::<i64>("select job_id from graphile_worker._native_recoveries"), [other]);
    db.execute("drop table graphile_worker._native_recoveries");
    db.utils().reschedule_jobs(&[one], RescheduleJobOptions { now: true, ..NOTHING }).unwrap();
}

#[test]
fn force_unlock_frees_the_jobs_and_queues_of_the_named_workers_only() {
    let db = TestDb::new();
    let dead = held(&db, "dead", 0, "'t', queue_name => 'a'");
    held(&db, "dead", 0, "'t'");
    held(&db, "living", 0, "'t', queue_name => 'b'");
    let unlocked = db.utils().force_unlock_workers(&["dead", "unknown"]).unwrap();
    assert_eq!(unlocked, ForceUnlockResult { jobs: 2, queues: 1 });
    assert_eq!((row(&db, dead, "locked_by"), row(&db, dead, "attempts"), db.locks()), ("null".into(), "1".into(), 2));
}

#[test] // The shared function alone would leave the job permanently failed without an error.
fn a_job_unlocked_on_its_last_attempt_gets_an_error_text() {
    let db = TestDb::new();
    let (last, retried) = (held(&db, "dead", 0, "'t', max_attempts => 1"), held(&db, "dead", 0, "'t'"));
    db.utils().force_unlock_workers(&["dead"]).unwrap();
    assert_eq!(row(&db, last, "last_error"), "unlocked by force during the last attempt");
    assert_eq!(row(&db, retried, "last_error"), "null");
}

#[test]
fn a_dry_run_returns_the_result_and_changes_nothing() {
    let db = TestDb::new();
    let (ready, failed) = (db.add("'t', job_key => 'k', queue_name => 'q'"), failed(&db, "'u'"));
    held(&db, "dead", 0, "'t', queue_name => 'r'");
    db.execute("insert into graphile_worker._private_job_queues (queue_name) values ('unused')");
    let before = snapshot(&db);
    let utils = db.utils().dry_run();
    assert_eq!(ids(&utils.complete_jobs(&[ready, failed]).unwrap()), [ready, failed]);
    assert_eq!(utils.permanently_fail_jobs(&[ready], "").unwrap()[0].state, JobState::Failed);
    let options = RescheduleJobOptions { attempts: Some(0), ..NOTHING };
    assert_eq!(utils.reschedule_jobs(&[failed], options).unwrap()[0].state, JobState::Ready);
    assert!(utils.remove_job("k").unwrap());
    assert_eq!(utils.force_unlock_workers(&["dead"]).unwrap(), ForceUnlockResult { jobs: 1, queues: 1 });
    assert_eq!(utils.cleanup(&CleanupTask::ALL).unwrap(), CleanupResult { jobs: 1, tasks: 1, queues: 1 });
    assert_eq!(utils.cleanup(&[CleanupTask::GcTaskIdentifiers]).unwrap(), CleanupResult::default());
    let mut client = db.client();
    assert_eq!(ids(&utils.with_executor(&mut client).complete_jobs(&[ready]).unwrap()), [ready]);
    assert_eq!(snapshot(&db), before);
    assert_eq!(utils.add_raw_job("t", &0, JobSpec::new()).unwrap_err().kind(), ErrorKind::Misuse);
    assert_eq!(utils.migrate().unwrap_err().kind(), ErrorKind::Misuse);
}

#[test]
fn changes_in_a_callers_transaction_commit_or_roll_back_with_it() {
    let db = TestDb::new();
    let (utils, job) = (db.utils(), db.add("'t', priority => 5"));
    held(&db, "dead", 0, "'t'");
    let before = snapshot(&db);
    let mut client = db.client();
    let mut transaction = client.transaction().unwrap();
    let mut executor = utils.with_executor(&mut transaction);
    executor.reschedule_jobs(&[job], RescheduleJobOptions { priority: Some(0), ..NOTHING }).unwrap();
    executor.permanently_fail_jobs(&[job], "no").unwrap();
    executor.force_unlock_workers(&["dead"]).unwrap();
    assert_eq!(ids(&executor.complete_jobs(&[job]).unwrap()), [job]);
    transaction.rollback().unwrap();
    assert_eq!(snapshot(&db), before);
    let mut transaction = client.transaction().unwrap();
    utils.with_executor(&mut transaction).complete_jobs(&[job]).unwrap();
    transaction.commit().unwrap();
    assert_eq!(db.jobs(), 1);
}

#[test]
fn bad_input_is_named_and_nothing_is_changed() {
    let db = TestDb::new();
    let job = db.add("'t'");
    let before = snapshot(&db);
    let utils = db.utils();
    #[track_caller]
    fn refused<T: std::fmt::Debug>(answer: graphile_worker::Result<T>, words: &str) {
        let error = answer.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    let reschedule = |options| utils.reschedule_jobs(&[job], options);
    refused(reschedule(NOTHING), "nothing to change: set run_at, now, priority, attempts or max_attempts");
    refused(
        reschedule(RescheduleJobOptions { priority: Some(40_000), ..NOTHING }),
        "priority: 40000 is outside -32768",
    );
    refused(reschedule(RescheduleJobOptions { attempts: Some(-1), ..NOTHING }), "attempts: -1 is outside 0 to 32767");
    refused(reschedule(RescheduleJobOptions { max_attempts: Some(0), ..NOTHING }), "max_attempts: 0 is outside 1");
    let twice = RescheduleJobOptions { now: true, run_at: Some("2031-01-01T00:00:00Z".parse().unwrap()), ..NOTHING };
    refused(reschedule(twice), "run_at: cannot be given together with now");
    refused(utils.permanently_fail_jobs(&[job], "a\0b"), "reason: contains a NUL");
    refused(utils.permanently_fail_jobs(&[job], &"x".repeat(65_537)), "reason: has 65537 characters");
    refused(utils.force_unlock_workers(&[""]), "worker id: has 0 characters");
    assert_eq!(snapshot(&db), before);
}

#[test]
fn a_change_that_timed_out_is_not_made_later() {
    let db = TestDb::new();
    let job = db.add("'t'");
    let mut client = db.client();
    let mut transaction = client.transaction().unwrap();
    transaction.execute("select from graphile_worker._private_jobs for update", &[]).unwrap();
    let start = Instant::now();
    let error = db.utils().timeout(Duration::from_millis(300)).complete_jobs(&[job]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(start.elapsed() < Duration::from_secs(3));
    // The server has cancelled the statement too: no session waits for the lock of this transaction.
    eventually(SOON, || db.waiting() == 0);
    transaction.commit().unwrap();
    assert_eq!(db.jobs(), 1);
}

#[test]
fn cleanup_deletes_failed_jobs_unused_tasks_and_unused_queues() {
    let db = TestDb::new();
    failed(&db, "'gone', queue_name => 'gone'");
    // Node does not delete jobs with more attempts than `max_attempts`.
    let over = db.add("'gone'");
    db.execute(&format!("update graphile_worker._private_jobs set attempts = 99 where id = {over}"));
    let (plain, queued) = (db.add("'used'"), db.add("'used', queue_name => 'used'"));
    let running = held(&db, "w", 0, "'running', max_attempts => 1, queue_name => 'running'");
    db.execute("insert into graphile_worker._private_job_queues (queue_name, locked_by, locked_at) values ('locked', 'w', now())");
    db.execute("insert into graphile_worker._private_tasks (identifier) values ('kept')");
    let utils = db.utils().keeping_tasks(["kept"]);
    // In the async crate, one job without a queue prevents the deletion of all queues.
    assert_eq!(utils.cleanup(&CleanupTask::ALL).unwrap(), CleanupResult { jobs: 2, tasks: 1, queues: 1 });
    assert_eq!(ids(&utils.list_jobs(&ListJobsOptions::default()).unwrap()), [plain, queued, running]);
    let names = |sql: &str| db.all::<String>(sql);
    assert_eq!(names("select identifier from graphile_worker._private_tasks order by 1"), ["kept", "running", "used"]);
    let queues = names("select queue_name from graphile_worker._private_job_queues order by 1");
    assert_eq!(queues, ["locked", "running", "used"]);
    assert_eq!(utils.cleanup(&CleanupTask::ALL).unwrap(), CleanupResult::default());
}

#[test]
fn each_cleanup_task_does_its_own_part_only() {
    let db = TestDb::new();
    failed(&db, "'t', queue_name => 'q'");
    db.execute("insert into graphile_worker._private_tasks (identifier) values ('unused')");
    db.execute("insert into graphile_worker._private_job_queues (queue_name) values ('unused')");
    let clean = |task| db.utils().cleanup(&[task]).unwrap();
    assert_eq!(clean(CleanupTask::GcTaskIdentifiers), CleanupResult { jobs: 0, tasks: 1, queues: 0 });
    assert_eq!(clean(CleanupTask::GcJobQueues), CleanupResult { jobs: 0, tasks: 0, queues: 1 });
    assert_eq!(clean(CleanupTask::DeletePermanentlyFailedJobs), CleanupResult { jobs: 1, tasks: 0, queues: 0 });
    assert_eq!(db.utils().cleanup(&[]).unwrap(), CleanupResult::default());
}

#[test]
fn one_cleanup_deletes_many_failed_jobs() {
    let db = TestDb::new();
    db.add_many(25_000, "'t', null, null, null, 1, null, null, null");
    db.execute("update graphile_worker._private_jobs set attempts = 1");
    let deleted = db.utils().cleanup(&[CleanupTask::DeletePermanentlyFailedJobs]).unwrap();
    assert_eq!((deleted.jobs, db.jobs()), (25_000, 0));
}

#[test]
fn a_workers_own_utilities_keep_its_tasks() {
    let db = TestDb::new();
    let worker = db.worker().define_raw_job("mine", |_| ()).init().unwrap();
    db.execute("insert into graphile_worker._private_tasks (identifier) values ('unused')");
    assert_eq!(worker.create_utils().cleanup(&CleanupTask::ALL).unwrap().tasks, 1);
    assert_eq!(db.all::<String>("select identifier from graphile_worker._private_tasks"), ["mine"]);
}

#[test] // In Node's worker and the async crate the job loses its queue, or is lost with its task.
fn a_job_added_by_an_open_transaction_keeps_its_task_and_queue() {
    let db = TestDb::new();
    // Both names exist and no job uses them, so the enqueue inserts neither.
    db.execute("insert into graphile_worker._private_tasks (identifier) values ('t')");
    db.execute("insert into graphile_worker._private_job_queues (queue_name) values ('q')");
    let mut client = db.client();
    let mut adding = client.transaction().unwrap();
    adding.execute("select graphile_worker.add_job('t', queue_name => 'q')", &[]).unwrap();
    let hurried = db.utils().timeout(Duration::from_millis(400));
    for task in [CleanupTask::GcTaskIdentifiers, CleanupTask::GcJobQueues] {
        let error = hurried.cleanup(&[task]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert!(error.to_string().contains("a transaction that adds jobs stays open"), "{error}");
    }
    let utils = db.utils();
    let cleaning = thread::spawn(move || utils.cleanup(&CleanupTask::ALL));
    // The cleanup waits for the lock of the open transaction.
    eventually(SOON, || db.waiting() == 1);
    adding.commit().unwrap();
    assert_eq!(cleaning.join().unwrap().unwrap(), CleanupResult::default());
    assert_eq!(db.one::<String>("select task_identifier || ' ' || queue_name from graphile_worker.jobs"), "t q");
}

#[test]
fn a_cleanup_sees_earlier_jobs_under_any_default_isolation() {
    let db = TestDb::new();
    db.execute(&format!("alter database {} set default_transaction_isolation = 'repeatable read'", db.name()));
    db.execute("insert into graphile_worker._private_tasks (identifier) values ('t')");
    db.execute("insert into graphile_worker._private_job_queues (queue_name) values ('q')");
    let mut client = db.client();
    // The cleanup sees the job only if it waits for the transaction and then looks again.
    let sql = "begin isolation level read committed; select graphile_worker.add_job('t', queue_name => 'q')";
    client.batch_execute(sql).unwrap();
    let utils = db.utils();
    let cleaning = thread::spawn(move || utils.cleanup(&[CleanupTask::GcTaskIdentifiers, CleanupTask::GcJobQueues]));
    eventually(SOON, || db.waiting() == 1);
    client.batch_execute("commit").unwrap();
    assert_eq!(cleaning.join().unwrap().unwrap(), CleanupResult::default());
    assert_eq!(db.one::<String>("select task_identifier || ' ' || queue_name from graphile_worker.jobs"), "t q");
}

#[test]
fn enqueues_and_workers_go_on_while_a_cleanup_waits() {
    let db = TestDb::new();
    db.execute("insert into graphile_worker._private_job_queues (queue_name) values ('unused')");
    // An uncommitted new task name would block the other enqueues by itself.
    db.execute("insert into graphile_worker._private_tasks (identifier) values ('t')");
    let mut client = db.client();
    let mut adding = client.transaction().unwrap();
    adding.execute("select graphile_worker.add_job('t', run_at => now() + interval '1 day')", &[]).unwrap();
    let worker = Running::start(db.worker().define_raw_job("t", |_| ()));
    let utils = db.utils().timeout(Duration::from_secs(2));
    let cleaning = thread::spawn(move || utils.cleanup(&[CleanupTask::GcJobQueues]));
    let (adder, mut longest, mut added) = (db.utils(), Duration::ZERO, 0);
    while !cleaning.is_finished() {
        let start = Instant::now();
        adder.add_raw_job("t", &0, JobSpec::new().queue_name("busy")).unwrap();
        longest = longest.max(start.elapsed());
        added += 1;
    }
    assert_eq!(cleaning.join().unwrap().unwrap_err().kind(), ErrorKind::Timeout);
    println!("NOTE {added} enqueues beside a cleanup that waits; the longest took {longest:?}");
    assert!(longest < Duration::from_millis(1000), "{longest:?}");
    adding.commit().unwrap();
    eventually(SOON, || db.jobs() == 1);
    drop(worker);
}

#[test]
fn no_job_loses_its_task_or_queue_while_cleanups_run_beside_enqueues() {
    let db = TestDb::new();
    let (stop, added) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let adders: Vec<_> = (0..4)
        .map(|adder| {
            let (mut client, stop, added) = (db.client(), stop.clone(), added.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    // Each name has at most one job, which is deleted at once, so the names are unused most of the
                    // time.
                    let sql = format!(
                        "select id from graphile_worker.add_job('t{adder}', queue_name => 'q{adder}', payload => '1')"
                    );
                    let id: Option<i64> = client.query_one(&sql, &[]).unwrap().get(0);
                    let sql = "select task_identifier || queue_name from graphile_worker.jobs where id = $1";
                    let names: Option<String> = client.query_opt(sql, &[&id]).unwrap().map(|row| row.get(0));
                    assert_eq!(names, Some(format!("t{adder}q{adder}")), "job {id:?}");
                    client.execute("delete from graphile_worker._private_jobs where id = $1", &[&id]).unwrap();
                    added.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let (utils, start) = (db.utils(), Instant::now());
    let (mut deleted, mut busy) = (CleanupResult::default(), 0);
    let is_enough =
        |deleted: &CleanupResult| deleted.tasks > 10 && deleted.queues > 10 && added.load(Ordering::Relaxed) > 100;
    while start.elapsed() < Duration::from_secs(3) || (!is_enough(&deleted) && start.elapsed() < 12 * SOON) {
        match utils.cleanup(&CleanupTask::ALL) {
            Ok(result) => {
                deleted.tasks += result.tasks;
                deleted.queues += result.queues;
            }
            Err(error) if error.kind() == ErrorKind::Timeout => busy += 1,
            Err(error) => panic!("{error}"),
        }
    }
    stop.store(true, Ordering::Relaxed);
    adders.into_iter().for_each(|adder| adder.join().expect("a job lost its task or its queue"));
    println!("NOTE {added:?} jobs beside cleanups that deleted {deleted:?}; {busy} timed out");
    assert!(is_enough(&deleted), "{deleted:?}, {added:?}");
}

#[test]
fn a_hundred_thousand_jobs_are_added_and_returned_in_order() {
    let db = TestDb::new();
    let job = |n: usize| RawJob {
        identifier: format!("t{}", n % 5),
        payload: n.to_string(),
        spec: match n % 4 {
            0 => JobSpec::new().queue_name(format!("q{}", n % 100)),
            1 => JobSpec::new().job_key(format!("k{n}")),
            2 => JobSpec::new().priority((n % 10) as i32).flags(["x"]),
            _ => JobSpec::new(),
        },
    };
    let start = Instant::now();
    let jobs = db.utils().add_raw_jobs((0..100_000).map(job).collect()).unwrap();
    println!("NOTE 100,000 jobs in one call: {:?}", start.elapsed());
    assert_eq!((jobs.len(), db.jobs()), (100_000, 100_000));
    for (n, job) in jobs.iter().enumerate() {
        assert_eq!(job.payload(), n.to_string().as_bytes());
    }
}
