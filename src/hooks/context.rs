//! The arguments of the hooks: plain values, owned by the hook. The names are those of the async crate.

use crate::client::WorkerUtils;
use crate::db::schema::Schema;
use crate::extensions::ReadOnlyExtensions;
use crate::job::Job;
use crate::job::spec::JobSpec;
use chrono::{DateTime, Utc};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Why an attempt ended without success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureReason {
    /// The handler returned an error.
    TaskError,
    /// The handler panicked.
    TaskPanic,
    /// A stop of the worker interrupted the job.
    ShutdownAborted,
    /// The worker died.
    WorkerCrashed,
}

/// Why a worker stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShutdownReason {
    /// The operating system sent a signal.
    Signal,
    /// `run` returns an error.
    Error,
    /// The caller requested it, or there was no job left to run.
    Graceful,
}

/// The argument of [`WorkerInit`](crate::WorkerInit) hooks.
#[derive(Clone)]
pub struct WorkerInitContext {
    /// The worker's utilities, which also lend its connections. The async crate has `database` instead.
    pub utils: WorkerUtils,
    /// The schema of the queue.
    pub schema: Schema,
    /// How many jobs run at once.
    pub concurrency: usize,
}

/// The argument of [`WorkerStart`](crate::WorkerStart) hooks.
#[derive(Clone)]
pub struct WorkerStartContext {
    /// The worker's utilities, which also lend its connections. The async crate has `database` instead.
    pub utils: WorkerUtils,
    /// The id with which the worker locks jobs.
    pub worker_id: String,
    /// The values that handlers share.
    pub extensions: ReadOnlyExtensions,
}

/// The argument of [`WorkerShutdown`](crate::WorkerShutdown) hooks.
#[derive(Clone)]
pub struct WorkerShutdownContext {
    /// The worker's utilities, which also lend its connections. The async crate has `database` instead.
    pub utils: WorkerUtils,
    /// The id with which the worker locked jobs.
    pub worker_id: String,
    /// Why it stopped.
    pub reason: ShutdownReason,
}

/// The argument of [`WorkerRecovered`](crate::WorkerRecovered) hooks.
#[derive(Debug, Clone)]
pub struct WorkerRecoveredContext {
    /// The id of the worker that recovered the jobs.
    pub worker_id: String,
    /// The ids of the dead workers that held the jobs.
    pub dead_worker_ids: Vec<String>,
    /// How many jobs were recovered.
    pub jobs_recovered: usize,
}

/// The argument of [`JobFetch`](crate::JobFetch) hooks.
#[derive(Debug, Clone)]
pub struct JobFetchContext {
    /// The job, as it was claimed.
    pub job: Arc<Job>,
    /// The id of the worker that claimed the job.
    pub worker_id: String,
}

/// The argument of [`JobStart`](crate::JobStart) hooks.
#[derive(Debug, Clone)]
pub struct JobStartContext {
    /// The job.
    pub job: Arc<Job>,
    /// The id of the worker that runs the job.
    pub worker_id: String,
}

/// The argument of [`JobComplete`](crate::JobComplete) hooks.
#[derive(Debug, Clone)]
pub struct JobCompleteContext {
    /// The job. Its row is deleted.
    pub job: Arc<Job>,
    /// The id of the worker that ran the job.
    pub worker_id: String,
    /// How long the handler took.
    pub duration: Duration,
}

/// The argument of [`JobFail`](crate::JobFail) hooks.
#[derive(Debug, Clone)]
pub struct JobFailContext {
    /// The job.
    pub job: Arc<Job>,
    /// The id of the worker that ran the job.
    pub worker_id: String,
    /// The text that was stored as `last_error`.
    pub error: String,
    /// Whether the job is retried. Always true, because a permanent failure is sent as
    /// [`JobPermanentlyFail`](crate::JobPermanentlyFail).
    pub will_retry: bool,
}

/// The argument of [`JobPermanentlyFail`](crate::JobPermanentlyFail) hooks.
#[derive(Debug, Clone)]
pub struct JobPermanentlyFailContext {
    /// The job.
    pub job: Arc<Job>,
    /// The id of the worker that ran the job.
    pub worker_id: String,
    /// The text that was stored as `last_error`.
    pub error: String,
}

/// The argument of [`JobInterrupted`](crate::JobInterrupted) hooks.
#[derive(Debug, Clone)]
pub struct JobInterruptedContext {
    /// The job.
    pub job: Arc<Job>,
    /// The id of the worker that gave the job back.
    pub worker_id: String,
    /// Why the job was given back.
    pub reason: FailureReason,
}

/// The argument of [`JobLost`](crate::JobLost) hooks.
#[derive(Debug, Clone)]
pub struct JobLostContext {
    /// The job, as it was claimed.
    pub job: Arc<Job>,
    /// The id of the worker that lost the job.
    pub worker_id: String,
}

/// The argument of [`JobTimeout`](crate::JobTimeout) hooks.
#[derive(Debug, Clone)]
pub struct JobTimeoutContext {
    /// The job.
    pub job: Arc<Job>,
    /// The id of the worker that runs the job.
    pub worker_id: String,
    /// The name of the thread on which the handler runs.
    pub thread: String,
    /// The timeout of the task.
    pub timeout: Duration,
    /// False when the handler exceeds the timeout. True if it still runs after a further grace period.
    pub stuck: bool,
}

/// The argument of [`JobRecovery`](crate::JobRecovery) hooks.
#[derive(Debug, Clone)]
pub struct JobRecoveryContext {
    /// The job.
    pub job: Arc<Job>,
    /// The id of the worker that recovers the job.
    pub worker_id: String,
    /// The id of the dead worker that held the job.
    pub previous_worker_id: String,
    /// Why the job is recovered.
    pub reason: FailureReason,
}

/// The argument of [`BeforeJobRun`](crate::BeforeJobRun) hooks.
#[derive(Debug, Clone)]
pub struct BeforeJobRunContext {
    /// The job.
    pub job: Arc<Job>,
    /// The id of the worker that is about to run the job.
    pub worker_id: String,
    /// The payload of the job.
    pub payload: Value,
}

/// The argument of [`AfterJobRun`](crate::AfterJobRun) hooks.
#[derive(Debug, Clone)]
pub struct AfterJobRunContext {
    /// The job.
    pub job: Arc<Job>,
    /// The id of the worker that ran the job.
    pub worker_id: String,
    /// The result of the handler. The error is the text that would be stored as `last_error`.
    pub result: Result<(), String>,
    /// How long the handler took.
    pub duration: Duration,
}

/// The argument of [`BeforeJobSchedule`](crate::BeforeJobSchedule) hooks.
#[derive(Debug, Clone)]
pub struct BeforeJobScheduleContext {
    /// The name of the task.
    pub identifier: String,
    /// The payload, with the changes of the hooks before this one.
    pub payload: Value,
    /// The options of the job.
    pub spec: JobSpec,
}

/// The names of a crontab entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CronItem {
    /// The identifier of the entry: its `id`, or its task if it has none.
    pub identifier: String,
    /// The name of the task of its jobs.
    pub task_identifier: String,
}

/// The argument of [`CronTick`](crate::CronTick) hooks.
#[derive(Debug, Clone)]
pub struct CronTickContext {
    /// The minute that the scheduler has reached.
    pub timestamp: DateTime<Utc>,
    /// The crontab entries of this worker.
    pub crontabs: Vec<CronItem>,
}

/// The argument of [`CronJobScheduled`](crate::CronJobScheduled) hooks.
#[derive(Debug, Clone)]
pub struct CronJobScheduledContext {
    /// The crontab entry.
    pub crontab: CronItem,
    /// The tick whose job was added.
    pub scheduled_at: DateTime<Utc>,
}

/// The mode of a local queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalQueueMode {
    /// The queue is not set up yet.
    Starting,
    /// The queue is empty and fetches jobs.
    Polling,
    /// The queue has jobs, which wait for a thread.
    Waiting,
    /// The queue gave its jobs back, because no thread took them before the ttl.
    TtlExpired,
    /// The worker stops, and the queue has given its jobs back.
    Released,
}

/// The argument of [`LocalQueueInit`](crate::LocalQueueInit) hooks.
#[derive(Debug, Clone)]
pub struct LocalQueueInitContext {
    /// The id of the worker that has the queue.
    pub worker_id: String,
}

/// The argument of [`LocalQueueSetMode`](crate::LocalQueueSetMode) hooks.
#[derive(Debug, Clone)]
pub struct LocalQueueSetModeContext {
    /// The id of the worker that has the queue.
    pub worker_id: String,
    /// The previous mode.
    pub old_mode: LocalQueueMode,
    /// The new mode.
    pub new_mode: LocalQueueMode,
}

/// The argument of [`LocalQueueGetJobsComplete`](crate::LocalQueueGetJobsComplete) hooks.
#[derive(Debug, Clone)]
pub struct LocalQueueGetJobsCompleteContext {
    /// The id of the worker that has the queue.
    pub worker_id: String,
    /// How many jobs the fetch returned.
    pub jobs_count: usize,
}

/// The argument of [`LocalQueueReturnJobs`](crate::LocalQueueReturnJobs) hooks.
#[derive(Debug, Clone)]
pub struct LocalQueueReturnJobsContext {
    /// The id of the worker that has the queue.
    pub worker_id: String,
    /// How many jobs were given back.
    pub jobs_count: usize,
}

/// The argument of [`LocalQueueRefetchDelayStart`](crate::LocalQueueRefetchDelayStart) hooks.
#[derive(Debug, Clone)]
pub struct LocalQueueRefetchDelayStartContext {
    /// The id of the worker that has the queue.
    pub worker_id: String,
    /// How long the pause is.
    pub duration: Duration,
    /// The pause starts because the fetch returned at most this number of jobs.
    pub threshold: usize,
    /// The pause ends early after this number of notifications. `usize::MAX` if notifications do not end it.
    pub abort_threshold: usize,
}

/// The argument of [`LocalQueueRefetchDelayAbort`](crate::LocalQueueRefetchDelayAbort) hooks.
#[derive(Debug, Clone)]
pub struct LocalQueueRefetchDelayAbortContext {
    /// The id of the worker that has the queue.
    pub worker_id: String,
    /// How many notifications arrived during the pause.
    pub count: usize,
    /// The number of notifications that ends the pause early.
    pub abort_threshold: usize,
}

/// The argument of [`LocalQueueRefetchDelayExpired`](crate::LocalQueueRefetchDelayExpired) hooks.
#[derive(Debug, Clone)]
pub struct LocalQueueRefetchDelayExpiredContext {
    /// The id of the worker that has the queue.
    pub worker_id: String,
}
