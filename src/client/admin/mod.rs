//! What operators ask for and are told: jobs, queues and workers as they stand, and what may be done to them.
//! Words and their limits only; the statements stand in `manage.rs` and `cleanup.rs`.

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

/// Where a job stands. Told by the database's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Waits, and may start now (once its queue is free, if it has one).
    Ready,
    /// Waits for its `run_at`.
    Scheduled,
    /// Is held by a worker.
    Locked,
    /// Has no attempts left, and stays until somebody reschedules, removes or cleans it up.
    Failed,
}

impl JobState {
    /// All of them.
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

/// A job as it stands in the queue, with all that an operator may want to know. Serializes to the fields
/// named here, with the payload as the JSON that it is.
#[derive(Clone, PartialEq, Serialize)]
pub struct ListedJob {
    /// The row's id, unique in its schema.
    pub id: i64,
    /// The task that runs it; empty if the task's row is gone, so that nobody can.
    pub task_identifier: String,
    /// The named queue it belongs to, if any.
    pub queue_name: Option<String>,
    /// JSON text, byte for byte as PostgreSQL holds it.
    #[serde(serialize_with = "as_json")]
    pub payload: String,
    /// Lower runs first.
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
    /// When it was last changed from outside: added again, failed, rescheduled.
    pub updated_at: DateTime<Utc>,
    /// Its job key.
    pub key: Option<String>,
    /// Since when a worker holds it, or when that worker said last that it does.
    pub locked_at: Option<DateTime<Utc>>,
    /// The worker that holds it.
    pub locked_by: Option<String>,
    /// How often it was added again under its key.
    pub revision: i32,
    /// Marks by which workers leave it to others, in no particular order.
    pub flags: Vec<String>,
    /// Where it stands.
    pub state: JobState,
}

impl ListedJob {
    /// Reads a row of `list_jobs.sql` and its like. What is not valid UTF-8 in it is replaced.
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
    /// Everything but the payload, which may hold secrets.
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

/// Which jobs to list. What is `None` chooses nothing.
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
    /// At most so many, not negative. Defaults to 50.
    pub limit: i64,
    /// After so many, not negative. Defaults to 0.
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
    /// Those that may start now.
    pub ready: i64,
    /// Those that wait for their `run_at`.
    pub scheduled: i64,
    /// Those that workers hold.
    pub locked: i64,
    /// Those that have failed for good.
    pub failed: i64,
}

/// A named queue as it stands.
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
    /// How many jobs belong to it, in whatever state.
    pub job_count: i64,
    /// How many of those are ready.
    pub ready_count: i64,
}

/// A worker that holds something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LockedWorkerRow {
    /// The id under which it locks.
    pub worker_id: String,
    /// How many jobs it holds.
    pub locked_jobs: i64,
    /// How many named queues it holds.
    pub locked_queues: i64,
}

/// What to change of jobs; what is `None` stays as it is, and 0 is a value.
/// Source: Graphile Worker's `reschedule_jobs`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RescheduleJobOptions {
    /// When they start at the earliest.
    pub run_at: Option<DateTime<Utc>>,
    /// Instead of `run_at`: now, by the database's clock. Defaults to `false`.
    pub now: bool,
    /// -32768..=32767, lower first.
    pub priority: Option<i32>,
    /// How often they count as tried, 0..=32767. Fewer than their `max_attempts` bring failed jobs back.
    pub attempts: Option<i32>,
    /// 1..=32767.
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

/// One kind of rows that nobody needs any more. Source: Graphile Worker's cleanup tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CleanupTask {
    /// Jobs that have failed for good.
    DeletePermanentlyFailedJobs,
    /// Tasks that no job is of.
    ///
    /// A running worker goes by the ids of its tasks. Ours look them up once a minute, so that a task that
    /// comes back reaches them no later than that; Node's and the async crate's do at their start. Beside
    /// those, keep the names that they know, or stop them.
    GcTaskIdentifiers,
    /// Named queues that no job belongs to and nobody holds.
    GcJobQueues,
}

impl CleanupTask {
    /// All of them, in the order in which each leaves more for the next.
    pub const ALL: [CleanupTask; 3] = [Self::DeletePermanentlyFailedJobs, Self::GcTaskIdentifiers, Self::GcJobQueues];
}

/// How many rows a cleanup deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CleanupResult {
    /// Jobs that had failed for good.
    pub jobs: i64,
    /// Tasks.
    pub tasks: i64,
    /// Named queues.
    pub queues: i64,
}
