use super::{Facts, INSTALLED, NEWEST_KNOWN};
use crate::db::Database;
use crate::db::access::quote;
use crate::db::schema::Schema;
use crate::db::session::{Interrupt, Session, Setup};
use crate::devdb::{DevDb, Options};
use crate::error::{Error, ErrorKind, Result};
use postgres::{Client, NoTls};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

fn migrate(session: &mut Session, schema: &Schema) -> Result<Facts> {
    super::migrate(session, schema, &[])
}

fn probe(session: &mut Session, schema: &Schema) -> Result<Facts> {
    super::probe(session, schema, &[])
}

/// A database of its own, dropped with the value.
struct Scratch {
    name: String,
}

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("gw_migrate_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        connect(&server()).batch_execute(&format!("create database {name}")).unwrap();
        Self { name }
    }

    /// A database with the shared schema and the extras.
    fn migrated() -> Self {
        let db = Self::new();
        db.migrate().unwrap();
        db
    }

    fn url(&self) -> String {
        with_path(&server(), &self.name)
    }

    fn client(&self) -> Client {
        connect(&self.url())
    }

    #[track_caller]
    fn execute(&self, sql: &str) {
        self.client().batch_execute(sql).unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }

    #[track_caller]
    fn one<T: for<'a> postgres::types::FromSql<'a>>(&self, sql: &str) -> T {
        self.client().query_one(sql, &[]).unwrap_or_else(|e| panic!("{sql}: {e:?}")).get(0)
    }

    fn session(&self) -> Session {
        let database = Database::open(&self.url(), 1, Duration::from_secs(20)).unwrap();
        database.session("migrate", &Interrupt::new(), &Setup::default()).unwrap()
    }

    fn migrate(&self) -> Result<Facts> {
        migrate(&mut self.session(), &Schema::default())
    }

    fn probe(&self) -> Result<Facts> {
        probe(&mut self.session(), &Schema::default())
    }

    /// Runs `call` on a session of a role that may connect, and has no other rights than `grants`.
    fn with_role<T>(&self, grants: &str, call: impl FnOnce(&mut Session) -> T) -> T {
        let role = format!("{}_\"role\"", self.name);
        let quoted = quote(&role);
        self.execute(&format!("create role {quoted}; {}", grants.replace("ROLE", &quoted)));
        let mut session = self.session();
        session.batch(&format!("set role {quoted}")).unwrap();
        let answer = call(&mut session);
        drop(session);
        self.execute(&format!("drop owned by {quoted}; drop role {quoted}"));
        answer
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // If a failing test leaves a session open, this must not hide why the test failed.
        let _ = connect(&server()).batch_execute(&format!("drop database {} with (force)", self.name));
    }
}

fn server() -> String {
    static SERVER: OnceLock<DevDb> = OnceLock::new();
    std::env::var("TEST_DATABASE_URL").unwrap_or_else(|_| {
        SERVER.get_or_init(|| DevDb::start(Options { fsync: false, ..Options::default() }).unwrap()).url()
    })
}

fn connect(url: &str) -> Client {
    Client::connect(url, NoTls).unwrap()
}

fn with_path(url: &str, database: &str) -> String {
    let (rest, query) = url.split_once('?').map_or((url, String::new()), |(rest, query)| (rest, format!("?{query}")));
    let authority = rest.find("://").expect("a URL") + 3;
    let end = rest[authority..].find('/').map_or(rest.len(), |at| authority + at);
    format!("{}/{database}{query}", &rest[..end])
}

#[track_caller]
fn refused(answer: Result<Facts>, words: &[&str]) {
    let error: Error = answer.expect_err("must be refused");
    assert_eq!(error.kind(), ErrorKind::Schema, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{word:?} is not in: {error}");
    }
}

const LEDGER: &str =
    "select string_agg(id || case when breaking then '!' else '' end, ' ' order by id) from graphile_worker.migrations";
const FRESH: &str = "1! 2 3! 4 5 6 7 8 9 10 11! 12 13! 14! 15 16! 17 18";

#[test] // Upstream: migrate.test.ts, "migration installs schema; second migration does no harm"
fn an_empty_database_is_installed_once_and_works() {
    let db = Scratch::new();
    for _ in 0..3 {
        let facts = db.migrate().unwrap();
        assert_eq!((facts.max_id, facts.has_queue_index), (INSTALLED, true));
        assert_eq!((facts.has_private_workers, facts.has_job_retirements), (false, false));
        assert!(facts.server_version >= 120_000);
        assert_eq!(db.one::<String>(LEDGER), FRESH);
        assert_eq!(
            db.one::<i64>("select count(*) from graphile_worker._native_migrations"),
            super::EXTRAS.len() as i64
        );
        db.execute("select graphile_worker.add_job('t', '[1]', job_key => 'k')");
    }
    assert_eq!(db.one::<String>("select payload::text from graphile_worker._private_jobs"), "[1, 1, 1]");
    assert!(db.probe().unwrap().has_queue_index);
}

#[test]
fn every_table_but_the_ledger_has_row_security() {
    let db = Scratch::migrated();
    let open: Vec<String> = db
        .client()
        .query(
            "select relname::text from pg_class
              where relnamespace = 'graphile_worker'::regnamespace and relkind = 'r' and not relrowsecurity",
            &[],
        )
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(open, ["migrations"]);
}

#[test] // Upstream: migrate.test.ts, "multiple concurrent installs of the schema is fine"
fn sixteen_installers_at_once_all_succeed() {
    let db = Scratch::new();
    thread::scope(|scope| {
        let installers: Vec<_> = (0..16).map(|_| scope.spawn(|| db.migrate())).collect();
        for installer in installers {
            let facts = installer.join().unwrap().unwrap();
            assert_eq!((facts.max_id, facts.has_queue_index), (INSTALLED, true));
        }
    });
    assert_eq!(db.one::<String>(LEDGER), FRESH);
    assert_eq!(db.one::<i64>("select count(*) from graphile_worker._native_migrations"), super::EXTRAS.len() as i64);
}

#[test]
fn schemas_of_any_name_share_a_database() {
    let db = Scratch::new();
    for name in [r#"a"b'c; drop 🦀 /* -- %s \"#, "SELECT", "graphile_worker"] {
        let schema = Schema::new(name).unwrap();
        for facts in [migrate(&mut db.session(), &schema), probe(&mut db.session(), &schema)] {
            assert!(facts.unwrap().has_queue_index, "{name}");
        }
        db.execute(
            &schema
                .fill("select :GRAPHILE_WORKER_SCHEMA.add_job('t', job_key => 'k', job_key_mode => 'unsafe_dedupe')"),
        );
    }
}

#[test]
fn a_probe_installs_nothing() {
    let db = Scratch::new();
    refused(db.probe(), &["has no job tables yet", "migrate", &db.name]);
    assert!(!db.one::<bool>("select exists (select from pg_namespace where nspname = 'graphile_worker')"));
}

#[test]
fn migration_ids_of_other_workers_are_accepted() {
    let db = Scratch::migrated();
    for breaking in [false, true] {
        db.execute(&format!(
            "delete from graphile_worker.migrations where id > 18;
             insert into graphile_worker.migrations (id, breaking) select id, {breaking} from generate_series(19, {NEWEST_KNOWN}) id"
        ));
        assert_eq!(db.migrate().unwrap().max_id, NEWEST_KNOWN);
    }
}

#[test] // Upstream: migrate.test.ts, "aborts if database is more up to date than current worker"
fn a_newer_breaking_migration_is_refused_by_its_id() {
    let db = Scratch::migrated();
    db.execute(
        "insert into graphile_worker.migrations (id, breaking) values (23, false), (999998, true), (999999, false)",
    );
    refused(db.migrate(), &["999998", "upgrade"]);
    refused(db.probe(), &["999998", "upgrade"]);
}

#[test]
fn a_newer_migration_that_is_not_breaking_is_accepted() {
    let db = Scratch::migrated();
    db.execute("insert into graphile_worker.migrations (id, breaking) values (999999, false)");
    assert_eq!(db.migrate().unwrap().max_id, 999_999);
}

#[test]
fn an_older_schema_is_refused_with_the_command_to_run() {
    let db = Scratch::migrated();
    db.execute("delete from graphile_worker.migrations where id > 15; update graphile_worker.migrations set ts = now() - interval '1 day'");
    refused(db.migrate(), &["migration 15", "needs 18", "graphile-worker --schema-only", "0.16"]);
    db.execute("alter table graphile_worker.migrations drop column breaking");
    refused(db.migrate(), &["breaking", "graphile-worker --schema-only"]);
}

#[test]
fn a_probe_waits_for_another_workers_migration() {
    let db = Scratch::migrated();
    db.execute("delete from graphile_worker.migrations where id > 15");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| db.probe());
        for id in 16..=18 {
            thread::sleep(Duration::from_millis(150));
            assert!(!waiting.is_finished(), "did not wait for migration {id}");
            db.execute(&format!("insert into graphile_worker.migrations (id) values ({id})"));
        }
        assert_eq!(waiting.join().unwrap().unwrap().max_id, 18);
    });
}

#[test]
fn a_migration_that_ends_between_two_reads_is_seen_whole() {
    let db = Scratch::migrated();
    db.execute(
        "alter table graphile_worker._private_jobs rename to jobs_of_before_16;
         delete from graphile_worker.migrations where id > 15",
    );
    let mut other = db.client();
    let mut renaming = other.transaction().unwrap();
    renaming.batch_execute("lock graphile_worker.migrations in access exclusive mode").unwrap();
    thread::scope(|scope| {
        let answer = scope.spawn(|| db.migrate());
        // The call has looked up the tables, found no table of jobs, and reads the ledger now.
        while !db.one::<bool>("select exists (select from pg_locks where not granted and database = (select oid from pg_database where datname = current_database()))") {
            thread::sleep(Duration::from_millis(1));
        }
        renaming
            .batch_execute(
                "alter table graphile_worker.jobs_of_before_16 rename to _private_jobs;
                 insert into graphile_worker.migrations (id) select generate_series(16, 18)",
            )
            .unwrap();
        renaming.commit().unwrap();
        assert_eq!(answer.join().unwrap().unwrap().max_id, 18);
    });
}

#[test]
fn a_second_installer_waits_and_finds_the_work_done() {
    let db = Scratch::new();
    let mut client = db.client();
    let mut other = client.transaction().unwrap();
    let install = Schema::default().fill(include_str!("../../../migrations/install.sql"));
    other.batch_execute("create schema graphile_worker").unwrap();
    other.batch_execute(&install).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| db.migrate());
        thread::sleep(Duration::from_millis(300));
        other.commit().unwrap();
        assert_eq!(waiting.join().unwrap().unwrap().max_id, INSTALLED);
    });
    assert_eq!(db.one::<String>(LEDGER), FRESH);
}

#[test]
fn an_existing_empty_ledger_is_used() {
    let db = Scratch::new();
    db.execute(
        "create schema graphile_worker;
         create table graphile_worker.migrations (id int primary key, ts timestamptz default now() not null, breaking boolean default false not null)",
    );
    assert_eq!(db.migrate().unwrap().max_id, INSTALLED);
    assert_eq!(db.one::<String>(LEDGER), FRESH);
}

#[test]
fn a_conflicting_table_is_named_and_nothing_is_installed() {
    let db = Scratch::new();
    db.execute("create schema graphile_worker; create table graphile_worker.jobs (id int)");
    let error = db.migrate().expect_err("must fail");
    assert!(error.to_string().contains("\"jobs\" already exists"), "{error}");
    assert_eq!(error.sqlstate(), Some("42P07"));
    assert_eq!(db.one::<i64>("select count(*) from pg_class where relnamespace = 'graphile_worker'::regnamespace"), 1);
}

#[test]
fn each_foreign_object_is_looked_up_by_itself() {
    let db = Scratch::migrated();
    let facts = || {
        let facts = db.probe().unwrap();
        (facts.has_private_workers, facts.has_job_retirements, facts.has_queue_index)
    };
    db.execute("create table graphile_worker._private_workers (id text primary key)");
    assert_eq!(facts(), (false, false, true));
    db.execute(
        "create function graphile_worker.worker_heartbeat(worker_id text, metadata json default null) returns void language sql as ''",
    );
    assert_eq!(facts(), (true, false, true));
    db.execute("create table graphile_worker._private_job_retirements (id bigint primary key)");
    assert_eq!(facts(), (true, true, true));
    db.execute("drop table graphile_worker._private_workers; drop index graphile_worker._native_jobs_queue");
    assert_eq!(facts(), (false, true, false));
}

#[test]
fn an_invalid_index_does_not_count() {
    let db = Scratch::migrated();
    db.execute(
        "update pg_index set indisvalid = false where indexrelid = 'graphile_worker._native_jobs_queue'::regclass",
    );
    assert!(!db.migrate().unwrap().has_queue_index);
}

#[test]
fn a_long_write_transaction_delays_only_the_extras() {
    let db = Scratch::migrated();
    db.execute("drop table graphile_worker._native_migrations; drop index graphile_worker._native_jobs_queue");
    let mut client = db.client();
    let mut writer = client.transaction().unwrap();
    writer.batch_execute("select graphile_worker.add_job('t')").unwrap();
    assert!(!db.migrate().unwrap().has_queue_index);
    writer.commit().unwrap();
    assert!(db.migrate().unwrap().has_queue_index);
}

#[test]
fn the_error_names_the_grant_to_create_a_schema() {
    let db = Scratch::new();
    let words = ["role\"", "grant create on database", &db.name];
    refused(db.with_role("", |session| migrate(session, &Schema::default())), &words);
    db.with_role(&format!("grant create on database {} to ROLE", db.name), |session| {
        assert!(migrate(session, &Schema::default()).unwrap().has_queue_index);
    });
}

#[test]
fn the_error_names_the_grant_to_create_in_a_schema() {
    let db = Scratch::new();
    db.execute("create schema graphile_worker");
    let session = |session: &mut Session| migrate(session, &Schema::default());
    refused(db.with_role("", session), &["grant usage on schema \"graphile_worker\" to "]);
    let usage = "grant usage on schema graphile_worker to ROLE";
    refused(db.with_role(usage, session), &["grant usage, create on schema \"graphile_worker\" to "]);
    let both = "grant usage, create on schema graphile_worker to ROLE";
    assert_eq!(db.with_role(both, session).unwrap().max_id, INSTALLED);
}

#[test]
fn a_role_that_owns_no_table_works_without_extras() {
    let db = Scratch::migrated();
    db.execute("drop table graphile_worker._native_migrations; drop index graphile_worker._native_jobs_queue");
    let session = |session: &mut Session| migrate(session, &Schema::default());
    let usage = "grant usage on schema graphile_worker to ROLE;";
    refused(db.with_role(usage, session), &["grant select on table \"graphile_worker\".migrations to "]);
    let ledger = format!("{usage} grant select on graphile_worker.migrations to ROLE;");
    refused(db.with_role(&ledger, session), &["hides all jobs", "role\\\"", "BYPASSRLS"]);
    let bypass = format!("{ledger} alter role ROLE bypassrls;");
    let facts = db.with_role(&bypass, session).unwrap();
    assert_eq!((facts.max_id, facts.has_queue_index), (INSTALLED, false));
    let member = format!(
        "{ledger} grant create on schema graphile_worker to ROLE; create policy p on graphile_worker._private_jobs to ROLE using (true);"
    );
    assert!(!db.with_role(&member, session).unwrap().has_queue_index);
}

/// How an older add_jobs joins lists.
const THROUGH_JSONB: &str = "(job.payload::pg_catalog.jsonb || excluded.payload::pg_catalog.jsonb)::pg_catalog.json";

/// Changes a function's definition to the older one: add_jobs joined lists through jsonb, and remove_job locked nothing.
fn older(mut definition: String) -> String {
    for (first, last, before) in [
        ("case\n               when pg_catalog.json_array_length", "\n             end", THROUGH_JSONB),
        ("  -- A job that is added from here on", "end if;\n\n", ""),
    ] {
        if let Some(start) = definition.find(first) {
            let end = start + definition[start..].find(last).expect("its end") + last.len();
            definition.replace_range(start..end, before);
        }
    }
    definition
}

/// Installs an older add_jobs, without the words `dropped`.
fn make_older(db: &Scratch, dropped: &str) {
    let definition = db.one("select pg_get_functiondef('graphile_worker.add_jobs'::regproc)");
    db.execute(&older(definition).replace(dropped, ""));
    db.execute("delete from graphile_worker._native_migrations where id = 7");
}

#[test]
fn only_an_add_jobs_of_this_library_is_updated() {
    let text = "select pg_get_functiondef('graphile_worker.add_jobs'::regproc)";
    let db = Scratch::migrated();
    let fresh = db.one::<String>(text);
    make_older(&db, "");
    assert!(db.one::<String>(text).contains(THROUGH_JSONB));
    db.migrate().unwrap();
    let joins = |text: String| text[text.find("payload = case").unwrap()..].split("run_at").next().unwrap().to_owned();
    assert_eq!(joins(db.one(text)), joins(fresh));
    db.execute(r#"select graphile_worker.add_job('t', list::json, job_key => 'k') from unnest(array['["\u0000"]', '[1]']) list"#);
    assert_eq!(db.one::<String>("select payload::text from graphile_worker._private_jobs"), r#"["\u0000", 1]"#);

    let db = Scratch::migrated();
    make_older(&db, "names that are missing ");
    let foreign = db.one::<String>(text);
    db.migrate().unwrap();
    assert_eq!(db.one::<String>(text), foreign);
}

#[test]
fn only_functions_of_this_library_are_qualified() {
    let db = Scratch::migrated();
    let bodies = || -> Vec<(String, String)> {
        let sql =
            "select proname::text, prosrc from pg_proc where pronamespace = 'graphile_worker'::regnamespace order by 1";
        db.client().query(sql, &[]).unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
    };
    let qualified = bodies();
    let definitions: Vec<String> = db
        .client()
        .query("select pg_get_functiondef(oid) from pg_proc where pronamespace = 'graphile_worker'::regnamespace", &[])
        .unwrap()
        .iter()
        .map(|row| older(row.get(0)).replace("pg_catalog.", ""))
        .collect();
    definitions.iter().for_each(|definition| db.execute(definition));
    assert_ne!(bodies(), qualified);
    // The function of another installer: it differs in a comment only.
    let foreign = definitions.iter().find(|definition| definition.contains("permanently_fail_jobs(")).unwrap();
    let foreign = foreign.replace("$function$\n", "$function$\n  -- of others\n");
    db.execute(&foreign);
    db.execute("delete from graphile_worker._native_migrations where id in (6, 7, 9)");
    db.migrate().unwrap();
    for ((name, body), (_, expected)) in bodies().iter().zip(&qualified) {
        match name.as_str() {
            "permanently_fail_jobs" => assert!(body.contains("of others") && !body.contains("pg_catalog."), "{body}"),
            _ => assert_eq!(body, expected, "{name}"),
        }
    }
}

#[test]
fn a_session_can_be_used_after_a_migration() {
    let db = Scratch::new();
    let mut session = db.session();
    for _ in 0..2 {
        migrate(&mut session, &Schema::default()).unwrap();
        probe(&mut session, &Schema::default()).unwrap();
        session.batch("drop schema graphile_worker cascade").unwrap();
    }
}
