//! Adding jobs: options, keys, bulk, the caller's transaction, and the errors for bad input.

use crate::harness::{Running, SOON, Tally, TestDb, eventually};
use graphile_worker::{ErrorKind, JobKeyMode, JobSpec, RawJob, WorkerContext};
use std::time::Duration;

fn raw(payload: &str, spec: JobSpec) -> RawJob {
    RawJob { identifier: "t".into(), payload: payload.into(), spec }
}

#[test]
fn every_option_reaches_the_row() {
    let db = TestDb::new();
    let run_at = "2031-02-03T04:05:06.789012Z".parse().unwrap();
    let spec =
        JobSpec::new().queue_name("q").run_at(run_at).max_attempts(3).job_key("k").priority(-7).flags(["a", "b"]);
    let job = db.utils().add_raw_job("t", &[1, 2], spec).unwrap();
    assert_eq!((job.run_at(), job.max_attempts(), job.priority(), job.key()), (run_at, 3, -7, Some("k")));
    assert_eq!((job.task_identifier(), job.payload(), job.attempts()), ("t", b"[1,2]".as_slice(), 0));
    let mut flags = job.flags();
    flags.sort();
    assert_eq!(flags, ["a", "b"]);
    assert_eq!(db.one::<String>("select queue_name from graphile_worker.jobs"), "q");
}

#[test]
fn the_three_key_modes_behave_as_documented() {
    let db = TestDb::new();
    let utils = db.utils();
    let later = "2031-01-01T00:00:00Z".parse().unwrap();
    let add = |payload: &str, mode| {
        let spec = JobSpec::new().job_key("k").job_key_mode(mode);
        let spec = if payload == "first" { spec.run_at(later) } else { spec };
        utils.add_raw_job("t", payload, spec).unwrap()
    };
    let first = add("first", JobKeyMode::Replace);
    let kept = add("kept run_at", JobKeyMode::PreserveRunAt);
    assert_eq!((kept.id(), kept.run_at(), kept.payload()), (first.id(), later, b"\"kept run_at\"".as_slice()));
    let deduped = add("unseen", JobKeyMode::UnsafeDedupe);
    assert_eq!((deduped.payload(), deduped.revision()), (b"\"kept run_at\"".as_slice(), 2));
    let replaced = add("replaced", JobKeyMode::Replace);
    assert!(replaced.run_at() < later && replaced.id() == first.id());
    assert!(utils.remove_job("k").unwrap());
    assert!(!utils.remove_job("k").unwrap());
    assert_eq!(db.jobs(), 0);
}

#[test]
fn bulk_results_are_in_the_order_of_the_request() {
    let db = TestDb::new();
    let specs: Vec<RawJob> = (0..300)
        .map(|n| RawJob {
            identifier: format!("t{}", n % 7),
            payload: format!("{{ \"n\": {n} }}"),
            spec: match n % 5 {
                0 => JobSpec::new().queue_name(format!("q{}", n % 3)),
                1 => JobSpec::new().job_key(format!("k{}", 1000 - n)),
                2 => JobSpec::new().job_key(format!("p{n}")).job_key_mode(JobKeyMode::PreserveRunAt),
                3 => JobSpec::new().job_key(format!("u{n}")).job_key_mode(JobKeyMode::UnsafeDedupe).flags(["x"]),
                _ => JobSpec::new().priority(n).flags(["b", "a"]),
            },
        })
        .collect();
    let jobs = db.utils().add_raw_jobs(specs.clone()).unwrap();
    for (job, spec) in jobs.iter().zip(&specs) {
        assert_eq!((job.task_identifier(), job.payload()), (&*spec.identifier, spec.payload.as_bytes()));
        assert_eq!(job.key(), spec.spec.job_key.as_deref());
    }
    assert_eq!(db.jobs(), 300);
    assert!(db.utils().add_raw_jobs(vec![]).unwrap().is_empty());
}

#[test]
fn jobs_added_in_a_transaction_commit_or_roll_back_with_it() {
    let db = TestDb::new();
    let utils = db.utils();
    let mut client = db.client();
    let mut transaction = client.transaction().unwrap();
    utils.with_executor(&mut transaction).add_raw_job("t", &1, JobSpec::new()).unwrap();
    utils
        .with_executor(&mut transaction)
        .add_raw_jobs(vec![raw("1", JobSpec::new()), raw("2", JobSpec::new())])
        .unwrap();
    transaction.rollback().unwrap();
    assert_eq!(db.jobs(), 0);
    let mut transaction = client.transaction().unwrap();
    utils.with_executor(&mut transaction).add_raw_job("t", &1, JobSpec::new()).unwrap();
    transaction.commit().unwrap();
    assert_eq!(db.jobs(), 1);
}

#[test]
fn bad_input_is_named_and_nothing_is_written() {
    let db = TestDb::new();
    let utils = db.utils();
    let refused = |words: &str, error: graphile_worker::Error| {
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    };
    refused("task name: has 129", utils.add_raw_job(&"t".repeat(129), &1, JobSpec::new()).unwrap_err());
    refused("max_attempts: 0", utils.add_raw_job("t", &1, JobSpec::new().max_attempts(0)).unwrap_err());
    refused("priority: 32768", utils.add_raw_job("t", &1, JobSpec::new().priority(32768)).unwrap_err());
    refused("job_key: has 0", utils.remove_job("").unwrap_err());
    let twice = vec![raw("1", JobSpec::new().job_key("same")), raw("2", JobSpec::new().job_key("same"))];
    refused("job_key \"same\": occurs twice in one call, at 0 and 1", utils.add_raw_jobs(twice).unwrap_err());
    let second = vec![raw("1", JobSpec::new()), raw("2", JobSpec::new().max_attempts(0))];
    refused("job 1: max_attempts", utils.add_raw_jobs(second).unwrap_err());
    assert_eq!(db.jobs(), 0);
}

#[test] // Upstream: "adding lots of jobs"
fn thousands_of_jobs_are_added_in_one_call_with_and_without_queues() {
    let db = TestDb::new();
    let job = |n: usize| match n % 2 {
        0 => raw("0", JobSpec::new().queue_name(format!("q{}", n % 500))),
        _ => raw("1", JobSpec::new()),
    };
    assert_eq!(db.utils().add_raw_jobs((0..6000).map(job).collect()).unwrap().len(), 6000);
    let counted =
        "select count(*) || ' ' || count(queue_name) || ' ' || count(distinct queue_name) from graphile_worker.jobs";
    assert_eq!(db.one::<String>(counted), "6000 3000 250");
}

#[test] // Upstream: the view of migration 17
fn the_jobs_view_names_task_and_queue_of_each_job() {
    let db = TestDb::new();
    for arguments in ["'one', queue_name => 'a'", "'two', queue_name => 'b'", "'one'", "'two', queue_name => 'a'"] {
        db.add(arguments);
    }
    let named: Vec<String> =
        db.all("select concat_ws(' ', task_identifier, queue_name) from graphile_worker.jobs order by id");
    assert_eq!(named, ["one a", "two b", "one", "two a"]);
}

#[test]
fn known_task_and_queue_names_use_up_no_ids() {
    let db = TestDb::new();
    let used = "select (select last_value from graphile_worker.tasks_id_seq)
                     + (select last_value from graphile_worker.job_queues_id_seq)";
    let utils = db.utils();
    let mut before = 0;
    for round in 0..3 {
        db.add("'t', queue_name => 'q'");
        db.add("'t', queue_name => 'q', job_key => 'k', job_key_mode => 'unsafe_dedupe'");
        utils.add_raw_jobs(vec![raw("1", JobSpec::new().queue_name("q")), raw("2", JobSpec::new())]).unwrap();
        let now = db.one::<i64>(used);
        assert!(round == 0 || now == before, "{before} became {now}");
        before = now;
    }
}

#[test]
fn adding_jobs_takes_no_advisory_lock() {
    let db = TestDb::new();
    let mut client = db.client();
    let mut transaction = client.transaction().unwrap();
    let utils = db.utils();
    utils.with_executor(&mut transaction).add_raw_job("t", &1, JobSpec::new().job_key("k")).unwrap();
    utils.with_executor(&mut transaction).add_raw_jobs(vec![raw("1", JobSpec::new().job_key("l"))]).unwrap();
    let locks = "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()";
    assert_eq!(transaction.query_one(locks, &[]).unwrap().get::<_, i64>(0), 0);
}

/// Defaults of roles and databases that this library's transactions must not depend on.
const DEFAULTS: [&str; 7] = [
    "default_transaction_isolation = 'serializable'",
    "default_transaction_isolation = 'repeatable read'",
    "default_transaction_deferrable = on",
    "idle_in_transaction_session_timeout = '1ms'",
    "lock_timeout = '1ms'",
    "statement_timeout = '100ms'",
    "row_security = off",
];

#[test]
fn concurrent_enqueues_do_not_depend_on_the_defaults_of_the_database() {
    for default in DEFAULTS {
        let db = TestDb::new();
        let mut holder = db.client();
        db.execute(&format!("alter database {} set {default}", db.name()));
        let utils = db.utils().timeout(2 * SOON);
        // The first adders wait for the row of a key longer than any of the timeouts.
        let mut holding = holder.transaction().unwrap();
        holding.batch_execute("select graphile_worker.add_job('t', job_key => 'one')").unwrap();
        std::thread::scope(|scope| {
            let adders: Vec<_> = (0..8)
                .map(|adder| {
                    let utils = &utils;
                    scope.spawn(move || {
                        for n in 0..4 {
                            utils.add_raw_job("t", &n, JobSpec::new().job_key("one"))?;
                            let jobs = (0..20).map(|n| raw("1", JobSpec::new().job_key(format!("k{n}"))));
                            utils.add_raw_jobs(jobs.collect())?;
                            utils.add_raw_job(&format!("{adder} {n}"), &n, JobSpec::new().queue_name("q"))?;
                            if default.contains("isolation") {
                                utils.stats()?;
                            }
                        }
                        utils.remove_job("k0").map(drop)
                    })
                })
                .collect();
            eventually(SOON, || db.waiting() > 0);
            std::thread::sleep(Duration::from_millis(200));
            holding.commit().unwrap();
            for adder in adders {
                adder.join().unwrap().unwrap_or_else(|error| panic!("{default}: {error}"));
            }
        });
        assert_eq!(db.jobs(), 1 + 19 + 32, "{default}");
        let mut handlers = utils.connection().unwrap();
        let (name, value) = default.split_once(" = ").unwrap();
        let shown: String = handlers.query_one(&format!("show {name}"), &[]).unwrap().get(0);
        assert_eq!(shown, value.trim_matches('\''), "a handler's connection keeps the default");
    }
}

#[test]
fn a_read_only_database_is_reported_and_not_written() {
    let db = TestDb::new();
    db.execute(&format!("alter database {} set default_transaction_read_only = on", db.name()));
    let utils = db.utils();
    for error in [utils.add_raw_job("t", &1, JobSpec::new()).unwrap_err(), utils.remove_job("k").unwrap_err()] {
        assert_eq!((error.sqlstate(), error.is_transient()), (Some("25006"), true));
        assert!(error.to_string().contains("default_transaction_read_only"), "{error}");
    }
    assert_eq!((db.jobs(), utils.stats().unwrap().total), (0, 0));
}

#[test]
fn deadlocks_and_serialization_failures_are_retried() {
    let db = TestDb::new();
    db.execute(
        "create sequence public.tries;
         create function public.fail() returns trigger language plpgsql as $$
         begin
           if nextval('public.tries') = 1 then raise exception 'first' using errcode = '40001'; end if;
           if currval('public.tries') = 2 then raise exception 'second' using errcode = '40P01'; end if;
           return new;
         end $$;
         create trigger fail before insert on graphile_worker._private_jobs for each row execute function public.fail()",
    );
    let utils = db.utils();
    utils.add_raw_job("t", &1, JobSpec::new()).unwrap();
    db.execute("select setval('public.tries', 1, false)");
    utils.add_raw_jobs(vec![raw("1", JobSpec::new().job_key("k")), raw("2", JobSpec::new())]).unwrap();
    assert_eq!(db.jobs(), 3);
}

#[test]
fn a_session_that_is_out_of_date_after_an_alter_table_is_replaced() {
    let db = TestDb::new();
    let utils = db.utils();
    let all = || -> graphile_worker::Result<()> {
        for n in 0..3 {
            utils.add_raw_job("t", &n, JobSpec::new().job_key("k"))?;
            utils.add_raw_jobs(vec![raw("1", JobSpec::new().job_key("k")), raw("2", JobSpec::new())])?;
            utils.stats()?;
            utils.remove_job("k")?;
        }
        Ok(())
    };
    let ran = Tally::default();
    let counting = ran.clone();
    let _running = Running::start(db.worker().define_raw_job("run", move |ctx: WorkerContext| {
        counting.count(ctx.job().id());
        if ctx.job().attempts() == 1 { Err("retry") } else { Ok(()) }
    }));
    db.execute("drop view graphile_worker.jobs");
    for (rounds, change) in (1..).zip([
        "",
        "alter column updated_at type timestamp",
        "add column x int",
        "alter column updated_at type timestamptz",
        "drop column x",
    ]) {
        if !change.is_empty() {
            db.execute(&format!("alter table graphile_worker._private_jobs {change}"));
        }
        all().unwrap_or_else(|error| panic!("{change}: {error}"));
        for n in 0..5 {
            utils.add_raw_job("run", &n, JobSpec::new()).unwrap();
        }
        eventually(SOON, || ran.jobs() == 5 * rounds);
    }
}
