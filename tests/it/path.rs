//! Names in this library's SQL must find its own functions, operators and tables, whatever the role's search_path is.

use crate::harness::{Running, SOON, TestDb, eventually};
use graphile_worker::{
    CleanupTask, JobKeyMode, JobSpec, ListJobsOptions, RawJob, RescheduleJobOptions, Schema, SweepStaleWorkersOptions,
    WorkerUtils,
};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Words before a parenthesis that are not calls looked up in the search_path.
const SYNTAX: [&str; 40] = [
    "all",
    "and",
    "any",
    "array",
    "as",
    "by",
    "case",
    "cast",
    "check",
    "coalesce",
    "conflict",
    "else",
    "except",
    "exists",
    "extract",
    "filter",
    "from",
    "greatest",
    "identity",
    "if",
    "in",
    "include",
    "join",
    "key",
    "lateral",
    "least",
    "materialized",
    "not",
    "on",
    "operator",
    "or",
    "over",
    "row",
    "select",
    "then",
    "union",
    "using",
    "values",
    "when",
    "where",
];

/// The SQL files of this library, as path and text.
fn sql_files() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut files, mut folders) = (Vec::new(), vec![root.join("src/sql"), root.join("migrations")]);
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match path.extension() {
                None => folders.push(path),
                Some(extension) if extension == "sql" => {
                    files.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
                }
                Some(_) => {}
            }
        }
    }
    files
}

/// The words and signs of an SQL text, each with its line. Comments and literals are left out, function bodies are
/// included.
fn tokens(sql: &str) -> Vec<(usize, String)> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found: Vec<(usize, String)> = Vec::new();
    for (line, text) in sql.lines().enumerate() {
        let code = text.split("--").next().unwrap();
        // No literal spans several lines.
        for (place, part) in code.split('\'').enumerate() {
            if place % 2 == 1 {
                found.push((line + 1, "'".to_owned()));
                continue;
            }
            let mut rest = part.trim_start();
            while let Some(first) = rest.chars().next() {
                let length = if word(first) { rest.find(|c| !word(c)).unwrap_or(rest.len()) } else { 1 };
                found.push((line + 1, rest[..length].to_ascii_lowercase()));
                rest = rest[length..].trim_start();
            }
        }
    }
    found
}

/// The calls without a schema: a word before a parenthesis, unless it is syntax or an alias.
fn unqualified_calls(sql: &str) -> Vec<(usize, String)> {
    let tokens = tokens(sql);
    let at = |place: usize| tokens.get(place).map_or("", |(_, token)| token.as_str());
    let mut found = Vec::new();
    for (place, (line, token)) in tokens.iter().enumerate() {
        let names = |c: char| c.is_ascii_alphabetic() || c == '_';
        if !token.starts_with(names) || at(place + 1) != "(" || SYNTAX.contains(&token.as_str()) {
            continue;
        }
        let before = place.checked_sub(1).map_or("", at);
        let mut depth = 0;
        let end = (place + 1..tokens.len()).find(|&place| {
            depth += i32::from(at(place) == "(") - i32::from(at(place) == ")");
            depth == 0
        });
        let after = end.map_or(["", ""], |end| [at(end + 1), at(end + 2)]);
        let is_table_of_with = after[0] == "as" && ["(", "materialized"].contains(&after[1]);
        if ![".", ")", "as", "ordinality"].contains(&before) && !is_table_of_with {
            found.push((*line, token.clone()));
        }
    }
    found
}

#[test]
fn every_function_call_in_sql_names_its_schema() {
    let files = sql_files();
    assert!(files.len() > 60, "the SQL was not found");
    // Installed migrations are not edited. There `now()` runs with pg_catalog first in the path, and matches exactly.
    let installed = ["001_extras.sql:6: now", "002_recovery.sql:6: now"];
    let calls: Vec<String> = files
        .iter()
        .flat_map(|(path, text)| {
            unqualified_calls(text).into_iter().map(move |(line, name)| format!("{path}:{line}: {name}"))
        })
        .filter(|call| !installed.iter().any(|installed| call.ends_with(installed)))
        .collect();
    assert!(calls.is_empty(), "called without a schema:\n{}", calls.join("\n"));
}

#[test]
fn an_unqualified_call_is_found_among_other_names() {
    let sql = "with recursive a(n) as (select 1), -- now()\n b as materialized (select max(x) from t)\n\
               insert into s.t as j (id) select 'random()', s.f(now(), (x)) from rows from (s.g($1)) r(id)\n\
               where id in (1) and x operator(s.=) any(array[1]) having count(*) > 0 on conflict (id) do nothing";
    let found: Vec<String> = unqualified_calls(sql).into_iter().map(|(line, name)| format!("{line} {name}")).collect();
    assert_eq!(found, ["2 max", "3 now", "4 count"]);
}

/// The functions that this library's SQL calls, and the operators that it uses.
fn used() -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut functions, mut operators) = (BTreeSet::new(), BTreeSet::from(["~~".to_owned()]));
    for (_, text) in sql_files() {
        let words: Vec<String> = tokens(&text).into_iter().map(|(_, token)| token).collect();
        for words in words.windows(4).filter(|words| words[0] == "pg_catalog" && words[3] == "(") {
            functions.insert(words[2].clone());
        }
        let signs = text.split_whitespace().filter(|word| word.chars().all(|c| "<>=+-*/|?~!".contains(c)));
        operators.extend(signs.filter(|sign| !["--", "=>"].contains(sign)).map(str::to_owned));
    }
    (functions, operators)
}

/// As a role that may only create in the schema `public`, creates there a function for each of these names and an
/// operator for each of these signs, for every combination of the types in use. Each records its call.
fn plant(db: &TestDb, role: &str) {
    let (functions, operators) = used();
    assert!(functions.contains("unnest") && functions.contains("pg_notify") && operators.contains("="));
    let quoted = |words: &BTreeSet<String>| words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(", ");
    db.execute(&format!(
        "create role {role}; grant create, usage on schema public to {role};
         create table public.caught(what text, by text); grant insert on public.caught to public;
         set role {role};
         do $plant$
         declare
           kinds constant text[] := array['text', 'json', 'jsonb', 'int2', 'int4', 'int8', 'float8', 'bool', 'timestamptz',
             'interval', 'oid', 'regclass', 'name', 'text[]', 'int4[]', 'int8[]'];
           more constant text[] := kinds || array['int2[]', 'bool[]', 'float8[]', 'timestamptz[]', 'regclass[]',
             'graphile_worker.job_spec[]'];
           pairs constant text[] := array['text', 'json', 'int4', 'int8', 'bool', 'oid', 'regclass', 'name',
             'graphile_worker.job_spec[]'];
           body constant text := $body$ language plpgsql
             as 'begin insert into public.caught values (''%s'', current_user); return null; end'$body$;
           name text; a text; b text; result text;
         begin
           foreach name in array array[{functions}] loop
             execute format('create function public.%I() returns int' || body, name, name);
             foreach a in array more loop
               execute format('create function public.%I(%s) returns %s' || body, name, a, replace(a, '[]', ''), name);
             end loop;
             foreach a in array pairs loop
               foreach b in array pairs loop
                 execute format('create function public.%I(%s, %s) returns %s' || body, name, a, b, a, name);
               end loop;
             end loop;
             execute format('create function public.%I(text, text, bool) returns text' || body, name, name);
             execute format('create function public.%I(text, float8, text, int8) returns json' || body, name, name);
           end loop;
           foreach a in array kinds loop
             foreach b in array kinds loop
               foreach result in array array['bool', a] loop
                 name := case when result = 'bool' then 'compares' else 'computes' end;
                 execute format('create or replace function public.%I(%s, %s) returns %s' || body, name, a, b, result,
                   format('operator of %s and %s', a, b));
               end loop;
               foreach name in array array[{operators}] loop
                 execute format('create operator public.%s (function = public.%I, leftarg = %s, rightarg = %s)', name,
                   case when name ~ '[<>=?~]' or a = 'bool' then 'compares' else 'computes' end, a, b);
               end loop;
             end loop;
           end loop;
         end
         $plant$;
         reset role",
        functions = quoted(&functions),
        operators = quoted(&operators),
    ));
}

#[test]
fn statements_run_no_function_or_operator_of_another_role() {
    let db = TestDb::new();
    let role = format!("{}_planter", db.name());
    db.execute("grant usage on schema graphile_worker to public");
    plant(&db, &role);
    // Queries of the test itself must not be recorded.
    db.execute("set search_path = pg_catalog");
    let path = WorkerUtils::connect(&db.url()).unwrap().connection().unwrap().query_one("show search_path", &[]);
    assert_eq!(path.unwrap().get::<_, String>(0), "\"$user\", public");

    // The shared functions, called in SQL.
    let mut owner = db.client();
    owner
        .batch_execute(
            "select graphile_worker.add_job('sql', '[1]', queue_name => 'q', job_key => 'k', flags => array['f']);
             select graphile_worker.add_job('sql', '[2]', queue_name => 'q', job_key => 'k', flags => array['f']);
             select graphile_worker.add_job('sql', '{}', job_key => 'dedupe', job_key_mode => 'unsafe_dedupe', flags => array['f']);
             select graphile_worker.add_job('sql', '{}', job_key => 'dedupe', job_key_mode => 'unsafe_dedupe');
             select graphile_worker.add_job('sql', '{}', job_key => 'k', job_key_mode => 'preserve_run_at');
             select graphile_worker.add_jobs(array[row('sql', '{}', 'q', null, 3, null, 0, array['f'])::graphile_worker.job_spec]);
             select graphile_worker.reschedule_jobs(array[1, 2]::bigint[], pg_catalog.now(), 1, 0, 5);
             select graphile_worker.permanently_fail_jobs(array[1]::bigint[], 'why');
             select graphile_worker.remove_job('dedupe');
             select graphile_worker.remove_job('nothing');
             select graphile_worker.force_unlock_workers(array['unknown']);
             select graphile_worker.complete_jobs(array[1, 2, 3]::bigint[]);
             select * from graphile_worker.jobs",
        )
        .unwrap();
    let wrong = "select graphile_worker.add_job('sql', '{}', job_key => 'k', job_key_mode => 'wrong')";
    assert_eq!(owner.batch_execute(wrong).unwrap_err().code().unwrap().code(), "GWBKM");
    db.execute("delete from graphile_worker._private_jobs");

    // The same calls by the client.
    let utils = db.utils();
    utils.migrate().unwrap();
    let spec = || JobSpec::new().queue_name("q").job_key("k").flags(["f"]).priority(1).max_attempts(3);
    utils.add_raw_job("t", &json!([1]), spec()).unwrap();
    utils.add_raw_job("t", &json!([2]), spec().job_key_mode(JobKeyMode::UnsafeDedupe)).unwrap();
    let many = |key: Option<&str>| RawJob {
        identifier: "t".into(),
        payload: "{}".into(),
        spec: JobSpec { job_key: key.map(str::to_owned), ..spec() },
    };
    let added = utils.add_raw_jobs(vec![many(Some("a")), many(None), many(Some("b"))]).unwrap();
    let ids: Vec<i64> = added.iter().map(|job| job.id()).collect();
    let now = RescheduleJobOptions { now: true, attempts: Some(0), ..Default::default() };
    assert_eq!(utils.reschedule_jobs(&ids, now).unwrap().len(), 3);
    assert_eq!(utils.permanently_fail_jobs(&ids[..1], "").unwrap().len(), 1);
    assert_eq!(utils.complete_jobs(&ids[1..2]).unwrap().len(), 1);
    assert!(utils.remove_job("b").unwrap());
    let listed = ListJobsOptions { identifier: Some("t".into()), queue: Some("q".into()), ..Default::default() };
    assert_eq!(utils.list_jobs(&listed).unwrap().len(), 2);
    utils.job(ids[0]).unwrap().unwrap();
    assert_eq!(utils.stats().unwrap().failed, 1);
    assert_eq!(utils.queues().unwrap().len(), 1);

    // The worker claims, completes, fails, retries and gives back jobs, is notified, sends heartbeats, sweeps and runs
    // cron.
    db.execute(
        "insert into graphile_worker._native_workers (id, last_heartbeat_at)
         values ('dead', pg_catalog.now() - interval '1 hour');
         update graphile_worker._private_jobs set locked_by = 'dead', locked_at = pg_catalog.now() where key = 'k'",
    );
    utils.list_active_workers(Duration::from_secs(60)).unwrap();
    utils.locked_workers().unwrap();
    let dry = SweepStaleWorkersOptions { dry_run: true, ..Default::default() };
    assert_eq!(utils.sweep_stale_workers(dry).unwrap().worker_ids, ["dead"]);
    let swept = SweepStaleWorkersOptions { recovery_delay: Some(Duration::ZERO), ..Default::default() };
    assert_eq!(utils.sweep_stale_workers(swept).unwrap().recovered_count, 1);
    db.execute("update graphile_worker._private_known_crontabs set last_execution = null");
    let running = Running::start(
        db.worker()
            .define_raw_job("t", |_| ())
            .define_raw_job("fails", |_| Err::<(), _>("on purpose"))
            .define_raw_job("stays", |ctx| {
                while !ctx.is_cancelled() {
                    std::thread::sleep(Duration::from_millis(5));
                }
            })
            .add_forbidden_flag("never")
            .shutdown_grace_period(Duration::from_millis(10))
            .sweep_interval(Duration::from_millis(200))
            .with_cron("* * * * * t ?id=tick&fill=2m {}")
            .unwrap(),
    );
    utils.add_raw_job("fails", &(), JobSpec::new().max_attempts(2)).unwrap();
    utils.add_raw_job("stays", &(), JobSpec::new().queue_name("long")).unwrap();
    let locked = "select pg_catalog.count(*) from graphile_worker._private_jobs j
                   where j.locked_by is not null";
    let failed = "select pg_catalog.count(*) from graphile_worker._private_jobs j where j.last_error = 'on purpose'";
    let ticks = "select pg_catalog.count(*) from graphile_worker._private_known_crontabs k";
    eventually(SOON, || db.one::<i64>(locked) == 1 && db.one::<i64>(failed) == 1 && db.one::<i64>(ticks) == 1);
    eventually(SOON, || {
        db.one::<i64>(
            "select pg_catalog.count(*) from graphile_worker._private_jobs j where j.attempts = 0 and j.key = 'k'",
        ) == 0
    });
    let _ = running.stop();
    assert_eq!(db.locks(), 0);
    utils.force_unlock_workers(&["unknown"]).unwrap();
    let all = [CleanupTask::DeletePermanentlyFailedJobs, CleanupTask::GcJobQueues, CleanupTask::GcTaskIdentifiers];
    utils.cleanup(&all).unwrap();
    // Calls on a caller's pool, and a new installation.
    let manager = r2d2_postgres::PostgresConnectionManager::new(db.url().parse().unwrap(), postgres::NoTls);
    let lent = WorkerUtils::new(r2d2::Pool::builder().max_size(2).build(manager).unwrap(), Schema::default());
    lent.add_raw_job("t", &(), spec()).unwrap();
    lent.clone().schema(Schema::new("another").unwrap()).migrate().unwrap();

    assert_eq!(db.all::<String>("select what || ' as ' || \"by\" from public.caught"), [""; 0]);
    drop((owner, lent, utils, db));
    TestDb::new().execute(&format!("drop role {role}"));
}

#[test]
fn an_archive_trigger_may_name_its_table_without_a_schema() {
    let db = TestDb::new();
    db.execute(
        "create table archive(id bigint, attempts int, error text);
         create function archive_job() returns trigger language plpgsql as $$
         begin
           insert into archive values (old.id, old.attempts, old.last_error);
           return null;
         end $$;
         create trigger archive after delete or update of last_error on graphile_worker._private_jobs
           for each row execute function archive_job()",
    );
    let running =
        Running::start(db.worker().define_raw_job("t", |_| ()).define_raw_job("fails", |_| Err::<(), _>("on purpose")));
    let done = db.add("'t', queue_name => 'q'");
    let failed = db.add("'fails', max_attempts => 1");
    eventually(SOON, || db.locks() == 0 && db.jobs() == 1);
    eventually(SOON, || db.one::<i64>("select count(*) from archive") == 2);
    running.stop().0.unwrap();
    let mut archived = db.all::<i64>("select id from archive");
    archived.sort_unstable();
    assert_eq!(archived, [done, failed]);
}

#[test]
fn a_worker_searches_pg_catalog_first_even_if_named_late() {
    let db = TestDb::new();
    db.execute(&format!("alter database {} set search_path = public, pg_catalog", db.name()));
    let mut owner = db.client();
    owner
        .batch_execute(
            "create table pg_catalog_first(path text);
             create function note() returns trigger language plpgsql as $$
             begin
               insert into public.pg_catalog_first values (current_setting('search_path'));
               return null;
             end $$;
             create trigger note after delete on graphile_worker._private_jobs for each row execute function note()",
        )
        .unwrap();
    db.add("'t'");
    let running = Running::start(db.worker().define_raw_job("t", |_| ()));
    eventually(SOON, || db.jobs() == 0);
    running.stop().0.unwrap();
    assert_eq!(db.one::<String>("select path from public.pg_catalog_first"), "pg_catalog, public, pg_catalog");
}
