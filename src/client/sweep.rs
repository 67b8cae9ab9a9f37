//! One sweep: finds workers that have stopped sending heartbeats, and takes their jobs away from them.
//! Knows heartbeats, hooks and the rules of recovery. `engine/recovery.rs` decides when a worker sweeps, and
//! `WorkerUtils::sweep_stale_workers` sweeps by hand. It is in `client/`, because both of them call it.
//!
//! Only a worker with a heartbeat can be found dead. An unknown locker may be a live worker of another kind; the
//! four-hour rule applies to those.
//!
//! A heartbeat publishes its interval in the entry's metadata. A worker is dead after the sweeper's threshold, and not
//! before `MISSED_BEATS` of its own intervals: `Beat::stale_after` alone decides this.

use crate::backoff::random_unit;
use crate::config::{LONGEST_BEAT_INTERVAL, MISSED_BEATS, WorkerRecoveryConfig};
use crate::db::migrate::Facts;
use crate::db::schema::Schema;
use crate::db::session::{Param, Query, Session};
use crate::error::{Error, ErrorKind, Result};
use crate::hooks::{FailureReason, HookRegistry, JobRecoveryContext, JobRecoveryResult};
use crate::job::{DbTime, FIRST, Job, LAST};
use crate::text::{Text, is_untranslatable};
use chrono::{DateTime, Utc};
use log::{info, warn};
use serde::{Serialize, Serializer};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::Row;

/// A table of workers with a heartbeat, and the names of the statements on it.
struct List {
    table: &'static str,
    list_heartbeats: &'static str,
    lock_stale_workers: &'static str,
    delete_dead_workers: &'static str,
}

/// The table of this library, and the async crate's table. Each is used where it exists.
const LISTS: [List; 2] = [
    List {
        table: "_native_workers",
        list_heartbeats: "list_heartbeats",
        lock_stale_workers: "lock_stale_workers",
        delete_dead_workers: "delete_dead_workers",
    },
    List {
        table: "_private_workers",
        list_heartbeats: "list_heartbeats_foreign",
        lock_stale_workers: "lock_stale_workers_foreign",
        delete_dead_workers: "delete_dead_workers_foreign",
    },
];

/// The delay of a job doubles at most this many times.
const DOUBLINGS: u32 = 10;

/// The field of an entry's metadata that publishes the interval, in milliseconds.
const INTERVAL_FIELD: &str = "heartbeat_interval_ms";

/// A longer published interval is ignored as an error: it would keep a dead worker's jobs forever.
const LONGEST_PUBLISHED_MS: f64 = 86_400_000.0;

/// What a sweep by hand can change of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SweepStaleWorkersOptions {
    /// Replaces the configuration's [`sweep_threshold`](WorkerRecoveryConfig#structfield.sweep_threshold). If it is too
    /// short for a worker, [`raised_thresholds`](SweepStaleWorkersResult#structfield.raised_thresholds) names that
    /// worker.
    pub sweep_threshold: Option<Duration>,
    /// Replaces the configuration's [`recovery_delay`](WorkerRecoveryConfig#structfield.recovery_delay).
    pub recovery_delay: Option<Duration>,
    /// Only reports which workers are dead, and changes nothing. Defaults to `false`.
    pub dry_run: bool,
}

/// What a sweep did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SweepStaleWorkersResult {
    /// The workers that were found dead.
    pub worker_ids: Vec<String>,
    /// How many of their jobs were recovered.
    pub recovered_count: i32,
    /// The live workers for which the threshold was too short, the one with the longest interval first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub raised_thresholds: Vec<RaisedThreshold>,
}

/// A worker that sends heartbeats too seldom for the threshold of a sweep. The sweep applied three of that worker's
/// intervals instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RaisedThreshold {
    /// The worker's id.
    pub worker_id: String,
    /// How often it sends a heartbeat; `None` if it does not publish that. Then 30 seconds are assumed.
    #[serde(rename = "heartbeat_interval_ms", serialize_with = "optional_millis")]
    pub heartbeat_interval: Option<Duration>,
    /// After how long a silence it is dead.
    #[serde(rename = "sweep_threshold_ms", serialize_with = "millis")]
    pub sweep_threshold: Duration,
}

impl fmt::Display for RaisedThreshold {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { worker_id, heartbeat_interval, sweep_threshold } = self;
        match heartbeat_interval {
            Some(interval) => write!(f, "worker {worker_id} sends a heartbeat every {interval:?}")?,
            None => write!(
                f,
                "worker {worker_id} does not publish how often it sends a heartbeat ({LONGEST_BEAT_INTERVAL:?} is assumed)"
            )?,
        }
        write!(f, ", so it is stale after {sweep_threshold:?}")
    }
}

/// A worker with a heartbeat, live or dead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ActiveWorkerRow {
    /// The id under which it locks jobs.
    pub worker_id: String,
    /// When it sent its last heartbeat.
    pub last_heartbeat_at: DateTime<Utc>,
    /// When it sent its first heartbeat.
    pub started_at: DateTime<Utc>,
    /// What it publishes about itself.
    pub metadata: Option<serde_json::Value>,
    /// Whether it has been silent for longer than the threshold.
    pub is_stale: bool,
}

/// A job that was taken away from a dead worker.
pub(crate) struct Recovered {
    pub(crate) job: Arc<Job>,
    pub(crate) previous_worker_id: String,
}

/// The statements of a sweep, on a session of its own.
pub(crate) struct Sweep<'a> {
    pub(crate) session: Session,
    pub(crate) schema: &'a Schema,
    pub(crate) facts: &'a Facts,
    pub(crate) hooks: &'a HookRegistry,
    /// The id of the sweeper, which never sweeps itself.
    pub(crate) worker_id: &'a str,
    /// Whether to pass over workers that are only in the async crate's table.
    pub(crate) only_ours: bool,
    /// For how long the sweeper's calls and heartbeats have been in time. After an outage, a worker needs one of its
    /// intervals to send a heartbeat again.
    pub(crate) healthy_for: Duration,
}

/// A worker's entry in the tables of heartbeats.
struct Beat {
    worker: ActiveWorkerRow,
    silent_for: f64,
    /// How often it sends a heartbeat, if it publishes that.
    interval: Option<Duration>,
    /// Whether it is in this library's table.
    is_ours: bool,
    /// In how many tables it is.
    lists: usize,
}

impl Beat {
    /// Merges the entries of one worker in two tables: the later heartbeat counts, and the longer interval.
    fn merge(self, other: Self) -> Self {
        let (later, earlier) = if self.silent_for < other.silent_for { (self, other) } else { (other, self) };
        Self {
            interval: later.interval.max(earlier.interval),
            is_ours: later.is_ours || earlier.is_ours,
            lists: later.lists + earlier.lists,
            ..later
        }
    }

    /// After how long a silence this worker is dead, for a sweeper with this threshold.
    fn stale_after(&self, threshold: Duration) -> Duration {
        threshold.max(self.interval.unwrap_or(LONGEST_BEAT_INTERVAL) * MISSED_BEATS)
    }

    fn is_silent(&self, threshold: Duration) -> bool {
        self.silent_for > self.stale_after(threshold).as_secs_f64()
    }

    /// Reports a threshold that is too short for this worker, if the worker is live.
    fn raised(&self, threshold: Duration) -> Option<RaisedThreshold> {
        let sweep_threshold = self.stale_after(threshold);
        (sweep_threshold > threshold && !self.is_silent(threshold)).then(|| RaisedThreshold {
            worker_id: self.worker.worker_id.clone(),
            heartbeat_interval: self.interval,
            sweep_threshold,
        })
    }
}

/// A worker that seems dead.
struct StaleWorker {
    worker_id: String,
    lists: usize,
    /// How long it must have been silent, in seconds.
    threshold: f64,
}

/// A job that a silent worker holds.
struct Held {
    job: Arc<Job>,
    by: String,
    recoveries: i32,
    /// Whether that worker holds no other job.
    alone: bool,
    /// Whether the worker holds an earlier job of its queue, and has probably not started this one.
    waits: bool,
}

/// A job of a dead worker, and what to write about it.
struct Verdict {
    job: Arc<Job>,
    previous_worker_id: String,
    attempts: i16,
    delay: f64,
    run_at: Option<DateTime<Utc>>,
    /// The new `last_error`.
    error: String,
    /// Whether this counts as a recovery of the job.
    counts: bool,
}

impl Sweep<'_> {
    /// The workers with a heartbeat, the most recent heartbeat first.
    ///
    /// # Errors
    /// `Schema` if this library's table of them exists and the role may not read it.
    pub(crate) fn workers(&mut self, threshold: Duration) -> Result<Vec<ActiveWorkerRow>> {
        if let Some(why) = &self.facts.hidden_heartbeats {
            return Err(Error::new(ErrorKind::Schema, why.as_str()));
        }
        let mut workers: Vec<ActiveWorkerRow> = self
            .beats()?
            .into_iter()
            .map(|beat| ActiveWorkerRow { is_stale: beat.is_silent(threshold), ..beat.worker })
            .collect();
        workers.sort_by(|a, b| (b.last_heartbeat_at, &a.worker_id).cmp(&(a.last_heartbeat_at, &b.worker_id)));
        Ok(workers)
    }

    fn beats(&mut self) -> Result<Vec<Beat>> {
        let mut beats: HashMap<String, Beat> = HashMap::new();
        for list in self.lists() {
            let is_ours = list.table == LISTS[0].table;
            for row in
                self.read(list.list_heartbeats, include_str!("../sql/recovery/list_heartbeats.sql"), list.table, None)?
            {
                let metadata = row.try_get::<_, Option<Text>>("metadata")?.map(|text| text.0);
                let worker = ActiveWorkerRow {
                    worker_id: row.try_get::<_, Text>("worker_id")?.0,
                    last_heartbeat_at: row.try_get::<_, DbTime>("last_heartbeat_at")?.0,
                    started_at: row.try_get::<_, DbTime>("started_at")?.0,
                    metadata: metadata.and_then(|text| serde_json::from_str(&text).ok()),
                    is_stale: false,
                };
                let interval = worker.metadata.as_ref().and_then(published_interval);
                let beat = Beat { worker, silent_for: row.try_get("silent_for")?, interval, is_ours, lists: 1 };
                let beat = match beats.remove(&beat.worker.worker_id) {
                    Some(other) => beat.merge(other),
                    None => beat,
                };
                beats.insert(beat.worker.worker_id.clone(), beat);
            }
        }
        Ok(beats.into_values().collect())
    }

    /// Finds dead workers, asks the hooks what to do with their jobs, and does it.
    ///
    /// # Errors
    /// `Schema` if this library's own tables are missing: recoveries could not be counted.
    pub(crate) fn sweep(
        &mut self,
        config: &WorkerRecoveryConfig,
        options: &SweepStaleWorkersOptions,
    ) -> Result<(SweepStaleWorkersResult, Vec<Recovered>)> {
        check(self.facts)?;
        if !options.dry_run {
            self.query(
                "forget_deleted_jobs",
                include_str!("../sql/lease/delete_recoveries_of_deleted_jobs.sql"),
                "",
                vec![Box::new(None::<Vec<i64>>)],
            )?;
        }
        let threshold = options.sweep_threshold.unwrap_or(config.sweep_threshold);
        let mut beats = self.beats()?;
        beats.retain(|beat| beat.worker.worker_id != self.worker_id && (beat.is_ours || !self.only_ours));
        let mut raised_thresholds: Vec<_> = beats.iter().filter_map(|beat| beat.raised(threshold)).collect();
        raised_thresholds.sort_by(|a, b| (b.sweep_threshold, &a.worker_id).cmp(&(a.sweep_threshold, &b.worker_id)));
        let known_by = |beat: &Beat| beat.interval.is_none() || self.healthy_for >= beat.stale_after(threshold);
        let silent: Vec<Beat> = beats.into_iter().filter(|beat| beat.is_silent(threshold) && known_by(beat)).collect();
        if silent.is_empty() {
            return Ok((SweepStaleWorkersResult { raised_thresholds, ..Default::default() }, Vec::new()));
        }
        let held = self.held_by(&silent)?;
        let stale = silent.into_iter().filter_map(|beat| {
            let stale_after = beat.stale_after(threshold).as_secs_f64();
            let worker_id = beat.worker.worker_id;
            let resilient = held.iter().any(|held| held.by == worker_id && config.is_resilient(&held.job));
            let factor = if resilient { config.resilient_sweep_threshold_multiplier } else { 1 };
            let threshold = stale_after * f64::from(factor);
            (beat.silent_for > threshold).then_some(StaleWorker { worker_id, lists: beat.lists, threshold })
        });
        let stale: Vec<StaleWorker> = stale.collect();
        if options.dry_run || stale.is_empty() {
            let worker_ids = stale.into_iter().map(|worker| worker.worker_id).collect();
            return Ok((SweepStaleWorkersResult { worker_ids, recovered_count: 0, raised_thresholds }, Vec::new()));
        }

        // Hooks are called outside of the transaction, because they may take long.
        let delay = options.recovery_delay.unwrap_or(config.recovery_delay);
        let retired = self.retired(&held)?;
        let dead: HashSet<&str> = stale.iter().map(|worker| worker.worker_id.as_str()).collect();
        let held = held.into_iter().filter(|held| dead.contains(held.by.as_str()));
        let verdicts: Vec<Verdict> = held
            .filter_map(|held| {
                let superseded = retired.contains(&held.job.id);
                self.judge(held, superseded, delay, config.max_recoveries)
            })
            .collect();
        self.session.batch("begin")?;
        match self.carry_out(&stale, verdicts) {
            Ok((result, recovered)) => {
                self.session.batch("commit")?;
                Ok((SweepStaleWorkersResult { raised_thresholds, ..result }, recovered))
            }
            Err(error) => {
                if !error.breaks_session() {
                    self.session.batch("rollback")?;
                }
                Err(error)
            }
        }
    }

    /// Decides about one job. Returns `None` if it stays with its dead worker.
    fn judge(&self, held: Held, superseded: bool, delay: Duration, max_recoveries: u32) -> Option<Verdict> {
        let Held { job, by: previous_worker_id, recoveries, alone, waits } = held;
        let given_back = if superseded { job.attempts } else { (job.attempts - 1).max(0) };
        if waits {
            let run_at = Some(job.run_at);
            // With an error the job is claimed without others, so the next crash shows whether it is the cause.
            let error =
                format!("given back: the worker {previous_worker_id} died, and held an earlier job of the queue");
            let (attempts, delay) = (given_back, 0.0);
            return Some(Verdict { job, previous_worker_id, attempts, delay, run_at, error, counts: false });
        }
        let recovery = u32::try_from(recoveries).unwrap_or(0) + 1;
        let context = JobRecoveryContext {
            job: job.clone(),
            worker_id: self.worker_id.to_owned(),
            previous_worker_id: previous_worker_id.clone(),
            reason: FailureReason::WorkerCrashed,
        };
        let decision = self.hooks.recover(&context);
        let doublings = (recovery - 1).min(DOUBLINGS);
        let spread = delay.as_secs_f64() * f64::from(1u32 << doublings) * (0.5 + random_unit());
        // Claims recognize a recovered job by the beginning of this text.
        let mut error =
            format!("recovered: the worker {previous_worker_id} died while it held this job, recovery {recovery}");
        let (attempts, delay, run_at) = match decision {
            JobRecoveryResult::Skip => return None,
            // Only this job can have killed the worker.
            JobRecoveryResult::Default if alone && recovery > max_recoveries => {
                error = format!(
                    "failed permanently: the worker {previous_worker_id} died while it held this job and no other, \
                     after {recoveries} recoveries (max_recoveries: {max_recoveries})"
                );
                (job.max_attempts.max(job.attempts), 0.0, None)
            }
            JobRecoveryResult::Default => (given_back, spread, None),
            JobRecoveryResult::Reschedule { run_at, attempts } => {
                let attempts = if superseded { job.attempts } else { attempts.unwrap_or(job.attempts) };
                (attempts, 0.0, Some(run_at.clamp(FIRST, LAST)))
            }
            JobRecoveryResult::FailWithBackoff => (job.attempts, f64::from(job.attempts.min(10)).exp(), None),
        };
        Some(Verdict { job, previous_worker_id, attempts, delay, run_at, error, counts: true })
    }

    /// Locks the entries of the dead workers, takes their jobs and deletes the entries, in the open transaction.
    fn carry_out(
        &mut self,
        stale: &[StaleWorker],
        verdicts: Vec<Verdict>,
    ) -> Result<(SweepStaleWorkersResult, Vec<Recovered>)> {
        let schema: Param = Box::new(self.schema.name().to_owned());
        let alone = self.query("sweep_lock", include_str!("../sql/recovery/sweep_lock.sql"), "", vec![schema])?;
        if !alone.first().is_some_and(|row| row.get("alone")) {
            return Ok(Default::default());
        }
        let dead = self.lock_stale_workers(stale)?;
        let verdicts: Vec<_> =
            verdicts.into_iter().filter(|verdict| dead.contains(&verdict.previous_worker_id)).collect();
        let params: Vec<Param> = vec![
            Box::new(dead.clone()),
            column(&verdicts, |verdict| verdict.job.id),
            column(&verdicts, |verdict| verdict.job.attempts),
            column(&verdicts, |verdict| verdict.attempts),
            column(&verdicts, |verdict| verdict.delay),
            column(&verdicts, |verdict| verdict.run_at),
            column(&verdicts, |verdict| verdict.error.clone()),
            column(&verdicts, |verdict| verdict.counts),
        ];
        let taken = self.query("recover", include_str!("../sql/recovery/recover.sql"), "", params)?;
        let taken: HashSet<i64> = taken.iter().map(|row| row.get("id")).collect();
        for list in self.lists() {
            self.query(
                list.delete_dead_workers,
                include_str!("../sql/recovery/delete_dead_workers.sql"),
                list.table,
                vec![Box::new(dead.clone())],
            )?;
        }
        let recovered: Vec<_> = verdicts
            .into_iter()
            .filter(|verdict| verdict.counts && taken.contains(&verdict.job.id))
            .map(|verdict| Recovered { job: verdict.job, previous_worker_id: verdict.previous_worker_id })
            .collect();
        for Recovered { job, previous_worker_id } in &recovered {
            warn!(worker_id = self.worker_id, job_id = job.id, task = &*job.task_identifier, attempt = job.attempts,
                previous_worker_id = previous_worker_id.as_str(); "recovered a job of a dead worker");
        }
        if !dead.is_empty() {
            info!(worker_id = self.worker_id, workers = dead.len(), jobs = taken.len(); "swept dead workers");
        }
        let recovered_count = taken.len() as i32;
        Ok((SweepStaleWorkersResult { worker_ids: dead, recovered_count, ..Default::default() }, recovered))
    }

    /// Returns the workers that are silent in every table that has them. Locks their entries, so that they cannot send
    /// a heartbeat meanwhile.
    fn lock_stale_workers(&mut self, stale: &[StaleWorker]) -> Result<Vec<String>> {
        let mut silences: HashMap<String, usize> = HashMap::new();
        for list in self.lists() {
            let params: Vec<Param> =
                vec![column(stale, |worker| worker.worker_id.clone()), column(stale, |worker| worker.threshold)];
            for row in self.query(
                list.lock_stale_workers,
                include_str!("../sql/recovery/lock_stale_workers.sql"),
                list.table,
                params,
            )? {
                *silences.entry(row.try_get("id")?).or_default() += 1;
            }
        }
        let dead = stale.iter().filter(|worker| silences.get(&worker.worker_id) == Some(&worker.lists));
        Ok(dead.map(|worker| worker.worker_id.clone()).collect())
    }

    fn held_by(&mut self, silent: &[Beat]) -> Result<Vec<Held>> {
        let workers = silent.iter().map(|beat| beat.worker.worker_id.clone()).collect();
        let rows = self.read("held_by", include_str!("../sql/recovery/held_by.sql"), "", Some(workers))?;
        rows.iter()
            .map(|row| {
                let task = row.try_get::<_, Text>("identifier")?.0;
                Ok(Held {
                    job: Arc::new(Job::from_row(row, task.into())?),
                    by: row.try_get::<_, Text>("locked_by")?.0,
                    recoveries: row.try_get("recoveries")?,
                    alone: row.try_get("alone")?,
                    waits: row.try_get("waits")?,
                })
            })
            .collect()
    }

    /// Returns which of these jobs were superseded. If no table records that, the statement that takes the jobs decides
    /// by their marks.
    fn retired(&mut self, held: &[Held]) -> Result<HashSet<i64>> {
        if !self.facts.has_job_retirements {
            return Ok(HashSet::new());
        }
        let ids = column(held, |held| held.job.id);
        let rows = self.query("superseded_jobs", include_str!("../sql/recovery/superseded_jobs.sql"), "", vec![ids])?;
        rows.iter().map(|row| Ok(row.try_get("id")?)).collect()
    }

    fn lists(&self) -> Vec<&'static List> {
        let there = [self.facts.has_heartbeats, self.facts.has_private_workers];
        LISTS.iter().zip(there).filter_map(|(list, there)| there.then_some(list)).collect()
    }

    fn query(&mut self, name: &'static str, sql: &str, list: &str, params: Vec<Param>) -> Result<Vec<Row>> {
        let query = Query::new(name, &sql.replace(":WORKERS", list), self.schema);
        self.session.query(&query, params)
    }

    /// As [`query`](Self::query), for rows that others wrote: text that cannot be converted to UTF-8 is replaced.
    fn read(&mut self, name: &'static str, sql: &str, list: &str, workers: Option<Vec<String>>) -> Result<Vec<Row>> {
        let query = Query::new(name, &sql.replace(":WORKERS", list), self.schema);
        let params = || workers.iter().map(|workers| Box::new(workers.clone()) as Param).collect();
        match self.session.query(&query, params()) {
            Err(error) if is_untranslatable(&error) && workers.iter().flatten().all(|id| id.is_ascii()) => {
                self.session.query_unconverted(&query, params())
            }
            answer => answer,
        }
    }
}

/// The metadata of a worker's entry: its process, how often it sends a heartbeat, and its tasks.
pub(crate) fn metadata(interval: Duration, tasks: &[String]) -> serde_json::Value {
    serde_json::json!({ "pid": std::process::id(), INTERVAL_FIELD: interval.as_millis() as u64, "tasks": tasks })
}

fn published_interval(metadata: &serde_json::Value) -> Option<Duration> {
    let millis = metadata.get(INTERVAL_FIELD)?.as_f64()?;
    (millis > 0.0 && millis <= LONGEST_PUBLISHED_MS).then(|| Duration::from_secs_f64(millis / 1000.0))
}

fn millis<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(duration.as_millis() as u64)
}

fn optional_millis<S: Serializer>(duration: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.as_millis() as u64).serialize(to)
}

/// Refuses recovery without this library's own tables: live workers would be unknown.
///
/// # Errors
/// `Schema`, naming what is missing: the tables, or a right on them.
pub(crate) fn check(facts: &Facts) -> Result<()> {
    match &facts.no_recovery {
        Some(why) => Err(Error::new(ErrorKind::Schema, format!("recovery: {why}"))),
        None => Ok(()),
    }
}

/// One field of each element, as an array parameter.
fn column<T, V>(of: &[T], field: impl Fn(&T) -> V) -> Param
where
    Vec<V>: tokio_postgres::types::ToSql + Sync + Send + 'static,
{
    Box::new(of.iter().map(field).collect::<Vec<V>>())
}
