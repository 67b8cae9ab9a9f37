//! Finds out what the schema contains and what the current role may do there, and refuses what cannot work.
//! Reads catalogs and the migrations table; changes nothing.
//!
//! Row security without a policy makes PostgreSQL hide rows without an error: a list is empty and a claim finds no job.
//! `row_security = off` would raise an error instead, but also for a policy that filters on purpose. So the policies
//! are looked up. A role that no policy admits is refused, and a role with a policy sees what the policy allows.

use crate::db::schema::Schema;
use crate::db::session::{Param, Query, Session};
use crate::error::{Error, ErrorKind, Result};
use crate::text::Text;
use parking_lot::Mutex;
use postgres::GenericClient;
use postgres::types::{ToSql, Type};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_postgres::Row;

/// The migration that `migrations/install.sql` installs, and the oldest that a worker can use.
pub(crate) const INSTALLED: i32 = 18;

/// The newest migration id that any implementation has defined. Some ids mean different things in different
/// implementations. So an id does not prove which objects exist: each object is looked up.
pub(crate) const NEWEST_KNOWN: i32 = 22;

/// `server_version_num` of PostgreSQL 12, which has stored generated columns and `materialized`.
const OLDEST_SERVER: i32 = 120_000;

/// How long a check that allowed a call is valid for the next calls.
const FRESH: Duration = Duration::from_secs(60);

/// How to upgrade an older schema so that this library can use it.
pub(crate) const UPGRADE: &str = "upgrade it with Node's graphile-worker, 0.16 or later: graphile-worker --schema-only";

/// A right that a call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Need {
    right: &'static str,
    object: &'static str,
    /// The shared function that uses the right. The right is not needed if that function runs with its owner's rights.
    through: Option<&'static str>,
}

const fn may(right: &'static str, object: &'static str) -> Need {
    Need { right, object, through: None }
}

const fn may_through(function: &'static str, right: &'static str, object: &'static str) -> Need {
    Need { right, object, through: Some(function) }
}

const JOBS: &str = "_private_jobs";
const TASKS: &str = "_private_tasks";
const QUEUES: &str = "_private_job_queues";
const READ_LEDGER: Need = may("select", "migrations");

/// What each kind of call needs. PostgreSQL reports a missing grant by itself; policies must be looked up.
pub(crate) mod needs {
    use crate::db::access::{JOBS, Need, QUEUES, READ_LEDGER, TASKS, may, may_through};

    pub(crate) const LEDGER: &[Need] = &[READ_LEDGER];
    /// To add jobs. The function uses the rights on tables, and fails with an error without them.
    pub(crate) const ADD: &[Need] = &[may("execute", "add_job")];
    pub(crate) const REMOVE: &[Need] = &[
        READ_LEDGER,
        may("execute", "remove_job"),
        may_through("remove_job", "select", JOBS),
        may_through("remove_job", "update", JOBS),
        may_through("remove_job", "delete", JOBS),
    ];
    pub(crate) const STATS: &[Need] = &[READ_LEDGER, may("select", JOBS)];
    pub(crate) const LIST: &[Need] = &[READ_LEDGER, may("select", JOBS), may("select", TASKS), may("select", QUEUES)];
    /// To list queues, and the workers that hold jobs or queues.
    pub(crate) const QUEUE_ROWS: &[Need] = &[READ_LEDGER, may("select", JOBS), may("select", QUEUES)];
    pub(crate) const COMPLETE: &[Need] = &[
        READ_LEDGER,
        may("execute", "complete_jobs"),
        may("select", JOBS),
        may("update", JOBS),
        may_through("complete_jobs", "delete", JOBS),
        may("select", TASKS),
        may("select", QUEUES),
        may("update", QUEUES),
    ];
    pub(crate) const FAIL: &[Need] = &[
        READ_LEDGER,
        may("execute", "permanently_fail_jobs"),
        may("select", JOBS),
        may("update", JOBS),
        may("select", TASKS),
        may("select", QUEUES),
        may("update", QUEUES),
    ];
    pub(crate) const RESCHEDULE: &[Need] = &[
        READ_LEDGER,
        may("execute", "reschedule_jobs"),
        may("select", JOBS),
        may("update", JOBS),
        may("select", TASKS),
        may("select", QUEUES),
        may("update", QUEUES),
    ];
    pub(crate) const FORCE_UNLOCK: &[Need] = &[
        READ_LEDGER,
        may("execute", "force_unlock_workers"),
        may("select", JOBS),
        may("update", JOBS),
        may("select", QUEUES),
        may("update", QUEUES),
    ];
    pub(crate) const DELETE_JOBS: &[Need] =
        &[READ_LEDGER, may("select", JOBS), may("update", JOBS), may("delete", JOBS)];
    pub(crate) const DELETE_TASKS: &[Need] =
        &[READ_LEDGER, may("select", JOBS), may("select", TASKS), may("delete", TASKS)];
    pub(crate) const DELETE_QUEUES: &[Need] =
        &[READ_LEDGER, may("select", JOBS), may("select", QUEUES), may("delete", QUEUES)];
    /// To claim, run and settle jobs. A worker inserts new tasks at its start, and fails with an error without that
    /// right.
    pub(crate) const WORK: &[Need] = &[
        READ_LEDGER,
        may("select", JOBS),
        may("update", JOBS),
        may("delete", JOBS),
        may("select", QUEUES),
        may("update", QUEUES),
        may("select", TASKS),
    ];
    pub(crate) const CRON: &[Need] = &[
        may("execute", "add_job"),
        may("select", "_private_known_crontabs"),
        may("insert", "_private_known_crontabs"),
        may("update", "_private_known_crontabs"),
    ];
    /// To list workers with a heartbeat.
    pub(crate) const HEARTBEATS: &[Need] = &[may("select", "_native_workers")];
    /// To take jobs away from dead workers, in addition to the rights of recovery.
    pub(crate) const SWEEP: &[Need] = &[
        READ_LEDGER,
        may("select", JOBS),
        may("update", JOBS),
        may("select", TASKS),
        may("select", QUEUES),
        may("update", QUEUES),
    ];
    /// To send heartbeats, and to sweep workers that have stopped sending them.
    pub(crate) const RECOVERY: &[Need] = &[
        may("select", "_native_workers"),
        may("insert", "_native_workers"),
        may("update", "_native_workers"),
        may("delete", "_native_workers"),
        may("select", "_native_recoveries"),
        may("insert", "_native_recoveries"),
        may("update", "_native_recoveries"),
        may("delete", "_native_recoveries"),
    ];
    pub(crate) const CRON_DECISIONS: &[Need] =
        &[may("select", "_native_crontabs"), may("insert", "_native_crontabs"), may("update", "_native_crontabs")];

    /// All of them: one check serves every kind of call.
    pub(super) const ALL: &[&[Need]] = &[
        ADD,
        REMOVE,
        STATS,
        LIST,
        QUEUE_ROWS,
        COMPLETE,
        FAIL,
        RESCHEDULE,
        FORCE_UNLOCK,
        DELETE_JOBS,
        DELETE_TASKS,
        DELETE_QUEUES,
        WORK,
        CRON,
        HEARTBEATS,
        SWEEP,
        RECOVERY,
        CRON_DECISIONS,
    ];
}

/// Why a right is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Missing,
    Policy,
    Grant,
}

/// Whether the schema can be used.
pub(crate) enum Verdict {
    Ready,
    /// Nothing is installed.
    Empty,
    /// Too old, but another worker is migrating it now.
    Moving,
}

/// Sends the statements of a check: on a session of the engine, or on a client of the pool or the caller.
pub(crate) trait Ask {
    fn ask(&mut self, schema: &Schema, name: &'static str, sql: &str, params: Vec<(Param, Type)>) -> Result<Vec<Row>>;
}

impl Ask for Session {
    fn ask(&mut self, schema: &Schema, name: &'static str, sql: &str, params: Vec<(Param, Type)>) -> Result<Vec<Row>> {
        self.query(&Query::new(name, sql, schema), params.into_iter().map(|(param, _)| param).collect())
    }
}

impl<C: GenericClient> Ask for C {
    fn ask(&mut self, schema: &Schema, _: &'static str, sql: &str, params: Vec<(Param, Type)>) -> Result<Vec<Row>> {
        let params: Vec<(&(dyn ToSql + Sync), Type)> =
            params.iter().map(|(param, kind)| (&**param as &(dyn ToSql + Sync), kind.clone())).collect();
        Ok(self.query_typed(&schema.fill(sql), &params)?)
    }
}

/// What one check found.
pub(crate) struct Access {
    pub(crate) server_version: i32,
    pub(crate) role: String,
    database: String,
    may_create_schema: bool,
    pub(crate) has_schema: bool,
    may_use: bool,
    pub(crate) may_create: bool,
    has_ledger: bool,
    may_read_ledger: bool,
    has_jobs: bool,
    pub(crate) owns_jobs: bool,
    pub(crate) has_native_ledger: bool,
    pub(crate) has_queue_index: bool,
    pub(crate) has_private_workers: bool,
    pub(crate) has_job_retirements: bool,
    /// 0 if the migrations table is empty, missing or cannot be read.
    pub(crate) max_id: i32,
    breaks_us: Option<i32>,
    is_moving: bool,
    lacks: Vec<(Need, Why)>,
}

impl Access {
    /// Checks the schema and the role's rights.
    ///
    /// # Errors
    /// `Schema` if the server is too old or the migrations table has another form; database errors.
    pub(crate) fn look(client: &mut impl Ask, schema: &Schema) -> Result<Self> {
        let access = Self::look_once(client, schema)?;
        // The migrations table is read after the other tables. It may list a migration that was made in between.
        if access.max_id >= INSTALLED && !access.has_jobs {
            return Self::look_once(client, schema);
        }
        Ok(access)
    }

    fn look_once(client: &mut impl Ask, schema: &Schema) -> Result<Self> {
        let name = || (Box::new(schema.name().to_owned()) as Param, Type::TEXT);
        let rows = client.ask(schema, "probe", include_str!("../sql/schema/probe.sql"), vec![name()])?;
        let mut access = Self::read(rows.first().expect("the probe returns one row"))?;
        if access.server_version < OLDEST_SERVER {
            let (theirs, least) = (version(access.server_version), version(OLDEST_SERVER));
            return Err(Error::new(
                ErrorKind::Schema,
                format!("PostgreSQL {theirs} is too old; this library needs {least} or later"),
            ));
        }
        if access.may_read_ledger {
            let row = Self::ask_the_ledger(client, schema).map_err(|error| match error.sqlstate() {
                Some("42703") => access.refuse(
                    schema,
                    format!("was created by a very old worker: its ledger has no column \"breaking\"; {UPGRADE}"),
                ),
                _ => error.context(format_args!("reading the ledger of schema {schema:?}")),
            })?;
            access.max_id = row.try_get("max_id")?;
            access.breaks_us = row.try_get("breaks_us")?;
            access.is_moving = row.try_get("is_moving")?;
        }
        if access.may_use {
            let asked: Vec<Need> = needs::ALL.iter().copied().flatten().copied().collect();
            let column = |of: fn(&Need) -> Option<&'static str>| -> (Param, Type) {
                (Box::new(asked.iter().map(of).collect::<Vec<_>>()), Type::TEXT_ARRAY)
            };
            let params = vec![
                name(),
                column(|need| Some(need.object)),
                column(|need| Some(need.right)),
                column(|need| need.through),
            ];
            for row in client.ask(schema, "rights", include_str!("../sql/schema/rights.sql"), params)? {
                let (object, right): (&str, &str) = (row.try_get("object")?, row.try_get("privilege")?);
                let through: Option<&str> = row.try_get("through")?;
                let why = match row.try_get("why")? {
                    "missing" => Why::Missing,
                    "policy" => Why::Policy,
                    _ => Why::Grant,
                };
                let need = asked.iter().find(|n| (n.object, n.right, n.through) == (object, right, through));
                access.lacks.extend(need.map(|need| (*need, why)));
            }
        }
        Ok(access)
    }

    fn ask_the_ledger(client: &mut impl Ask, schema: &Schema) -> Result<Row> {
        let newest: Param = Box::new(NEWEST_KNOWN);
        let rows =
            client.ask(schema, "ledger", include_str!("../sql/schema/ledger.sql"), vec![(newest, Type::INT4)])?;
        Ok(rows.into_iter().next().expect("an aggregate returns one row"))
    }

    /// Returns the refusal of a schema that a newer worker has changed so that this library must not touch it. Sends
    /// one statement, unless the migrations table lists such a change or cannot be read.
    pub(crate) fn look_for_breaking(client: &mut impl Ask, schema: &Schema) -> Result<Option<Error>> {
        match Self::ask_the_ledger(client, schema) {
            Ok(row) if row.try_get::<_, Option<i32>>("breaks_us")?.is_none() => Ok(None),
            Err(error) if !error.is_refusal() => Err(error),
            _ => Ok(Self::look(client, schema)?.breaking(schema)),
        }
    }

    /// Reads the row of `probe.sql`.
    fn read(row: &Row) -> Result<Self> {
        Ok(Self {
            server_version: row.try_get("server_version")?,
            // The names of roles and databases are in catalogs that databases of other encodings share.
            role: row.try_get::<_, Text>("role")?.0,
            database: row.try_get::<_, Text>("database")?.0,
            may_create_schema: row.try_get("may_create_schema")?,
            has_schema: row.try_get("has_schema")?,
            may_use: row.try_get("may_use")?,
            may_create: row.try_get("may_create")?,
            has_ledger: row.try_get("has_ledger")?,
            may_read_ledger: row.try_get("may_read_ledger")?,
            has_jobs: row.try_get("has_jobs")?,
            owns_jobs: row.try_get("owns_jobs")?,
            has_native_ledger: row.try_get("has_native_ledger")?,
            has_queue_index: row.try_get("has_queue_index")?,
            has_private_workers: row.try_get("has_private_workers")?,
            has_job_retirements: row.try_get("has_job_retirements")?,
            max_id: 0,
            breaks_us: None,
            is_moving: false,
            lacks: Vec::new(),
        })
    }

    /// Returns the state of the schema.
    ///
    /// # Errors
    /// `Schema` if this library cannot use it. The text names the remedy.
    pub(crate) fn verdict(&self, schema: &Schema) -> Result<Verdict> {
        if self.has_schema && !self.may_use {
            return Err(self.grant(schema, "usage", "schema", schema.quoted()));
        }
        if let Some(refusal) = self.breaking(schema) {
            return Err(refusal);
        }
        let gone = |max_id: &str| {
            let text = format!("{max_id}, but its table {JOBS} is gone");
            Err(self.refuse(schema, text).with_sqlstate("42P01"))
        };
        // A role that only adds jobs may be unable to read the migrations table.
        if self.has_ledger && !self.may_read_ledger {
            return if self.has_jobs { Ok(Verdict::Ready) } else { gone("has a ledger of migrations") };
        }
        match self.max_id {
            0 => Ok(Verdict::Empty),
            ..INSTALLED if self.is_moving => Ok(Verdict::Moving),
            max_id @ ..INSTALLED => Err(self.refuse(
                schema,
                format!("is at migration {max_id}, and this library needs {INSTALLED} or later; {UPGRADE}"),
            )),
            max_id if !self.has_jobs => gone(&format!("is at migration {max_id}")),
            _ => Ok(Verdict::Ready),
        }
    }

    /// The refusal of a schema that a newer worker has changed so that this library must not touch it.
    pub(crate) fn breaking(&self, schema: &Schema) -> Option<Error> {
        self.breaks_us.map(|id| {
            self.refuse(
                schema,
                format!("has breaking migration {id} of a newer worker; this library knows {NEWEST_KNOWN} and older: upgrade it"),
            )
        })
    }

    /// Checks that calls with these needs can work.
    ///
    /// # Errors
    /// `Schema` if they cannot. The text names the remedy.
    pub(crate) fn allows(&self, schema: &Schema, needs: &[Need]) -> Result<()> {
        match self.verdict(schema)? {
            Verdict::Ready => {}
            Verdict::Empty => return Err(self.empty(schema)),
            Verdict::Moving => {
                let text = format!("is at migration {}, and another worker migrates it now; try again", self.max_id);
                return Err(self.refuse(schema, text));
            }
        }
        self.lacking(schema, needs).map_or(Ok(()), Err)
    }

    /// The refusal of a role from which row security hides all jobs.
    pub(crate) fn hidden(&self, schema: &Schema) -> Option<Error> {
        let jobs = may("select", JOBS);
        let hidden = self.lacks.iter().find(|(need, why)| *need == jobs && *why == Why::Policy)?;
        Some(self.lack(schema, hidden))
    }

    /// The refusal for the first of these rights that is missing.
    pub(crate) fn lacking(&self, schema: &Schema, needs: &[Need]) -> Option<Error> {
        let found = needs.iter().find_map(|need| self.lacks.iter().find(|(lack, _)| lack == need))?;
        Some(self.lack(schema, found))
    }

    /// Whether the objects of these rights exist.
    pub(crate) fn has(&self, needs: &[Need]) -> bool {
        !self.lacks.iter().any(|(lack, why)| *why == Why::Missing && needs.contains(lack))
    }

    fn lack(&self, schema: &Schema, (need, why): &(Need, Why)) -> Error {
        let Need { right, object, .. } = *need;
        let (rows, role) = (rows_of(object), &self.role);
        let ways = "make the role a member of their owner, or give it BYPASSRLS, or a policy (docs/grants.md)";
        match (why, right) {
            (Why::Missing, "execute") => self
                .refuse(schema, format!("is incomplete: it has no function {object}; restore it from a backup"))
                .with_sqlstate("42883"),
            (Why::Missing, _) if object.starts_with("_native_") => self
                .refuse(schema, format!("has no table {object}; run migrate once with the role that owns its tables"))
                .with_sqlstate("42P01"),
            (Why::Missing, _) => self
                .refuse(schema, format!("is incomplete: it has no table {object}; restore it from a backup"))
                .with_sqlstate("42P01"),
            (Why::Policy, "select") => self
                .refuse(schema, format!("hides all {rows} from role {role:?} by row security; {ways}"))
                .with_sqlstate("42501"),
            (Why::Policy, _) => self
                .refuse(schema, format!("allows role {role:?} no {right} of {rows} by row security; {ways}"))
                .with_sqlstate("42501"),
            (Why::Grant, "execute") => self.grant(schema, right, "function", &format!("{}.{object}", schema.quoted())),
            (Why::Grant, _) => self.grant(schema, right, "table", &format!("{}.{object}", schema.quoted())),
        }
    }

    /// The refusal of a schema in which nothing is installed.
    pub(crate) fn empty(&self, schema: &Schema) -> Error {
        let text = "has no job tables yet; run migrate first, with a role that may create them";
        self.refuse(schema, text).with_sqlstate("3F000")
    }

    /// Checks that the role may install the schema.
    ///
    /// # Errors
    /// `Schema` if it may not. The text names the grant.
    pub(crate) fn may_install(&self, schema: &Schema) -> Result<()> {
        match (self.has_schema, self.may_create, self.may_create_schema) {
            (true, false, _) => Err(self.grant(schema, "usage, create", "schema", schema.quoted())),
            (false, _, false) => {
                let database = quote(&self.database);
                Err(self.grant(schema, "create", "database", &database))
            }
            _ => Ok(()),
        }
    }

    fn refuse(&self, schema: &Schema, why: impl std::fmt::Display) -> Error {
        Error::new(ErrorKind::Schema, format!("schema {schema:?} of database {:?} {why}", self.database))
    }

    fn grant(&self, schema: &Schema, right: &str, kind: &str, object: &str) -> Error {
        let role = quote(&self.role);
        let text = format!(
            "cannot be used by role {role}, which lacks a right; its owner can give it: grant {right} on {kind} {object} to {role}"
        );
        self.refuse(schema, text).with_sqlstate("42501")
    }
}

/// What the last check found, shared by the clones of one client.
#[derive(Clone, Default)]
pub(crate) struct Known(Arc<Mutex<Option<(Instant, Access)>>>);

impl Known {
    /// Refuses a call that the schema or the role's rights do not allow. Checks at most once a minute. A refusal is
    /// always based on a new check, so a repaired schema or right takes effect at once.
    ///
    /// # Errors
    /// `Schema`, with the remedy in its text; database errors.
    pub(crate) fn check(&self, client: &mut impl Ask, schema: &Schema, needs: &[Need]) -> Result<()> {
        let allowed = |(at, access): &(Instant, Access)| at.elapsed() < FRESH && access.allows(schema, needs).is_ok();
        if self.0.lock().as_ref().is_some_and(allowed) {
            return Ok(());
        }
        let access = Access::look(client, schema)?;
        access.allows(schema, needs)?;
        *self.0.lock() = Some((Instant::now(), access));
        Ok(())
    }

    /// Forgets what the last check found.
    pub(crate) fn forget(&self) {
        *self.0.lock() = None;
    }
}

/// Turns an error of PostgreSQL into a `Schema` error if it reports that the role lacks a right.
pub(crate) fn refused(schema: &Schema, error: Error) -> Error {
    match (error.kind(), error.sqlstate()) {
        (ErrorKind::Database, Some("42501")) => {
            let text = format!("schema {schema:?}: {error}; docs/grants.md lists what each role needs");
            Error::new(ErrorKind::Schema, text).with_sqlstate("42501").caused_by(error)
        }
        _ => error,
    }
}

/// What an operator calls the rows of a table.
fn rows_of(table: &str) -> String {
    match table {
        JOBS => "jobs".to_owned(),
        TASKS => "tasks".to_owned(),
        QUEUES => "queues".to_owned(),
        _ => format!("rows of {table}"),
    }
}

pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// 150018 is 15.18, and 90624 is 9.6.24.
fn version(number: i32) -> String {
    match number {
        100_000.. => format!("{}.{}", number / 10_000, number % 10_000),
        _ => format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100),
    }
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_are_formatted_as_by_postgresql() {
        assert_eq!([version(150_018), version(120_000), version(90_624)], ["15.18", "12.0", "9.6.24"]);
    }
}
