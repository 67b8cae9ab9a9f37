//! Brings the schema to the state that a worker needs, and finds out which optional objects it has.
//! Knows the migrations table and the extras, which are the objects that only this library uses. Knows nothing of jobs.

use crate::db::access::{Access, INSTALLED, NEWEST_KNOWN, Need, Verdict, needs};
use crate::db::schema::Schema;
use crate::db::session::{Query, Session};
use crate::error::{Error, ErrorKind, Result};
use std::thread;
use std::time::Duration;

/// The extras in their order: the id in this library's own migrations table, and the SQL that creates them.
const EXTRAS: [(i32, &str); 7] = [
    (1, include_str!("../../migrations/native/001_extras.sql")),
    (2, include_str!("../../migrations/native/002_recovery.sql")),
    (3, include_str!("../../migrations/native/003_crontabs.sql")),
    (6, include_str!("../../migrations/native/006_qualified_names.sql")),
    (7, include_str!("../../migrations/native/007_lists.sql")),
    (8, include_str!("../../migrations/native/008_index_scans.sql")),
    (9, include_str!("../../migrations/native/009_removals.sql")),
];

/// How many retries an installation has that clashes with another one.
const TRIES: u32 = 12;

/// What a worker needs to know of its database.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// `server_version_num`: 150018 is 15.18.
    pub(crate) server_version: i32,
    /// The newest migration of the shared schema.
    pub(crate) max_id: i32,
    /// Whether the index `_native_jobs_queue` exists and is valid.
    pub(crate) has_queue_index: bool,
    /// Whether the table `_native_crontabs` can be used. With it, cron distinguishes a restart from a long absence.
    pub(crate) has_crontabs: bool,
    /// Whether `_native_workers` and `_native_recoveries` exist and the role has all rights on them. Recovery needs
    /// both.
    pub(crate) has_recovery: bool,
    /// Why recovery is not possible: a table is missing, or the role lacks a right. `None` if it is possible.
    pub(crate) no_recovery: Option<String>,
    /// Whether `_native_workers` can be read.
    pub(crate) has_heartbeats: bool,
    /// Why `_native_workers` cannot be read although it exists.
    pub(crate) hidden_heartbeats: Option<String>,
    /// Whether `_private_workers` and `worker_heartbeat` exist, which show this worker's heartbeat to other
    /// implementations.
    pub(crate) has_private_workers: bool,
    /// Whether `_private_job_retirements` exists, which marks jobs that were superseded while they ran.
    pub(crate) has_job_retirements: bool,
}

/// Installs the shared schema if there is none, adds the extras if the role may, and returns what the schema has.
///
/// Safe to call from many processes at once, and beside other kinds of workers that install the schema.
///
/// # Errors
/// `Schema` if the server, the schema or the role's rights do not allow it, or do not allow `needs` afterwards. The
/// text names the remedy.
pub(crate) fn migrate(session: &mut Session, schema: &Schema, needs: &[Need]) -> Result<Facts> {
    let mut migrator = Migrator { session, schema };
    let access = migrator.reach(true)?;
    let (access, lost) = migrator.add_extras(access)?;
    facts(access, schema, lost, needs)
}

/// Returns what the schema has, and changes nothing.
///
/// # Errors
/// `Schema` if the schema or the role's rights do not allow `needs`. The text names the remedy.
pub(crate) fn probe(session: &mut Session, schema: &Schema, needs: &[Need]) -> Result<Facts> {
    let mut migrator = Migrator { session, schema };
    let access = migrator.reach(false)?;
    facts(access, schema, "it was never created", needs)
}

struct Migrator<'a> {
    session: &'a mut Session,
    schema: &'a Schema,
}

impl Migrator<'_> {
    /// Checks the schema, waits for other installers, and installs it if `may_install`, until a worker can start.
    fn reach(&mut self, may_install: bool) -> Result<Access> {
        let mut tries = 0;
        loop {
            let access = self.look()?;
            match access.verdict(self.schema)? {
                Verdict::Ready => {
                    let refusal = access.lacking(self.schema, needs::LEDGER).or_else(|| access.hidden(self.schema));
                    return refusal.map_or(Ok(access), Err);
                }
                // This wait ends by itself: the migrations table gets a row, or its newest row grows old.
                Verdict::Moving => {}
                Verdict::Empty if !may_install => return Err(access.empty(self.schema)),
                Verdict::Empty => {
                    access.may_install(self.schema)?;
                    match self.install() {
                        Ok(()) => continue,
                        Err(error) if tries < TRIES && is_clash(&error) => tries += 1,
                        Err(error) => return Err(error.context(format_args!("installing schema {:?}", self.schema))),
                    }
                }
            }
            // The pause differs from process to process, so that two installers that clashed do not clash again.
            thread::sleep(Duration::from_millis(40 + u64::from(std::process::id() % 32) + u64::from(tries * 20)));
        }
    }

    fn look(&mut self) -> Result<Access> {
        Access::look(self.session, self.schema)
    }

    /// Creates the shared schema, unless another installer has created it meanwhile.
    fn install(&mut self) -> Result<()> {
        self.alone(|migrator| {
            let access = migrator.look()?;
            if !matches!(access.verdict(migrator.schema)?, Verdict::Empty) {
                return Ok(());
            }
            if !access.has_schema {
                migrator.session.batch(&migrator.schema.fill(include_str!("../sql/schema/create_schema.sql")))?;
            }
            migrator.session.batch(&migrator.schema.fill(include_str!("../../migrations/install.sql")))?;
            log::info!(schema = migrator.schema.name(), newest_migration = INSTALLED; "schema installed");
            Ok(())
        })
    }

    /// Adds the extras that are missing. A worker can run without them: if they cannot be added, the text returned is
    /// the reason.
    fn add_extras(&mut self, access: Access) -> Result<(Access, &'static str)> {
        if !(access.owns_jobs && access.may_create) {
            return Ok((access, "the role does not own the tables"));
        }
        match self.add_missing_extras(&access) {
            Ok(false) => Ok((access, "it was dropped, or is invalid")),
            Ok(true) => Ok((self.look()?, "it is invalid")),
            Err(error) if error.kind() == ErrorKind::Database => {
                log::debug!(schema = self.schema.name(), error:% = error; "extras not added");
                Ok((self.look()?, why_not(&error)))
            }
            Err(error) => Err(error.context(format_args!("adding extras to schema {:?}", self.schema))),
        }
    }

    fn add_missing_extras(&mut self, access: &Access) -> Result<bool> {
        if access.has_native_ledger && self.missing_extras()?.is_empty() {
            return Ok(false);
        }
        self.alone(|migrator| {
            let missing = match migrator.look()?.has_native_ledger {
                true => migrator.missing_extras()?,
                false => EXTRAS.to_vec(),
            };
            let limits = migrator.statement("extra_limits", include_str!("../sql/schema/extra_limits.sql"));
            let record = migrator.statement("record_extra", include_str!("../sql/schema/record_extra.sql"));
            migrator.session.query(&limits, Vec::new())?;
            for (id, sql) in missing {
                migrator.session.batch(&migrator.schema.fill(sql))?;
                migrator.session.query(&record, vec![Box::new(id)])?;
            }
            Ok(true)
        })
    }

    fn missing_extras(&mut self) -> Result<Vec<(i32, &'static str)>> {
        let query = self.statement("extras", include_str!("../sql/schema/extras.sql"));
        let rows = self.session.query(&query, Vec::new())?;
        let there = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<i32>, _>>()?;
        Ok(EXTRAS.into_iter().filter(|(id, _)| !there.contains(id)).collect())
    }

    /// Runs `work` in a transaction, while no other process of this library migrates the schema.
    fn alone<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let lock = self.statement("migrate_lock", include_str!("../sql/schema/migrate_lock.sql"));
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

/// Returns what a worker needs to know of the schema. `lost` is the reason why an extra may be missing.
fn facts(access: Access, schema: &Schema, lost: &str, needs: &[Need]) -> Result<Facts> {
    if let Some(refusal) = access.lacking(schema, needs) {
        return Err(refusal);
    }
    let name = schema.name();
    if access.max_id > NEWEST_KNOWN {
        log::warn!(schema = name, newest_migration = access.max_id, known = NEWEST_KNOWN; "the schema is newer than this library, but has no breaking migration");
    }
    if !access.has_queue_index {
        log::warn!(schema = name, role = access.role.as_str(), reason = lost; "working without the index _native_jobs_queue: named queues are claimed more slowly when many jobs wait in them");
    }
    let no_recovery = access.lacking(schema, needs::RECOVERY).map(|refusal| refusal.to_string());
    let no_heartbeats = access.lacking(schema, needs::HEARTBEATS).map(|refusal| refusal.to_string());
    Ok(Facts {
        has_heartbeats: no_heartbeats.is_none(),
        hidden_heartbeats: no_heartbeats.filter(|_| access.has(needs::HEARTBEATS)),
        server_version: access.server_version,
        max_id: access.max_id,
        has_queue_index: access.has_queue_index,
        has_crontabs: access.lacking(schema, needs::CRON_DECISIONS).is_none(),
        has_recovery: no_recovery.is_none(),
        no_recovery,
        has_private_workers: access.has_private_workers,
        has_job_retirements: access.has_job_retirements,
    })
}

/// Whether two installers clashed. The work may be done at the next check.
fn is_clash(error: &Error) -> bool {
    // A duplicate row in a catalog or the migrations table; a schema, table or type that exists already; a deadlock or
    // lock timeout.
    matches!(error.sqlstate(), Some("23505" | "42P06" | "42P07" | "42710" | "40P01" | "55P03"))
}

fn why_not(error: &Error) -> &'static str {
    match error.sqlstate() {
        Some("55P03") => "a transaction kept the jobs locked; the next start tries again",
        Some("57014") => "it takes longer to build than the statement timeout; create it by hand",
        Some("42501") => "the role may not create it",
        _ => "it could not be created",
    }
}

#[cfg(test)]
mod tests;
