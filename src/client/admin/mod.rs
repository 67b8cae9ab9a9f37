//! The types of an operator's calls: jobs, queues and workers in their current state, and the changes that can be made.
//! Types and limits only; the statements are in `statements.rs` and `cleanup.rs`.

mod api;
pub(crate) mod cleanup;
pub(crate) mod statements;

use crate::error::{Error, Result};
use crate::job::spec::{check_range, check_run_at};
use crate::job::{DbTime, flags_of};
use crate::text::Text;
use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer, ser::Error as _};
use serde_json::value::RawValue;
use std::fmt;
use std::str::FromStr;
use tokio_postgres::Row;

/// The state of a job, by the database's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Waits, and may start now (once its queue is free, if it has one).
    Ready,
    /// Waits for its `run_at`.
    Scheduled,
    /// Is held by a worker.
    Locked,
    /// Has no attempts left. Stays until it is rescheduled, removed or cleaned up.
    Failed,
}

impl JobState {
    /// All states.
    pub const ALL: [JobState; 4] = [Self::Ready, Self::Scheduled, Self::Locked, Self::Failed];

    /// `ready`, `scheduled`, `locked` or `failed`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Scheduled => "scheduled",
            Self::Locked => "locked",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for JobState {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|state| state.as_str() == text);
        found.ok_or_else(|| Error::config(format!("job state {text:?}: is none of ready, scheduled, locked, failed")))
    }
}

/// A job in its current state, with all that an operator may want to know. Serializes to the fields named here, and the
/// payload to the JSON that it is.
#[derive(Clone, PartialEq, Serialize)]
pub struct ListedJob {
    /// The row's id, unique in its schema.
    pub id: i64,
    /// The task that runs it; empty if the task's row is missing, so that no worker can run it.
    pub task_identifier: String,
    /// The named queue it belongs to, if any.
    pub queue_name: Option<String>,
    /// JSON text, byte for byte as PostgreSQL holds it.
    #[serde(serialize_with = "as_json")]
    pub payload: String,
    /// Jobs with a lower number run first.
    pub priority: i16,
    /// Not started before this time.
    pub run_at: DateTime<Utc>,
    /// How often it was started.
    pub attempts: i16,
    /// After how many failed attempts it stays failed.
    pub max_attempts: i16,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// When it was first added.
    pub created_at: DateTime<Utc>,
    /// When it was last added again, failed by hand or rescheduled. A worker's claim or failure does not change it.
    pub updated_at: DateTime<Utc>,
    /// Its job key.
    pub key: Option<String>,
    /// Since when a worker holds it, or when that worker last renewed its lock.
    pub locked_at: Option<DateTime<Utc>>,
    /// The worker that holds it.
    pub locked_by: Option<String>,
    /// How often it was added again under its key.
    pub revision: i32,
    /// The flags by which workers leave it to other workers, in no particular order.
    pub flags: Vec<String>,
    /// Its state.
    pub state: JobState,
}

impl ListedJob {
    /// Reads a row of `list_jobs.sql`, or of a statement with the same columns. Text that is not valid UTF-8 is
    /// replaced.
    pub(crate) fn from_row(row: &Row) -> Result<Self> {
        let text = |column| Ok::<_, Error>(row.try_get::<_, Option<Text>>(column)?.map(|text| text.0));
        Ok(Self {
            id: row.try_get("id")?,
            task_identifier: row.try_get::<_, Text>("task_identifier")?.0,
            queue_name: text("queue_name")?,
            payload: row.try_get::<_, Text>("payload")?.0,
            priority: row.try_get("priority")?,
            run_at: row.try_get::<_, DbTime>("run_at")?.0,
            attempts: row.try_get("attempts")?,
            max_attempts: row.try_get("max_attempts")?,
            last_error: text("last_error")?,
            created_at: row.try_get::<_, DbTime>("created_at")?.0,
            updated_at: row.try_get::<_, DbTime>("updated_at")?.0,
            key: text("key")?,
            locked_at: row.try_get::<_, Option<DbTime>>("locked_at")?.map(|time| time.0),
            locked_by: text("locked_by")?,
            revision: row.try_get("revision")?,
            flags: flags_of(text("flags")?.as_deref()),
            state: row.try_get::<_, &str>("state")?.parse()?,
        })
    }
}

impl fmt::Debug for ListedJob {
    /// All fields but the payload, which may contain secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListedJob")
            .field("id", &self.id)
            .field("task_identifier", &self.task_identifier)
            .field("queue_name", &self.queue_name)
            .field("state", &self.state)
            .field("attempts", &self.attempts)
            .field("max_attempts", &self.max_attempts)
            .field("run_at", &self.run_at)
            .field("key", &self.key)
            .field("locked_by", &self.locked_by)
            .field("last_error", &self.last_error)
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

fn as_json<S: Serializer>(payload: &str, serializer: S) -> Result<S::Ok, S::Error> {
    RawValue::from_string(payload.to_owned()).map_err(S::Error::custom)?.serialize(serializer)
}

/// Which jobs to list. A field that is `None` does not filter.
///
/// ```
/// use graphile_worker::{JobState, ListJobsOptions};
/// let failed = ListJobsOptions { state: Some(JobState::Failed), ..Default::default() };
/// assert_eq!((failed.limit, failed.offset), (50, 0));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListJobsOptions {
    /// Only jobs of this task.
    pub identifier: Option<String>,
    /// Only jobs of this named queue.
    pub queue: Option<String>,
    /// Only jobs in this state.
    pub state: Option<JobState>,
    /// The largest number of jobs to return, not negative. Defaults to 50.
    pub limit: i64,
    /// The number of jobs to pass over first, not negative. Defaults to 0.
    pub offset: i64,
}

impl Default for ListJobsOptions {
    fn default() -> Self {
        Self { identifier: None, queue: None, state: None, limit: 50, offset: 0 }
    }
}

impl ListJobsOptions {
    pub(crate) fn check(&self) -> Result<()> {
        for (field, value) in [("limit", self.limit), ("offset", self.offset)] {
            if value < 0 {
                return Err(Error::config(format!("{field}: {value} is negative")));
            }
        }
        Ok(())
    }
}

/// How many jobs there are in each [`JobState`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct JobStats {
    /// All jobs.
    pub total: i64,
    /// Jobs that may start now.
    pub ready: i64,
    /// Jobs that wait for their `run_at`.
    pub scheduled: i64,
    /// Jobs that workers hold.
    pub locked: i64,
    /// Jobs that have failed permanently.
    pub failed: i64,
}

/// A named queue in its current state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueueRow {
    /// The row's id.
    pub id: i32,
    /// Its name.
    pub queue_name: String,
    /// Since when a worker holds it.
    pub locked_at: Option<DateTime<Utc>>,
    /// The worker that holds it.
    pub locked_by: Option<String>,
    /// How many jobs belong to it, in any state.
    pub job_count: i64,
    /// How many of those are ready.
    pub ready_count: i64,
}

/// A worker that holds jobs or queues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LockedWorkerRow {
    /// The id under which it locks.
    pub worker_id: String,
    /// How many jobs it holds.
    pub locked_jobs: i64,
    /// How many named queues it holds.
    pub locked_queues: i64,
}

/// What to change of jobs. A field that is `None` stays as it is; 0 is a value. Corresponds to Graphile Worker's
/// `reschedule_jobs`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RescheduleJobOptions {
    /// When the jobs start at the earliest.
    pub run_at: Option<DateTime<Utc>>,
    /// Sets `run_at` to now, by the database's clock. Not together with `run_at`. Defaults to `false`.
    pub now: bool,
    /// -32768..=32767. Jobs with a lower number run first.
    pub priority: Option<i32>,
    /// How many attempts count as made, 0..=32767. With fewer than their `max_attempts`, failed jobs run again.
    pub attempts: Option<i32>,
    /// After how many failed attempts they stay failed, 1..=32767.
    pub max_attempts: Option<i32>,
}

impl RescheduleJobOptions {
    pub(crate) fn check(&self) -> Result<()> {
        if *self == Self::default() {
            return Err(Error::config("nothing to change: set run_at, now, priority, attempts or max_attempts"));
        }
        if self.now && self.run_at.is_some() {
            return Err(Error::config("run_at: cannot be given together with now"));
        }
        if let Some(at) = self.run_at {
            check_run_at(at)?;
        }
        check_range("priority", self.priority, -32768..=32767)?;
        check_range("attempts", self.attempts, 0..=32767)?;
        check_range("max_attempts", self.max_attempts, 1..=32767)
    }
}

/// What was unlocked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ForceUnlockResult {
    /// How many jobs.
    pub jobs: i64,
    /// How many named queues.
    pub queues: i64,
}

/// One kind of rows that are not needed. Corresponds to Graphile Worker's cleanup tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CleanupTask {
    /// Jobs that have failed permanently.
    DeletePermanentlyFailedJobs,
    /// Tasks without jobs.
    ///
    /// A running worker uses the ids of its tasks. Workers of this library look them up once a minute, so a task that
    /// is added again reaches them within that time. Node's workers and the async crate's look them up only at their
    /// start. Beside those, keep the names that they know, or stop them.
    GcTaskIdentifiers,
    /// Named queues without jobs that no worker holds.
    GcJobQueues,
}

impl CleanupTask {
    /// All of them, in the order in which each leaves more rows for the next.
    pub const ALL: [CleanupTask; 3] = [Self::DeletePermanentlyFailedJobs, Self::GcTaskIdentifiers, Self::GcJobQueues];
}

/// How many rows a cleanup deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CleanupResult {
    /// Jobs that had failed permanently.
    pub jobs: i64,
    /// Tasks.
    pub tasks: i64,
    /// Named queues.
    pub queues: i64,
}
