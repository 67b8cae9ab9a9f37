//! Every statement of the engine, one method each. Knows the tables; decides nothing.

use crate::config::retry::LONGEST_DELAY;
use crate::db::access::Access;
use crate::db::migrate::Facts;
use crate::db::schema::Schema;
use crate::db::session::{Interrupt, Param, Query, Session, Setup};
use crate::db::{Database, Reconnecting};
use crate::engine::claim_plan::Along;
use crate::engine::frontier::{Bounds, Scope};
use crate::error::{Error, ErrorKind, Result};
use crate::job::active::{ActiveJob, Failure};
use crate::job::series::Series;
use crate::job::spec::RawJob;
use crate::job::{Bytes, DbTime, Job};
use crate::text::{self, Fitting, Look};
use chrono::{DateTime, Utc};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_postgres::Row;

/// The channel on which `add_job` notifies of new jobs. It belongs to the database, not to a schema.
pub(crate) const JOBS_CHANNEL: &str = "jobs:insert";

/// How many waiting jobs a look for unknown tasks reads at most.
const LOOKED_AT: i32 = 10_000;

/// The SQLSTATE of a lock that another session did not release in time.
pub(crate) const LOCK_TIMEOUT: &str = "55P03";

/// How long claims take no turns after one waited for its turn in vain.
const UNORDERED: Duration = Duration::from_secs(10);

/// Settings for fixed plans by index, independent of the statistics of an empty table. Planning anew at every claim
/// would cost more than the claim.
const STEADY_PLANS: [(&str, &str); 6] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("jit", "off"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
];

/// Which jobs a claim selects. A part that is not set is sent as NULL.
#[derive(Default)]
pub(crate) struct Filter {
    pub(crate) forbidden: Option<Vec<String>>,
    pub(crate) accepted: Option<Vec<String>>,
    /// Whether the index `_native_jobs_queue` exists, by which a claim goes from queue to queue.
    pub(crate) queue_index: bool,
}

/// The parameters of one claim.
pub(crate) struct Wanted {
    /// The most jobs that it returns, without those that it takes along.
    pub(crate) limit: usize,
    /// How many jobs it may take along of named queues, and of which tasks.
    pub(crate) along: Along,
    pub(crate) quick: Vec<i32>,
    /// Payloads for which the database stores more bytes are left out: `apart` is their stored size.
    pub(crate) inline: usize,
    pub(crate) tasks: Vec<i32>,
    /// The time that `run_at` is compared with, if it is not the database's.
    pub(crate) now: Option<DateTime<Utc>>,
    /// Jobs to skip.
    pub(crate) avoid: Option<Vec<i64>>,
    /// Whether to write nothing, and only return the ids of the jobs that would be claimed.
    pub(crate) only_looks: bool,
    /// Where to look for jobs.
    pub(crate) scope: Scope,
    /// Queues of which the first job is looked for, too, wherever it is.
    pub(crate) queues: Vec<i32>,
    /// Waits until no other worker of this library claims with the same number.
    pub(crate) turn: Option<usize>,
}

impl Filter {
    fn is_ascii(&self) -> bool {
        self.forbidden.iter().chain(&self.accepted).flatten().all(|flag| flag.is_ascii())
    }
}

/// A claimed job, in a row that `Job::from_row` reads, with its `task_id`.
pub(crate) struct Claimed {
    pub(crate) row: Row,
    /// Why the job cannot be given to a handler; `None` if it can.
    pub(crate) unreadable: Option<String>,
}

/// The name of a statement's file, and its text.
type Statement = (&'static str, &'static str);

/// A statement by its path below `src/sql`, without the ending.
macro_rules! statement {
    ($path:literal) => {
        ($path, include_str!(concat!("../sql/", $path, ".sql")))
    };
}

/// The purpose of an engine session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Fetch,
    Settle,
    Lease,
    Listen,
    Cron,
    /// The start of a worker, before its threads.
    Init,
}

impl Role {
    /// The name in the server's list of sessions.
    fn name(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Settle => "settle",
            Self::Lease => "lease",
            Self::Listen => "listen",
            Self::Cron => "cron",
            Self::Init => "init",
        }
    }

    /// The settings and channels of a session of this role.
    fn setup(self, worker: &str) -> Setup {
        let mut settings = match self {
            Self::Fetch | Self::Settle => STEADY_PLANS.to_vec(),
            _ => Vec::new(),
        };
        match self {
            // A crash of the server may forget a claim; the job is then available again, and its outcome is refused.
            // Where a job must not run twice, the fetch thread sends `make_durable` after the claim. A payload may take
            // long to arrive, so the engine's own deadline ends a call that makes no progress.
            Self::Fetch => settings.extend([("synchronous_commit", "off"), ("statement_timeout", "0")]),
            // A row that another session holds must not delay the outcomes that are written with it.
            Self::Settle => settings.push(("lock_timeout", "100")),
            _ => {}
        }
        let channels = match self {
            Self::Listen => vec![JOBS_CHANNEL.to_owned(), own_channel(worker)],
            _ => Vec::new(),
        };
        let settings = settings.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
        Setup { settings, channels }
    }
}

/// The statements of one engine thread, on a session of its own.
pub(crate) struct Store {
    sessions: Reconnecting,
    schema: Schema,
    worker: String,
    /// The statements used so far, by the name of their file.
    queries: HashMap<&'static str, Query>,
    /// Until then claims do not wait for their turn.
    unordered_until: Option<Instant>,
}

/// The result of [`Store::look_at_tasks`].
#[derive(Default)]
pub(crate) struct TasksSeen {
    /// Tasks with due jobs that the worker does not have, and how many jobs.
    pub(crate) unknown: Vec<(String, i64)>,
    /// Whether a task of the worker has been deleted.
    pub(crate) own_deleted: bool,
}

/// The entry of a crontab identifier in the shared tables.
pub(crate) struct KnownCrontab {
    pub(crate) known_since: DateTime<Utc>,
    pub(crate) last_execution: Option<DateTime<Utc>>,
}

impl Store {
    pub(crate) fn new(database: &Database, schema: &Schema, worker: &str, role: Role, interrupt: &Interrupt) -> Self {
        Self {
            sessions: Reconnecting::new(database, role.name(), interrupt, role.setup(worker)),
            schema: schema.clone(),
            worker: worker.to_owned(),
            queries: HashMap::new(),
            unordered_until: None,
        }
    }

    /// Sends a statement, on a new session if there is none.
    fn query(&mut self, (name, sql): Statement, params: Vec<Param>) -> Result<Vec<Row>> {
        let query = self.queries.entry(name).or_insert_with(|| Query::new(name, sql, &self.schema));
        self.sessions.with(|session| session.query(query, params))
    }

    /// As `query`, after the claims of other sessions with this turn. Returns `None`, and changes nothing, if claims take
    /// no turns now.
    fn query_in_turn(&mut self, turn: usize, (name, sql): Statement, params: Vec<Param>) -> Result<Option<Vec<Row>>> {
        if self.unordered_until.is_some_and(|until| Instant::now() < until) {
            return Ok(None);
        }
        let (wait, text) = statement!("claim/wait_for_turn");
        for (name, sql) in [(wait, text), (name, sql)] {
            self.queries.entry(name).or_insert_with(|| Query::new(name, sql, &self.schema));
        }
        let (wait, query) = (&self.queries[wait], &self.queries[name]);
        let first: Vec<Param> = vec![Box::new(turn as i32)];
        match self.sessions.with(|session| session.query_after((wait, first), (query, params))) {
            Err(error) if error.sqlstate() == Some(LOCK_TIMEOUT) => {
                // The other session does not go on, so its turn is not waited for.
                self.unordered_until = Some(Instant::now() + UNORDERED);
                Ok(None)
            }
            rows => rows.map(Some),
        }
    }

    /// How often this store's session was opened.
    pub(crate) fn connects(&self) -> u64 {
        self.sessions.connects()
    }

    /// Opens the session if there is none.
    pub(crate) fn connect(&mut self) -> Result<()> {
        self.sessions.with(|_| Ok(()))
    }

    /// Gives up the session; the next call opens another.
    pub(crate) fn disconnect(&mut self) {
        self.sessions.leave();
    }

    /// Claims jobs, each in a row that `Job::from_row` reads, with its `task_id` and `apart`.
    pub(crate) fn claim(&mut self, filter: &Filter, wanted: Wanted) -> Result<Vec<Claimed>> {
        let Wanted { limit, along, quick, inline, tasks, now, avoid, only_looks, scope, queues, turn } = wanted;
        let limit = limit as i32;
        let (bounds, listed, window) = match scope {
            Scope::Everywhere => (None, None, filter.queue_index.then_some(2 * limit + 32)),
            Scope::From(bounds) => (Some(bounds), None, Some(limit + 512)),
            // A list has jobs without a queue only. Of named queues, the claim looks at `queues` alone.
            Scope::Listed(ids) => (None, Some(ids), Some(0)),
        };
        let (priorities, since) = bounds.map(|Bounds { priorities, since }| (priorities, since)).unzip();
        let worker = self.worker.clone();
        let params = || -> Vec<Param> {
            vec![
                Box::new(worker.clone()),
                Box::new(tasks.clone()),
                Box::new(limit),
                Box::new(filter.forbidden.clone()),
                Box::new(filter.accepted.clone()),
                Box::new(now),
                Box::new(window),
                Box::new(avoid.clone()),
                Box::new(only_looks),
                Box::new(inline as i32),
                Box::new(priorities.clone()),
                Box::new(since.clone()),
                Box::new(listed.clone()),
                Box::new(along.of_queue as i32),
                Box::new(along.of_all as i32),
                Box::new(quick.clone()),
                Box::new(queues.clone()),
            ]
        };
        let claim = statement!("claim/claim");
        let rows = match turn {
            Some(turn) => self.query_in_turn(turn, claim, params()).transpose(),
            None => None,
        };
        match rows.unwrap_or_else(|| self.query(claim, params())) {
            Err(error) if text::is_untranslatable(&error) && filter.is_ascii() => {
                // Otherwise the text of one job would prevent the claim of all others.
                let query = &self.queries[claim.0];
                let rows = self.sessions.with(|session| session.query_unconverted(query, params()))?;
                rows.into_iter().map(|row| self.converted(row)).collect()
            }
            rows => Ok(rows?.into_iter().map(|row| Claimed { row, unreadable: None }).collect()),
        }
    }

    /// The ids of the next jobs without a queue, from these bounds on, in their order.
    pub(crate) fn scout(
        &mut self,
        filter: &Filter,
        tasks: Vec<i32>,
        limit: usize,
        now: Option<DateTime<Utc>>,
        bounds: Bounds,
    ) -> Result<Vec<i64>> {
        let params: Vec<Param> = vec![
            Box::new(tasks),
            Box::new(limit as i32),
            Box::new(filter.forbidden.clone()),
            Box::new(filter.accepted.clone()),
            Box::new(now),
            Box::new(bounds.priorities),
            Box::new(bounds.since),
        ];
        let rows = self.query(statement!("claim/scout"), params)?;
        Ok(rows.first().map(|row| row.get("ids")).unwrap_or_default())
    }

    /// Reads a job again that was claimed with its texts in the database's own encoding.
    fn converted(&mut self, row: Row) -> Result<Claimed> {
        let foreign = Job::texts(&row, |look| !look.is_ascii)?;
        if foreign.is_empty() {
            return Ok(Claimed { row, unreadable: None });
        }
        let id: i64 = row.try_get("id")?;
        match self.query(statement!("claim/claimed"), vec![Box::new(id)]) {
            Ok(mut rows) if rows.len() == 1 => Ok(Claimed { row: rows.remove(0), unreadable: None }),
            Ok(_) => Ok(Claimed { row, unreadable: Some("its row is gone".into()) }),
            Err(error) if text::is_untranslatable(&error) => {
                let why = match error.sqlstate() == Some(text::INVALID) {
                    true => {
                        format!("{} is not valid UTF-8", Job::texts(&row, |look: &Look| !look.is_utf8)?.join(" and "))
                    }
                    false => format!("{} has a character that UTF-8 does not have", foreign.join(" or ")),
                };
                Ok(Claimed { row, unreadable: Some(why) })
            }
            Err(error) => Err(error),
        }
    }

    /// The payloads of these jobs, without the jobs that this worker does not hold any more.
    pub(crate) fn payloads(&mut self, jobs: &[i64]) -> Result<HashMap<i64, Vec<u8>>> {
        let (worker, jobs) = (self.worker.clone(), jobs.to_vec());
        let rows = self.query(statement!("claim/payloads"), vec![Box::new(worker), Box::new(jobs)])?;
        rows.iter().map(|row| Ok((row.get("id"), row.try_get::<_, Bytes>("payload")?.0))).collect()
    }

    /// The first five parameters of every settling statement: the claims, and which of them free their queue. Of a
    /// series only the jobs that are settled last do.
    fn settled(&self, jobs: &[Arc<ActiveJob>]) -> Vec<Param> {
        let mut here: HashMap<*const Series, usize> = HashMap::new();
        for series in jobs.iter().filter_map(|active| active.claim.series.as_ref()) {
            *here.entry(Arc::as_ptr(series)).or_default() += 1;
        }
        let is_last = |series: &Arc<Series>| series.unsettled() <= here[&Arc::as_ptr(series)];
        let frees: Vec<bool> = jobs.iter().map(|active| active.claim.series.as_ref().is_none_or(is_last)).collect();
        let mut params = self.claims(jobs);
        params.push(Box::new(frees));
        params
    }

    /// The first four parameters of every statement about jobs of this worker: the worker, and its claims of these jobs.
    fn claims(&self, jobs: &[Arc<ActiveJob>]) -> Vec<Param> {
        let ids: Vec<i64> = jobs.iter().map(|active| active.job().id).collect();
        let attempts: Vec<i16> = jobs.iter().map(|active| active.job().attempts).collect();
        let keyed: Vec<bool> = jobs.iter().map(|active| active.keyed()).collect();
        vec![Box::new(self.worker.clone()), Box::new(ids), Box::new(attempts), Box::new(keyed)]
    }

    /// Makes the claims of this session so far survive a crash of the server.
    pub(crate) fn make_durable(&mut self) -> Result<()> {
        self.query(statement!("claim/make_durable"), vec![]).map(drop)
    }

    /// Which of these jobs have been recovered at least `often` times.
    pub(crate) fn often_recovered(&mut self, jobs: &[i64], often: i32) -> Result<HashSet<i64>> {
        let params: Vec<Param> = vec![Box::new(jobs.to_vec()), Box::new(often)];
        let rows = self.query(statement!("claim/often_recovered"), params)?;
        Ok(rows.iter().map(|row| row.get("job_id")).collect())
    }

    /// Deletes the recovery counts of deleted jobs: of those in `jobs`, or of all if it is `None`.
    pub(crate) fn forget_deleted_jobs(&mut self, jobs: Option<Vec<i64>>) -> Result<()> {
        self.query(statement!("lease/delete_recoveries_of_deleted_jobs"), vec![Box::new(jobs)]).map(drop)
    }

    /// Deletes jobs that are done; returns the ids of those that it deleted.
    pub(crate) fn complete(&mut self, jobs: &[Arc<ActiveJob>]) -> Result<HashSet<i64>> {
        let params = self.settled(jobs);
        let rows = self.query(statement!("settle/complete"), params)?;
        Ok(ids(&rows))
    }

    /// Writes failures. Returns the id of each job that it wrote, and whether the job has failed permanently. Escapes
    /// the characters of their texts that the database cannot hold.
    pub(crate) fn fail(
        &mut self,
        jobs: &[Arc<ActiveJob>],
        mut failures: Vec<Failure>,
        for_good: bool,
    ) -> Result<Vec<(i64, bool)>> {
        let delays: Vec<Option<f64>> =
            failures.iter().map(|failure| failure.delay.map(|delay| delay.as_secs_f64())).collect();
        let mut fitting = Fitting::new();
        loop {
            let mut params = self.settled(jobs);
            params.push(Box::new(failures.iter().map(|failure| failure.text.clone()).collect::<Vec<_>>()));
            params.push(Box::new(delays.clone()));
            params.push(Box::new(failures.iter().map(|failure| for_good || failure.for_good).collect::<Vec<_>>()));
            params.push(Box::new(failures.iter().map(|failure| failure.rest.clone()).collect::<Vec<_>>()));
            let error = match self.query(statement!("settle/fail"), params) {
                Ok(rows) => return Ok(rows.iter().map(|row| (row.get("id"), row.get("for_good"))).collect()),
                Err(error) => error,
            };
            if !fitting.escape(&error, failures.iter_mut().map(|failure| &mut failure.text)) {
                return Err(error);
            }
        }
    }

    /// Gives jobs back, each after its delay; returns the ids of those that it gave back.
    pub(crate) fn give_back(&mut self, jobs: &[Arc<ActiveJob>], delays: &[Option<Duration>]) -> Result<HashSet<i64>> {
        let mut params = self.settled(jobs);
        let delays: Vec<Option<f64>> = delays.iter().map(|delay| delay.map(|delay| delay.as_secs_f64())).collect();
        params.push(Box::new(delays));
        let rows = self.query(statement!("settle/give_back"), params)?;
        Ok(ids(&rows))
    }

    /// Which of these jobs still have a row.
    pub(crate) fn existing(&mut self, jobs: &[i64]) -> Result<HashSet<i64>> {
        let jobs = jobs.to_vec();
        let rows = self.query(statement!("settle/existing_jobs"), vec![Box::new(jobs)])?;
        Ok(ids(&rows))
    }

    /// Which of these jobs cannot be written now, because another session holds a row.
    pub(crate) fn blocked(&mut self, jobs: &[i64]) -> Result<HashSet<i64>> {
        let jobs = jobs.to_vec();
        let rows = self.query(statement!("settle/blocked"), vec![Box::new(jobs)])?;
        Ok(ids(&rows))
    }

    /// Ends the calls that may still run on sessions that this worker gave up; returns whether all have ended.
    pub(crate) fn end_abandoned(&mut self) -> Result<bool> {
        self.sessions.end_abandoned()
    }

    /// The jobs that are locked by this worker in the database: id and attempts of each.
    pub(crate) fn held(&mut self) -> Result<Vec<(i64, i16)>> {
        let worker = self.worker.clone();
        let rows = self.query(statement!("lease/held"), vec![Box::new(worker)])?;
        Ok(rows.iter().map(|row| (row.get("id"), row.get("attempts"))).collect())
    }

    /// Gives back jobs that are not in this worker's ledger, and frees queues of which it holds no job. Returns the ids of
    /// the jobs that it gave back, and how many queues it freed.
    pub(crate) fn reclaim(&mut self, stranded: &[(i64, i16)]) -> Result<(HashSet<i64>, usize)> {
        let worker = self.worker.clone();
        let (jobs, attempts): (Vec<i64>, Vec<i16>) = stranded.iter().copied().unzip();
        let rows =
            self.query(statement!("lease/reclaim"), vec![Box::new(worker), Box::new(jobs), Box::new(attempts)])?;
        let jobs = ids(&rows);
        let queues = rows.len() - jobs.len();
        Ok((jobs, queues))
    }

    /// Renews locks; returns the ids of the jobs that are still locked by this worker.
    pub(crate) fn renew(&mut self, jobs: &[Arc<ActiveJob>]) -> Result<HashSet<i64>> {
        let params = self.claims(jobs);
        let rows = self.query(statement!("lease/renew"), params)?;
        Ok(ids(&rows))
    }

    /// The jobs and the queues that have been locked for four hours, by their ids.
    pub(crate) fn old_locks(&mut self) -> Result<(Vec<i64>, Vec<i64>)> {
        let rows = self.query(statement!("lease/old_locks"), vec![])?;
        let (jobs, queues): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.get("is_job"));
        let ids = |rows: Vec<&Row>| rows.iter().map(|row| row.get("id")).collect();
        Ok((ids(jobs), ids(queues)))
    }

    /// Frees those of these jobs and queues that have been locked for four hours; returns how many of each.
    pub(crate) fn reset(&mut self, jobs: &[i64], queues: &[i64]) -> Result<(i64, i64)> {
        let params: Vec<Param> = vec![Box::new(jobs.to_vec()), Box::new(queues.to_vec())];
        let rows = self.query(statement!("lease/reset"), params)?;
        Ok(rows.first().map_or((0, 0), |row| (row.get("jobs"), row.get("queues"))))
    }

    /// The error if a newer worker has made a breaking migration since this worker started.
    pub(crate) fn breaking(&mut self, schema: &Schema) -> Result<Option<Error>> {
        self.sessions.with(|session| Access::look_for_breaking(session, schema))
    }

    /// The ids of these tasks. Enters those that are new.
    pub(crate) fn tasks(&mut self, names: &[String]) -> Result<Vec<(i32, String)>> {
        let mut ids = Vec::new();
        // A concurrent insert is invisible to this snapshot, so the statement neither enters the name nor returns it:
        // retry. The next one sees it.
        for _ in 0..3 {
            let asked = names.to_vec();
            let rows = self.query(statement!("claim/tasks"), vec![Box::new(asked)])?;
            ids = rows.iter().map(|row| (row.get("id"), row.get("identifier"))).collect();
            if ids.len() >= names.len() {
                break;
            }
        }
        Ok(ids)
    }

    /// Checks that the database can hold these texts, each with the name of its field.
    ///
    /// # Errors
    /// `Config` naming the field and the character.
    pub(crate) fn check_texts(&mut self, fields: &[(String, String)]) -> Result<()> {
        let texts: Vec<String> = fields.iter().map(|(_, text)| text.clone()).filter(|text| !text.is_ascii()).collect();
        if texts.is_empty() {
            return Ok(());
        }
        let answer = self.query(statement!("enqueue/storable"), vec![Box::new(texts)]);
        answer.map(drop).map_err(|e| text::named(e, fields.iter().map(|(name, text)| (name.as_str(), text.as_str()))))
    }

    /// Looks for due jobs of other tasks among the first waiting jobs, and checks whether all of these tasks exist.
    pub(crate) fn look_at_tasks(&mut self, own: Vec<i32>) -> Result<TasksSeen> {
        let rows = self.query(statement!("claim/look_at_tasks"), vec![Box::new(own), Box::new(LOOKED_AT)])?;
        let mut seen = TasksSeen::default();
        for row in rows {
            match row.get::<_, Option<String>>("identifier") {
                Some(task) => seen.unknown.push((task, row.get("jobs"))),
                None => seen.own_deleted = true,
            }
        }
        Ok(seen)
    }

    /// The tasks of this library's workers whose last heartbeat is within this time. Only where `_native_workers`
    /// exists.
    pub(crate) fn published_tasks(&mut self, within: Duration) -> Result<HashSet<String>> {
        let rows = self.query(statement!("claim/published_tasks"), vec![Box::new(within.as_secs_f64())])?;
        Ok(rows.iter().map(|row| row.get("identifier")).collect())
    }

    /// Writes this worker's heartbeat to every heartbeat table that exists. Returns whether another worker of this
    /// library has been silent for longer than the threshold.
    pub(crate) fn beat(&mut self, facts: &Facts, metadata: &serde_json::Value, threshold: Duration) -> Result<bool> {
        let (worker, metadata) = (self.worker.clone(), metadata.clone());
        let mut has_silent = false;
        if facts.has_recovery {
            let seconds = threshold.min(LONGEST_DELAY).as_secs_f64();
            let params: Vec<Param> = vec![Box::new(worker.clone()), Box::new(metadata.clone()), Box::new(seconds)];
            let rows = self.query(statement!("lease/native_heartbeat"), params)?;
            has_silent = rows.first().is_some_and(|row| row.get("has_silent"));
        }
        if facts.has_private_workers {
            self.query(statement!("lease/heartbeat"), vec![Box::new(worker), Box::new(metadata)])?;
        }
        Ok(has_silent)
    }

    /// Deletes this worker's entries from the heartbeat tables.
    pub(crate) fn deregister(&mut self, facts: &Facts) -> Result<()> {
        let lists = [
            (facts.has_recovery, statement!("lease/native_deregister")),
            (facts.has_private_workers, statement!("lease/deregister")),
        ];
        for (_, statement) in lists.into_iter().filter(|(is_there, _)| *is_there) {
            self.query(statement, vec![Box::new(self.worker.clone())])?;
        }
        Ok(())
    }

    /// The database's time, and the entries of these crontab identifiers that exist.
    pub(crate) fn cron_look(
        &mut self,
        identifiers: Vec<String>,
    ) -> Result<(DateTime<Utc>, HashMap<String, KnownCrontab>)> {
        let rows = self.query(statement!("cron/cron_look"), vec![Box::new(identifiers)])?;
        let time = |row: &Row, column| row.get::<_, Option<DbTime>>(column).map(|time| time.0);
        let now = rows.first().and_then(|row| time(row, "now")).expect("the statement returns at least one row");
        let known = rows.iter().filter_map(|row| {
            let identifier: Option<String> = row.get("identifier");
            let known = |_: &String| KnownCrontab {
                known_since: time(row, "known_since").unwrap_or(now),
                last_execution: time(row, "last_execution"),
            };
            identifier.map(|identifier| (identifier.clone(), known(&identifier)))
        });
        Ok((now, known.collect()))
    }

    /// Enters crontab entries that are new.
    pub(crate) fn cron_register(&mut self, identifiers: Vec<String>, since: DateTime<Utc>) -> Result<()> {
        self.query(statement!("cron/cron_register"), vec![Box::new(identifiers), Box::new(since)]).map(drop)
    }

    /// Takes a tick and adds its job if it is `wanted`. Returns the job's id, or `None` if no job was added, also
    /// because the tick was taken before.
    pub(crate) fn cron_tick(
        &mut self,
        identifier: &str,
        tick: DateTime<Utc>,
        job: RawJob,
        wanted: bool,
    ) -> Result<Option<i64>> {
        let spec = job.spec;
        let params: Vec<Param> = vec![
            Box::new(identifier.to_owned()),
            Box::new(tick),
            Box::new(job.identifier),
            Box::new(job.payload),
            Box::new(spec.queue_name),
            Box::new(spec.max_attempts),
            Box::new(spec.job_key),
            Box::new(spec.priority),
            Box::new(spec.job_key_mode.unwrap_or_default().as_sql()),
            Box::new(wanted),
        ];
        let rows = self.query(statement!("cron/cron_tick"), params).map_err(|error| match error.sqlstate() {
            // The first is this library's code, the second is what the async crate's add_job raises in the same case.
            Some("22012" | "GWNOR") => {
                Error::new(ErrorKind::Conflict, "a worker took the job of this key meanwhile; nothing was added")
            }
            _ => error,
        })?;
        Ok(rows.first().map(|row| row.get("id")))
    }

    /// Until when the ticks of crontab entries were decided. Only where `_native_crontabs` exists.
    pub(crate) fn cron_decided(&mut self, identifiers: Vec<String>) -> Result<HashMap<String, DateTime<Utc>>> {
        let rows = self.query(statement!("cron/cron_decided"), vec![Box::new(identifiers)])?;
        Ok(rows.iter().map(|row| (row.get("identifier"), row.get::<_, DbTime>("decided_until").0)).collect())
    }

    /// Notes that the ticks of crontab entries were decided. Only where `_native_crontabs` exists.
    pub(crate) fn cron_decide(&mut self, identifiers: Vec<String>, until: DateTime<Utc>) -> Result<()> {
        self.query(statement!("cron/cron_decide"), vec![Box::new(identifiers), Box::new(until)]).map(drop)
    }

    /// Sends a notification to this worker's own channel.
    pub(crate) fn probe_listen(&mut self) -> Result<()> {
        let channel = own_channel(&self.worker);
        self.query(statement!("session/probe_listen"), vec![Box::new(channel)]).map(drop)
    }

    /// Waits for a notification. Returns `Some(true)` for new jobs, `Some(false)` for any other, `None` if none arrives
    /// in time.
    pub(crate) fn wait(&mut self, timeout: Duration) -> Result<Option<bool>> {
        let channel = self.sessions.with(|session: &mut Session| session.wait(timeout))?;
        Ok(channel.map(|channel| channel == JOBS_CHANNEL))
    }
}

/// A channel that only this worker listens to.
fn own_channel(worker: &str) -> String {
    format!("{worker}:probe")
}

fn ids(rows: &[Row]) -> HashSet<i64> {
    rows.iter().filter_map(|row| row.get::<_, Option<i64>>("id")).collect()
}
