//! What a role that owns nothing may do, and the errors that it gets: row security, missing grants, a schema that
//! cannot be used.

use crate::harness::{Role, Running, SOON, TestDb, eventually, with_option};
use graphile_worker::{
    CleanupTask, Error, ErrorKind, JobSpec, ListJobsOptions, RawJob, RescheduleJobOptions, Result,
    SweepStaleWorkersOptions, WorkerContext, WorkerOptions, WorkerUtils,
};
use std::time::Duration;

fn utils(role: &Role) -> WorkerUtils {
    WorkerUtils::connect(&role.url()).expect("connecting")
}

fn worker(role: &Role) -> WorkerOptions {
    WorkerOptions::default().database_url(&role.url()).concurrency(2).define_raw_job("t", |_| ())
}

const USAGE: &str =
    "grant usage on schema graphile_worker to ROLE; grant select on graphile_worker.migrations to ROLE;";
const GRANTS: &str = "grant select, insert, update, delete on all tables in schema graphile_worker to ROLE;";

fn policy(table: &str) -> String {
    format!("create policy p on graphile_worker.{table} to ROLE using (true) with check (true);")
}

/// Every call that reads or changes jobs, with its name and its result.
fn calls(utils: &WorkerUtils, id: i64) -> Vec<(&'static str, Result<()>)> {
    let sweep = SweepStaleWorkersOptions::default();
    let now = RescheduleJobOptions { now: true, ..Default::default() };
    vec![
        ("list", utils.list_jobs(&ListJobsOptions::default()).map(drop)),
        ("show", utils.job(id).map(drop)),
        ("stats", utils.stats().map(drop)),
        ("queues", utils.queues().map(drop)),
        ("locked workers", utils.locked_workers().map(drop)),
        ("active workers", utils.list_active_workers(Duration::from_secs(300)).map(drop)),
        ("complete", utils.complete_jobs(&[id]).map(drop)),
        ("fail", utils.permanently_fail_jobs(&[id], "").map(drop)),
        ("reschedule", utils.reschedule_jobs(&[id], now).map(drop)),
        ("remove", utils.remove_job("k").map(drop)),
        ("force unlock", utils.force_unlock_workers(&["w"]).map(drop)),
        ("cleanup of jobs", utils.cleanup(&[CleanupTask::DeletePermanentlyFailedJobs]).map(drop)),
        ("cleanup of tasks", utils.cleanup(&[CleanupTask::GcTaskIdentifiers]).map(drop)),
        ("cleanup of queues", utils.cleanup(&[CleanupTask::GcJobQueues]).map(drop)),
        ("sweep", utils.sweep_stale_workers(sweep.clone()).map(drop)),
        ("dry sweep", utils.sweep_stale_workers(SweepStaleWorkersOptions { dry_run: true, ..sweep }).map(drop)),
    ]
}

#[track_caller]
fn refused(call: &str, answer: Result<()>, words: &[&str]) -> Error {
    let error = answer.expect_err(call);
    assert_eq!(error.kind(), ErrorKind::Schema, "{call}: {error}");
    for word in words {
        assert!(error.to_string().contains(word), "{call}: {word:?} is not in: {error}");
    }
    error
}

#[test]
fn every_call_refuses_a_role_that_row_security_hides_jobs_from() {
    let db = TestDb::new();
    let id = db.add("'t', queue_name => 'q', job_key => 'k'");
    let role = Role::new(&db, &format!("{USAGE} {GRANTS}"));
    let hidden = "hides all jobs from role";
    for utils in [utils(&role), utils(&role).dry_run()] {
        for (call, answer) in calls(&utils, id) {
            let error = refused(call, answer, &[hidden, "BYPASSRLS"]);
            assert!(!error.is_transient() && error.sqlstate() == Some("42501"), "{call}: {:?}", error.sqlstate());
        }
    }
    refused(
        "add",
        utils(&role).add_raw_job("t", &1, JobSpec::new()).map(drop),
        &["row-level security", "docs/grants.md"],
    );
    for migrate in [true, false] {
        refused("worker", worker(&role).migrate(migrate).init().map(drop), &[hidden]);
    }
    assert_eq!(db.jobs(), 1);
}

#[test]
fn a_policy_for_another_role_gives_no_access() {
    let db = TestDb::new();
    let id = db.add("'t'");
    let role = Role::new(&db, &format!("{USAGE} {GRANTS}"));
    db.execute("create policy p on graphile_worker._private_jobs to current_user using (true)");
    refused("list", utils(&role).job(id).map(drop), &["hides all jobs"]);
    refused("worker", worker(&role).init().map(drop), &["hides all jobs"]);
}

#[test]
fn force_row_security_hides_the_jobs_from_their_owner_too() {
    let db = TestDb::new();
    let id = db.add("'t'");
    let role = Role::new(
        &db,
        "grant all on schema graphile_worker to ROLE; grant all on all tables in schema graphile_worker to ROLE;",
    );
    role.may("alter table graphile_worker._private_jobs owner to ROLE; alter table graphile_worker._private_jobs force row level security");
    refused("stats", utils(&role).stats().map(drop), &["hides all jobs"]);
    refused("show", utils(&role).job(id).map(drop), &["hides all jobs"]);
    role.may("alter table graphile_worker._private_jobs no force row level security; alter table graphile_worker._private_jobs owner to current_user");
}

#[test]
fn the_table_that_hides_rows_is_named() {
    let db = TestDb::new();
    let id = db.add("'t', queue_name => 'q'");
    let role = Role::new(&db, &format!("{USAGE} {GRANTS} {}", policy("_private_jobs")));
    let utils = self::utils(&role);
    assert_eq!(utils.stats().unwrap().total, 1);
    refused("list", utils.list_jobs(&ListJobsOptions::default()).map(drop), &["hides all tasks"]);
    refused("queues", utils.queues().map(drop), &["hides all queues"]);
    refused("worker", worker(&role).init().map(drop), &["hides all queues"]);
    // A new grant takes effect at once, also for a client that was refused before.
    role.may(&policy("_private_tasks"));
    refused("list", utils.list_jobs(&ListJobsOptions::default()).map(drop), &["hides all queues"]);
    role.may(&policy("_private_job_queues"));
    assert_eq!(utils.job(id).unwrap().unwrap().queue_name.as_deref(), Some("q"));
    assert_eq!(utils.queues().unwrap().len(), 1);
}

#[test]
fn a_policy_that_only_allows_reading_refuses_changes_and_workers() {
    let db = TestDb::new();
    let id = db.add("'t'");
    let tables = ["_private_jobs", "_private_tasks", "_private_job_queues"];
    let reading =
        tables.map(|table| format!("create policy r on graphile_worker.{table} for select to ROLE using (true);"));
    let role = Role::new(&db, &format!("{USAGE} {GRANTS} {}", reading.concat()));
    let utils = self::utils(&role);
    assert_eq!(utils.stats().unwrap().total, 1);
    refused("complete", utils.complete_jobs(&[id]).map(drop), &["no update of jobs by row security"]);
    refused("cleanup", utils.cleanup(&[CleanupTask::GcTaskIdentifiers]).map(drop), &["no delete of tasks"]);
    refused("worker", worker(&role).init().map(drop), &["no update of jobs"]);
    assert_eq!(db.jobs(), 1);
}

#[test]
fn a_policy_that_filters_shows_and_changes_what_it_allows() {
    let db = TestDb::new();
    let (mine, other) = (db.add("'t', queue_name => 'mine'"), db.add("'t'"));
    let role = Role::new(
        &db,
        &format!(
            "{USAGE} {GRANTS} {} {}
             create policy p on graphile_worker._private_jobs to ROLE using (job_queue_id is not null);",
            policy("_private_tasks"),
            policy("_private_job_queues"),
        ),
    );
    let utils = self::utils(&role);
    let seen: Vec<i64> = utils.list_jobs(&ListJobsOptions::default()).unwrap().iter().map(|job| job.id).collect();
    assert_eq!((seen, utils.stats().unwrap().total), (vec![mine], 1));
    // With `off`, a statement fails if a policy hides a row from it. A change sets it for itself.
    db.execute(&format!("alter database {} set row_security = off", db.name()));
    assert_eq!(self::utils(&role).complete_jobs(&[mine, other]).unwrap().len(), 1);
    assert_eq!(db.one::<i64>("select id from graphile_worker._private_jobs"), other);
}

#[test]
fn a_worker_without_a_grant_that_it_needs_later_does_not_start() {
    let db = TestDb::new();
    let policies = ["_private_jobs", "_private_tasks", "_private_job_queues"].map(policy).concat();
    let role = Role::new(&db, &format!("{USAGE} {GRANTS} {policies}"));
    for (right, table) in [("delete", "_private_jobs"), ("update", "_private_job_queues"), ("select", "_private_tasks")]
    {
        role.may(&format!("revoke {right} on graphile_worker.{table} from ROLE"));
        let words = [format!("grant {right} on table \"graphile_worker\".{table} to")];
        refused(table, worker(&role).init().map(drop), &[&words[0]]);
        role.may(&format!("grant {right} on graphile_worker.{table} to ROLE"));
    }
    role.may("revoke insert on graphile_worker._private_tasks from ROLE");
    refused("tasks", worker(&role).init().map(drop), &["registering the tasks", "permission denied", "docs/grants.md"]);
}

#[test]
fn grants_on_columns_are_enough_for_calls_that_read_no_others() {
    let db = TestDb::new();
    db.add("'t'");
    let role = Role::new(
        &db,
        &format!(
            "{USAGE} {} grant select (id, locked_at, attempts, max_attempts, is_available) on graphile_worker._private_jobs to ROLE;",
            policy("_private_jobs")
        ),
    );
    refused("stats", utils(&role).stats().map(drop), &["permission denied", "docs/grants.md"]);
    role.may("grant select (run_at) on graphile_worker._private_jobs to ROLE");
    assert_eq!(utils(&role).stats().unwrap().total, 1);
}

#[test]
fn recovery_works_under_policies_or_names_the_missing_right() {
    let db = TestDb::new();
    let policies = ["_private_jobs", "_private_tasks", "_private_job_queues"].map(policy).concat();
    let role = Role::new(&db, &format!("{USAGE} {GRANTS} {policies}"));
    let recovering = || worker(&role).sweep_interval(Duration::from_millis(50));
    refused("hidden", recovering().init().map(drop), &["recovery: ", "hides all rows of _native_workers"]);
    refused(
        "workers",
        utils(&role).list_active_workers(Duration::from_secs(300)).map(drop),
        &["hides all rows of _native_workers"],
    );
    role.may(&["_native_workers", "_native_recoveries"].map(policy).concat());
    role.may("revoke insert on graphile_worker._native_workers from ROLE");
    refused(
        "grant",
        recovering().init().map(drop),
        &["recovery: ", "grant insert on table \"graphile_worker\"._native_workers"],
    );
    role.may("grant insert on graphile_worker._native_workers to ROLE");
    let id = db.add("'t', max_attempts => 3");
    db.execute(&format!(
        "insert into graphile_worker._native_workers (id, last_heartbeat_at) values ('dead', now() - interval '1 hour');
         update graphile_worker._private_jobs set attempts = 1, locked_at = now(), locked_by = 'dead' where id = {id}"
    ));
    let running = Running::start(recovering());
    eventually(SOON, || utils(&role).list_active_workers(Duration::from_secs(300)).unwrap().len() == 2);
    let swept = utils(&role).sweep_stale_workers(SweepStaleWorkersOptions::default()).unwrap();
    assert_eq!((swept.worker_ids, swept.recovered_count), (vec!["dead".to_owned()], 1));
    drop(running);
    db.execute("drop table graphile_worker._native_recoveries, graphile_worker._native_workers");
    refused("missing", recovering().init().map(drop), &["recovery: ", "has no table _native_workers"]);
    assert!(utils(&role).list_active_workers(Duration::from_secs(300)).unwrap().is_empty());
}

/// As the owner, every call must be refused, also the calls that add jobs.
fn all_refuse(db: &TestDb, utils: &WorkerUtils, words: &[&str]) {
    for (call, answer) in calls(utils, 1) {
        refused(call, answer, words);
    }
    let spec = JobSpec::new;
    refused("add", utils.add_raw_job("t", &1, spec()).map(drop), words);
    let many = vec![raw("t", spec()), raw("t", spec().job_key("k"))];
    refused("add many", utils.add_raw_jobs(many).map(drop), words);
    let mut client = db.client();
    let mut transaction = client.transaction().unwrap();
    refused("executor", utils.with_executor(&mut transaction).add_raw_job("t", &1, spec()).map(drop), words);
    drop(transaction);
    let mut transaction = client.transaction().unwrap();
    refused("executor", utils.with_executor(&mut transaction).complete_jobs(&[1]).map(drop), words);
    for migrate in [true, false] {
        refused("worker", db.worker().migrate(migrate).define_raw_job("t", |_| ()).init().map(drop), words);
    }
}

#[test]
fn a_newer_breaking_migration_is_refused_by_every_call_and_every_worker() {
    let db = TestDb::new();
    db.execute("insert into graphile_worker.migrations (id, breaking) values (999, true)");
    let utils = db.utils();
    all_refuse(&db, &utils, &["breaking migration 999", "upgrade"]);
    refused("migrate", utils.migrate(), &["breaking migration 999"]);
    assert_eq!(db.jobs(), 0);
    db.execute("update graphile_worker.migrations set breaking = false where id = 999");
    utils.add_raw_job("t", &1, JobSpec::new()).unwrap();
}

#[test]
fn a_breaking_migration_stops_a_running_worker_with_the_error() {
    let db = TestDb::new();
    let (begun, begins) = std::sync::mpsc::channel();
    let running = Running::start(db.worker().define_raw_job("t", move |_| begun.send(()).unwrap()));
    db.add("'t'");
    begins.recv_timeout(SOON).unwrap();
    db.execute("insert into graphile_worker.migrations (id, breaking) values (998, false), (999, true)");
    // The worker checks before every reconcile, and it reconciles when a session breaks.
    eventually(SOON, || db.backends("fetch").into_iter().any(|pid| db.terminate(pid)));
    let error = running.ends().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Schema, "{error}");
    assert!(error.to_string().contains("breaking migration 999"), "{error}");
    assert_eq!(db.locks(), 0);
}

#[test]
fn a_schema_that_is_too_old_is_refused_by_every_call() {
    let db = TestDb::new();
    db.execute(
        "delete from graphile_worker.migrations where id > 15;
         update graphile_worker.migrations set ts = now() - interval '1 day'",
    );
    all_refuse(&db, &db.utils(), &["migration 15", "needs 18"]);
}

#[test]
fn a_missing_or_dropped_schema_is_one_kind_of_error() {
    let db = TestDb::new();
    let utils = db.utils();
    utils.add_raw_job("t", &1, JobSpec::new()).unwrap();
    assert_eq!(utils.stats().unwrap().total, 1);
    db.execute("alter schema graphile_worker rename to gone");
    let words = ["has no job tables yet", "run migrate first"];
    for utils in [&utils, &db.utils()] {
        for (call, answer) in calls(utils, 1) {
            assert_eq!(refused(call, answer, &words).sqlstate(), Some("3F000"), "{call}");
        }
        let error = refused("add", utils.add_raw_job("t", &1, JobSpec::new()).map(drop), &words);
        assert_eq!((error.sqlstate(), error.to_string().contains("gw_client")), (Some("3F000"), false), "{error}");
    }
    db.execute("alter schema gone rename to graphile_worker");
    assert_eq!(utils.stats().unwrap().total, 1);
}

#[test]
fn tables_without_their_functions_are_an_incomplete_schema() {
    let db = TestDb::new();
    let (before, after) = (db.utils(), db.utils());
    before.add_raw_job("t", &1, JobSpec::new()).unwrap();
    db.execute("drop function graphile_worker.add_job, graphile_worker.complete_jobs, graphile_worker.remove_job");
    for utils in [&before, &after] {
        refused("add", utils.add_raw_job("t", &1, JobSpec::new()).map(drop), &["incomplete", "no function add_job"]);
        refused("complete", utils.complete_jobs(&[1]).map(drop), &["incomplete", "no function complete_jobs"]);
        refused("remove", utils.remove_job("k").map(drop), &["incomplete", "no function remove_job"]);
        assert_eq!(utils.stats().unwrap().total, 1);
    }
}

#[test]
fn a_read_only_server_allows_reads_and_refuses_writes() {
    let db = TestDb::new();
    let id = db.add("'t'");
    let utils = WorkerUtils::connect(&with_option(&db.url(), "default_transaction_read_only", "on")).unwrap();
    assert_eq!(utils.job(id).unwrap().unwrap().id, id);
    utils.migrate().unwrap();
    let error = utils.add_raw_job("t", &1, JobSpec::new()).unwrap_err();
    assert_eq!((error.kind(), error.sqlstate(), error.is_transient()), (ErrorKind::Database, Some("25006"), true));
}

/// A role with the grants of the block in docs/grants.md that names it.
fn documented<'a>(db: &'a TestDb, named: &str) -> Role<'a> {
    let blocks =
        include_str!("../../docs/grants.md").split("```sql\n").skip(1).map(|rest| rest.split_once("```").unwrap().0);
    let of_it: Vec<&str> = blocks.filter(|block| block.contains(named)).collect();
    assert_eq!(of_it.len(), 1, "{named} has one block");
    let role = Role::new(db, "");
    // Twice, as after an upgrade.
    for _ in 0..2 {
        role.may(&of_it[0].replace(named, "ROLE"));
    }
    role
}

fn raw(task: &str, spec: JobSpec) -> RawJob {
    RawJob { identifier: task.into(), payload: "{}".into(), spec }
}

#[test]
fn an_enqueuer_with_the_documented_grants_adds_jobs_and_does_nothing_else() {
    let db = TestDb::new();
    let role = documented(&db, "queue_enqueuer");
    let mut client = postgres::Client::connect(&role.url(), postgres::NoTls).unwrap();
    for arguments in [
        "'t'",
        "'t', '[1]', queue_name => 'q', job_key => 'k', flags => array['f']",
        "'t', '[2]', job_key => 'k'",
        "'t', job_key => 'k', job_key_mode => 'unsafe_dedupe'",
    ] {
        client.query_one(&format!("select graphile_worker.add_job({arguments})"), &[]).unwrap();
    }
    let utils = utils(&role);
    let keyed = || JobSpec::new().job_key("k2").queue_name("q");
    utils.add_raw_job("t", &1, JobSpec::new()).unwrap();
    utils.add_raw_job("t", &1, keyed()).unwrap();
    utils.add_raw_job("t", &1, keyed()).unwrap();
    utils.add_raw_jobs(vec![raw("t", JobSpec::new()), raw("new", keyed()), raw("t", JobSpec::new())]).unwrap();
    let mut transaction = client.transaction().unwrap();
    utils.with_executor(&mut transaction).add_raw_job("t", &1, JobSpec::new()).unwrap();
    transaction.commit().unwrap();
    assert_eq!(db.jobs(), 7);
    let hardened = "select count(*) from pg_proc p, unnest(proconfig) setting
                     where pronamespace = 'graphile_worker'::regnamespace and proname in ('add_job', 'add_jobs')
                       and prosecdef and setting = 'search_path=pg_catalog, pg_temp'";
    assert_eq!(db.one::<i64>(hardened), 2);
    let stranger = Role::new(&db, USAGE);
    let mut strangers = postgres::Client::connect(&stranger.url(), postgres::NoTls).unwrap();
    let error = strangers.batch_execute("select graphile_worker.add_job('t')").unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{error:?}");

    let before = db.one::<String>("select jsonb_agg(j order by id)::text from graphile_worker._private_jobs j");
    for (call, answer) in calls(&utils, 1) {
        refused(call, answer, &[]);
    }
    refused("worker", worker(&role).init().map(drop), &[]);
    for statement in [
        "select * from graphile_worker._private_jobs",
        "select * from graphile_worker.jobs",
        "select graphile_worker.remove_job('k')",
        "select graphile_worker.complete_jobs(array[1])",
        "select graphile_worker.permanently_fail_jobs(array[1])",
        "select graphile_worker.reschedule_jobs(array[1])",
        "select graphile_worker.force_unlock_workers(array['w'])",
        "insert into graphile_worker._private_jobs (task_id) values (1)",
        "update graphile_worker._private_jobs set attempts = 0",
        "delete from graphile_worker._private_jobs",
        "delete from graphile_worker._private_tasks",
        "insert into graphile_worker._private_job_queues (queue_name) values ('x')",
        "insert into graphile_worker.migrations (id, breaking) values (999, true)",
        "create table graphile_worker.mine (id int)",
    ] {
        let error = client.batch_execute(statement).unwrap_err();
        assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{statement}: {error:?}");
    }
    assert_eq!(db.one::<String>("select jsonb_agg(j order by id)::text from graphile_worker._private_jobs j"), before);
}

#[test]
fn a_worker_with_the_documented_grants_runs_retries_schedules_and_recovers() {
    let db = TestDb::new();
    let role = documented(&db, "queue_worker");
    // Beside an enqueuer, whose grants revoke the functions from public.
    let _enqueuer = documented(&db, "queue_enqueuer");
    let dead = db.add("'t', max_attempts => 3");
    db.execute(&format!(
        "insert into graphile_worker._native_workers (id, last_heartbeat_at) values ('dead', now() - interval '1 hour');
         update graphile_worker._private_jobs set attempts = 1, locked_at = now(), locked_by = 'dead' where id = {dead};
         insert into graphile_worker._private_known_crontabs values ('tick', now() - interval '1 hour', now() - interval '1 hour')"
    ));
    let options = WorkerOptions::default()
        .database_url(&role.url())
        .concurrency(2)
        .sweep_interval(Duration::from_secs(3600))
        .define_raw_job("t", |_| ())
        .define_raw_job("fails", |_| Err::<(), _>("not yet"))
        .define_raw_job("adds", |ctx: WorkerContext| ctx.utils().add_raw_job("t", &1, JobSpec::new()).map(drop))
        .with_cron("* * * * * cronned ?id=tick&fill=10m")
        .unwrap();
    let running = Running::start(options);
    db.add("'t', queue_name => 'q'");
    db.add("'fails', queue_name => 'q'");
    db.add("'adds'");
    eventually(SOON, || {
        db.one::<i64>(
            "select count(*) from graphile_worker.jobs where task_identifier in ('t', 'adds') and locked_by is null",
        ) == 0
    });
    eventually(SOON, || {
        db.one::<i64>(
            "select count(*) from graphile_worker.jobs where task_identifier = 'fails' and last_error = 'not yet'",
        ) == 1
    });
    eventually(SOON, || {
        db.one::<i64>("select count(*) from graphile_worker.jobs where task_identifier = 'cronned'") >= 9
    });
    eventually(SOON, || db.one::<i64>("select count(*) from graphile_worker._native_workers where id <> 'dead'") == 1);
    eventually(SOON, || db.one::<i64>("select count(*) from graphile_worker._native_crontabs") == 1);
    let swept = running.worker.create_utils().sweep_stale_workers(SweepStaleWorkersOptions::default()).unwrap();
    assert_eq!((swept.worker_ids, swept.recovered_count), (vec!["dead".to_owned()], 1));
    running.stop().0.unwrap();
    assert_eq!((db.locks(), db.one::<i64>("select count(*) from graphile_worker._native_workers")), (0, 0));
}

#[test]
fn an_operator_with_the_documented_grants_manages_jobs_and_adds_none() {
    let db = TestDb::new();
    let role = documented(&db, "queue_operator");
    let jobs: Vec<i64> = (0..6).map(|n| db.add(&format!("'t', queue_name => 'q{n}', job_key => 'k{n}'"))).collect();
    db.add("'unused'");
    db.execute(&format!(
        "insert into graphile_worker._native_workers (id, last_heartbeat_at) values ('dead', now() - interval '1 hour');
         update graphile_worker._private_jobs set attempts = 1, locked_at = now(), locked_by = 'dead' where id = {};
         update graphile_worker._private_jobs set attempts = 1, locked_at = now(), locked_by = 'stuck' where id = {};
         delete from graphile_worker._private_jobs where key is null",
        jobs[4], jobs[5]
    ));
    let utils = utils(&role);
    assert_eq!(utils.list_jobs(&ListJobsOptions::default()).unwrap().len(), 6);
    assert_eq!(utils.job(jobs[0]).unwrap().unwrap().queue_name.as_deref(), Some("q0"));
    assert_eq!(
        (utils.stats().unwrap().total, utils.queues().unwrap().len(), utils.locked_workers().unwrap().len()),
        (6, 6, 2)
    );
    assert_eq!(utils.list_active_workers(Duration::from_secs(300)).unwrap().len(), 1);
    assert_eq!(utils.complete_jobs(&[jobs[0]]).unwrap().len(), 1);
    assert_eq!(utils.permanently_fail_jobs(&[jobs[1]], "no").unwrap().len(), 1);
    let again = RescheduleJobOptions { now: true, attempts: Some(0), ..Default::default() };
    assert_eq!(utils.reschedule_jobs(&[jobs[1]], again).unwrap().len(), 1);
    assert!(utils.remove_job("k2").unwrap());
    assert_eq!(utils.force_unlock_workers(&["stuck"]).unwrap().jobs, 1);
    assert_eq!(utils.sweep_stale_workers(SweepStaleWorkersOptions::default()).unwrap().recovered_count, 1);
    utils.permanently_fail_jobs(&[jobs[1]], "no").unwrap();
    let cleaned = utils.cleanup(&CleanupTask::ALL).unwrap();
    assert_eq!((cleaned.jobs, cleaned.tasks, cleaned.queues), (1, 1, 3));
    assert_eq!(db.all::<i64>("select id from graphile_worker._private_jobs order by id"), jobs[3..]);
    refused("add", utils.add_raw_job("t", &1, JobSpec::new()).map(drop), &["docs/grants.md"]);
    assert_eq!(db.jobs(), 3);
}
