//! Brings the schema to where a worker can use it, and finds out what else stands there.
//! Knows the ledger of migrations and our extras; nothing of jobs.

use crate::db::session::{Query, Session};
use crate::error::{Error, ErrorKind, Result};
use crate::schema::Schema;
use crate::text::Text;
use std::thread;
use std::time::Duration;
use tokio_postgres::Row;

/// What `migrations/install.sql` makes, and the least that a worker can use.
const INSTALLED: i32 = 18;

/// The newest id that any worker has defined so far. Some ids mean different things in different
/// workers, so that an id says nothing about what is there: `Facts` does.
const NEWEST_KNOWN: i32 = 22;

/// `server_version_num` of PostgreSQL 12: stored generated columns, `materialized`.
const OLDEST_SERVER: i32 = 120_000;

/// Our own objects, in order: the id in our own ledger, and what makes them.
const EXTRAS: [(i32, &str); 5] = [
    (1, include_str!("../migrations/native/001_extras.sql")),
    (2, include_str!("../migrations/native/002_recovery.sql")),
    (3, include_str!("../migrations/native/003_crontabs.sql")),
    (6, include_str!("../migrations/native/006_qualified_names.sql")),
    (7, include_str!("../migrations/native/007_lists.sql")),
];

/// How often an installation that clashed with another is tried again.
const TRIES: u32 = 12;

/// What a worker has to know of its database.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// `server_version_num`: 150018 is 15.18.
    pub(crate) server_version: i32,
    /// The newest migration of the shared schema.
    pub(crate) max_id: i32,
    /// Our index `_native_jobs_queue`, whole.
    pub(crate) has_queue_index: bool,
    /// Our table `_native_crontabs`, by which cron knows a restart from an absence.
    pub(crate) has_crontabs: bool,
    /// `_native_workers` and `_native_recoveries`, which recovery goes by.
    pub(crate) has_recovery: bool,
    /// `_private_workers` and `worker_heartbeat`, by which others see that we live.
    pub(crate) has_private_workers: bool,
    /// `_private_job_retirements`, which marks jobs that were superseded while they ran.
    pub(crate) has_job_retirements: bool,
}

/// Installs the shared schema if there is none, adds our extras if we may, and answers what is there.
///
/// Safe to call from many processes at once, beside other kinds of workers that do the same.
///
/// # Errors
/// `Schema` if the server, the schema or our rights do not allow it; the text says what to do.
pub(crate) fn migrate(session: &mut Session, schema: &Schema) -> Result<Facts> {
    let mut migrator = Migrator { session, schema };
    let standing = migrator.reach(true)?;
    let (standing, lost) = migrator.add_extras(standing)?;
    Ok(standing.facts(schema, lost))
}

/// Answers what is there, and changes nothing.
///
/// # Errors
/// `Schema` if a worker cannot use it; the text says what to do.
pub(crate) fn probe(session: &mut Session, schema: &Schema) -> Result<Facts> {
    let mut migrator = Migrator { session, schema };
    let standing = migrator.reach(false)?;
    Ok(standing.facts(schema, "it was never made"))
}

struct Migrator<'a> {
    session: &'a mut Session,
    schema: &'a Schema,
}

/// Whether a worker can start.
enum Verdict {
    Ready,
    /// Nobody has installed anything.
    Empty,
    /// Too old, but somebody else is at it.
    Moving,
}

impl Migrator<'_> {
    /// Looks, waits for others, and installs if we may, until a worker can start.
    fn reach(&mut self, may_install: bool) -> Result<Standing> {
        let mut tries = 0;
        loop {
            let standing = self.look()?;
            match standing.verdict(self.schema)? {
                Verdict::Ready => return Ok(standing),
                // Ends by itself: the ledger moves on, or its newest row grows old.
                Verdict::Moving => {}
                Verdict::Empty if !may_install => {
                    let text = "has no job tables yet; run migrate first, with a role that may create them";
                    return Err(standing.refuse(self.schema, text));
                }
                Verdict::Empty => {
                    standing.may_install(self.schema)?;
                    match self.install() {
                        Ok(()) => continue,
                        Err(error) if tries < TRIES && is_clash(&error) => tries += 1,
                        Err(error) => return Err(error.context(format_args!("installing schema {:?}", self.schema))),
                    }
                }
            }
            // Uneven steps, so that those who clashed do not meet again.
            thread::sleep(Duration::from_millis(40 + u64::from(std::process::id() % 32) + u64::from(tries * 20)));
        }
    }

    fn look(&mut self) -> Result<Standing> {
        let standing = self.look_once()?;
        // The ledger is read after the tables, and may tell of one that was made in between.
        if standing.max_id >= INSTALLED && !standing.has_jobs {
            return self.look_once();
        }
        Ok(standing)
    }

    fn look_once(&mut self) -> Result<Standing> {
        let probe = self.statement("probe", include_str!("sql/probe.sql"));
        let rows = self.session.query(&probe, vec![Box::new(self.schema.name().to_owned())])?;
        let mut standing = Standing::read(rows.first().expect("the probe answers one row"), self.schema)?;
        if standing.has_ledger {
            let ledger = self.statement("ledger", include_str!("sql/ledger.sql"));
            let rows =
                self.session.query(&ledger, vec![Box::new(NEWEST_KNOWN)]).map_err(|error| match error.sqlstate() {
                    Some("42703") => standing.refuse(
                        self.schema,
                        format!("was made by a very old worker: its ledger has no column \"breaking\"; {UPGRADE}"),
                    ),
                    _ => error.context(format_args!("reading the ledger of schema {:?}", self.schema)),
                })?;
            let row = rows.first().expect("an aggregate answers one row");
            standing.max_id = row.try_get("max_id")?;
            standing.breaks_us = row.try_get("breaks_us")?;
            standing.is_moving = row.try_get("is_moving")?;
        }
        Ok(standing)
    }

    /// Makes the shared schema, or finds that another has made it meanwhile.
    fn install(&mut self) -> Result<()> {
        self.alone(|migrator| {
            let standing = migrator.look()?;
            if !matches!(standing.verdict(migrator.schema)?, Verdict::Empty) {
                return Ok(());
            }
            if !standing.has_schema {
                migrator.session.batch(&migrator.schema.fill(include_str!("sql/create_schema.sql")))?;
            }
            migrator.session.batch(&migrator.schema.fill(include_str!("../migrations/install.sql")))?;
            log::info!(schema = migrator.schema.name(), newest_migration = INSTALLED; "schema installed");
            Ok(())
        })
    }

    /// Adds what is missing of our extras. They are a convenience: where they cannot be had, the
    /// answer says why, and a worker does without.
    fn add_extras(&mut self, standing: Standing) -> Result<(Standing, &'static str)> {
        if !(standing.owns_jobs && standing.may_create) {
            return Ok((standing, "our role does not own the tables"));
        }
        match self.add_missing_extras(&standing) {
            Ok(false) => Ok((standing, "it was dropped, or is invalid")),
            Ok(true) => Ok((self.look()?, "it is invalid")),
            Err(error) if error.kind() == ErrorKind::Database => {
                log::debug!(schema = self.schema.name(), error:% = error; "extras not added");
                Ok((self.look()?, why_not(&error)))
            }
            Err(error) => Err(error.context(format_args!("adding extras to schema {:?}", self.schema))),
        }
    }

    fn add_missing_extras(&mut self, standing: &Standing) -> Result<bool> {
        if standing.has_native_ledger && self.missing_extras()?.is_empty() {
            return Ok(false);
        }
        self.alone(|migrator| {
            let missing = match migrator.look()?.has_native_ledger {
                true => migrator.missing_extras()?,
                false => EXTRAS.to_vec(),
            };
            let limits = migrator.statement("extra_limits", include_str!("sql/extra_limits.sql"));
            let record = migrator.statement("record_extra", include_str!("sql/record_extra.sql"));
            migrator.session.query(&limits, Vec::new())?;
            for (id, sql) in missing {
                migrator.session.batch(&migrator.schema.fill(sql))?;
                migrator.session.query(&record, vec![Box::new(id)])?;
            }
            Ok(true)
        })
    }

    fn missing_extras(&mut self) -> Result<Vec<(i32, &'static str)>> {
        let query = self.statement("extras", include_str!("sql/extras.sql"));
        let rows = self.session.query(&query, Vec::new())?;
        let there = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<i32>, _>>()?;
        Ok(EXTRAS.into_iter().filter(|(id, _)| !there.contains(id)).collect())
    }

    /// Runs `work` in a transaction, when no other of our kind is at the same.
    fn alone<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let lock = self.statement("migrate_lock", include_str!("sql/migrate_lock.sql"));
        let schema = self.schema.name().to_owned();
        self.session.batch("begin")?;
        let done = self.session.query(&lock, vec![Box::new(schema)]).and_then(|_| work(self));
        match done {
            Ok(value) => self.session.batch("commit").map(|()| value),
            Err(error) => {
                if !error.breaks_session() {
                    self.session.batch("rollback")?;
                }
                Err(error)
            }
        }
    }

    fn statement(&self, name: &'static str, sql: &str) -> Query {
        Query::new(name, sql, self.schema)
    }
}

/// What one look has found.
struct Standing {
    server_version: i32,
    role: String,
    database: String,
    may_create_schema: bool,
    has_schema: bool,
    may_use: bool,
    may_create: bool,
    has_ledger: bool,
    has_jobs: bool,
    owns_jobs: bool,
    jobs_are_hidden: bool,
    has_native_ledger: bool,
    has_queue_index: bool,
    has_crontabs: bool,
    has_recovery: bool,
    has_private_workers: bool,
    has_job_retirements: bool,
    /// 0 in an empty ledger, and where there is none.
    max_id: i32,
    breaks_us: Option<i32>,
    is_moving: bool,
}

/// What makes an older schema ours to use.
const UPGRADE: &str = "let Node's graphile-worker, 0.16 or later, bring it up to date: graphile-worker --schema-only";

impl Standing {
    /// Reads the row of `probe.sql`; refuses what would make the next look fail.
    fn read(row: &Row, schema: &Schema) -> Result<Self> {
        let standing = Self {
            server_version: row.try_get("server_version")?,
            // The names of roles and databases stand in catalogs that databases of other encodings share.
            role: row.try_get::<_, Text>("role")?.0,
            database: row.try_get::<_, Text>("database")?.0,
            may_create_schema: row.try_get("may_create_schema")?,
            has_schema: row.try_get("has_schema")?,
            may_use: row.try_get("may_use")?,
            may_create: row.try_get("may_create")?,
            has_ledger: row.try_get("has_ledger")?,
            has_jobs: row.try_get("has_jobs")?,
            owns_jobs: row.try_get("owns_jobs")?,
            jobs_are_hidden: row.try_get("jobs_are_hidden")?,
            has_native_ledger: row.try_get("has_native_ledger")?,
            has_queue_index: row.try_get("has_queue_index")?,
            has_crontabs: row.try_get("has_crontabs")?,
            has_recovery: row.try_get("has_recovery")?,
            has_private_workers: row.try_get("has_private_workers")?,
            has_job_retirements: row.try_get("has_job_retirements")?,
            max_id: 0,
            breaks_us: None,
            is_moving: false,
        };
        if standing.server_version < OLDEST_SERVER {
            let (theirs, least) = (version(standing.server_version), version(OLDEST_SERVER));
            return Err(Error::new(
                ErrorKind::Schema,
                format!("PostgreSQL {theirs} is too old; this library needs {least} or later"),
            ));
        }
        if standing.has_schema && !standing.may_use {
            return Err(standing.grant(schema, "usage", "schema", schema.quoted()));
        }
        if standing.has_ledger && !row.try_get("may_read_ledger")? {
            return Err(standing.grant(schema, "select", "table", &format!("{}.migrations", schema.quoted())));
        }
        Ok(standing)
    }

    fn verdict(&self, schema: &Schema) -> Result<Verdict> {
        let max_id = self.max_id;
        if let Some(id) = self.breaks_us {
            return Err(self.refuse(
                schema,
                format!("has breaking migration {id} of a newer worker; this library knows {NEWEST_KNOWN} and older: upgrade it"),
            ));
        }
        match max_id {
            0 => Ok(Verdict::Empty),
            ..INSTALLED if self.is_moving => Ok(Verdict::Moving),
            ..INSTALLED => Err(self.refuse(
                schema,
                format!("is at migration {max_id}, and this library needs {INSTALLED} or later; {UPGRADE}"),
            )),
            _ if !self.has_jobs => {
                Err(self.refuse(schema, format!("is at migration {max_id}, but its table _private_jobs is gone")))
            }
            _ if self.jobs_are_hidden => Err(self.refuse(
                schema,
                format!(
                    "hides all jobs from role {:?} by row security; make the role a member of their owner, or give it BYPASSRLS",
                    self.role
                ),
            )),
            _ => Ok(Verdict::Ready),
        }
    }

    fn may_install(&self, schema: &Schema) -> Result<()> {
        match (self.has_schema, self.may_create, self.may_create_schema) {
            (true, false, _) => Err(self.grant(schema, "usage, create", "schema", schema.quoted())),
            (false, _, false) => {
                let database = quote(&self.database);
                Err(self.grant(schema, "create", "database", &database))
            }
            _ => Ok(()),
        }
    }

    fn facts(self, schema: &Schema, lost: &str) -> Facts {
        let name = schema.name();
        if self.max_id > NEWEST_KNOWN {
            log::warn!(schema = name, newest_migration = self.max_id, known = NEWEST_KNOWN; "the schema is ahead of this library, in nothing that breaks it");
        }
        if !self.has_queue_index {
            log::warn!(schema = name, role = self.role.as_str(), reason = lost; "working without the index _native_jobs_queue: named queues are claimed more slowly when many jobs wait in them");
        }
        Facts {
            server_version: self.server_version,
            max_id: self.max_id,
            has_queue_index: self.has_queue_index,
            has_crontabs: self.has_crontabs,
            has_recovery: self.has_recovery,
            has_private_workers: self.has_private_workers,
            has_job_retirements: self.has_job_retirements,
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
        self.refuse(schema, text)
    }
}

/// Whether two installers met: the work may be done when we look again.
fn is_clash(error: &Error) -> bool {
    // Unique rows of a catalog or the ledger; a schema, table, type that is there already; a lock.
    matches!(error.sqlstate(), Some("23505" | "42P06" | "42P07" | "42710" | "40P01" | "55P03"))
}

fn why_not(error: &Error) -> &'static str {
    match error.sqlstate() {
        Some("55P03") => "a transaction kept the jobs locked; the next start tries again",
        Some("57014") => "it takes longer to build than a statement may; create it by hand",
        Some("42501") => "our role may not create it",
        _ => "it could not be created",
    }
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// 150018 is 15.18, and 90624 was 9.6.24.
fn version(number: i32) -> String {
    match number {
        100_000.. => format!("{}.{}", number / 10_000, number % 10_000),
        _ => format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100),
    }
}

#[cfg(test)]
mod tests;
