//! What each event tells: plain values, owned by the hook. The names are the async crate's.

use crate::client::WorkerUtils;
use crate::db::schema::Schema;
use crate::job::Job;
use crate::job::spec::JobSpec;
use crate::tasks::ReadOnlyExtensions;
use chrono::{DateTime, Utc};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Why an attempt came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureReason {
    /// The handler answered an error.
    TaskError,
    /// The handler panicked.
    TaskPanic,
    /// A stop did not wait for it any longer.
    ShutdownAborted,
    /// Its worker died.
    WorkerCrashed,
}

/// Why a worker stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShutdownReason {
    /// A signal of the operating system.
    Signal,
    /// `run` answers an error.
    Error,
    /// Somebody asked for it, or there was nothing left to run.
    Graceful,
}

/// What [`WorkerInit`](crate::WorkerInit) tells.
#[derive(Clone)]
pub struct WorkerInitContext {
    /// The utilities of the worker, and through them its connections. (The async crate's `database`.)
    pub utils: WorkerUtils,
    /// The schema of the queue.
    pub schema: Schema,
    /// How many jobs will run at once.
    pub concurrency: usize,
}

/// What [`WorkerStart`](crate::WorkerStart) tells.
#[derive(Clone)]
pub struct WorkerStartContext {
    /// The utilities of the worker, and through them its connections. (The async crate's `database`.)
    pub utils: WorkerUtils,
    /// The id under which the worker locks jobs.
    pub worker_id: String,
    /// What handlers share.
    pub extensions: ReadOnlyExtensions,
}

/// What [`WorkerShutdown`](crate::WorkerShutdown) tells.
#[derive(Clone)]
pub struct WorkerShutdownContext {
    /// The utilities of the worker, and through them its connections. (The async crate's `database`.)
    pub utils: WorkerUtils,
    /// The id under which the worker locked jobs.
    pub worker_id: String,
    /// Why it stopped.
    pub reason: ShutdownReason,
}

/// What [`WorkerRecovered`](crate::WorkerRecovered) tells.
#[derive(Debug, Clone)]
pub struct WorkerRecoveredContext {
    /// Who recovered them.
    pub worker_id: String,
    /// Whose jobs they were.
    pub dead_worker_ids: Vec<String>,
    /// How many jobs were recovered.
    pub jobs_recovered: usize,
}

/// What [`JobFetch`](crate::JobFetch) tells.
#[derive(Debug, Clone)]
pub struct JobFetchContext {
    /// The job, as it was claimed.
    pub job: Arc<Job>,
    /// Who claimed it.
    pub worker_id: String,
}

/// What [`JobStart`](crate::JobStart) tells.
#[derive(Debug, Clone)]
pub struct JobStartContext {
    /// The job.
    pub job: Arc<Job>,
    /// Who runs it.
    pub worker_id: String,
}

/// What [`JobComplete`](crate::JobComplete) tells.
#[derive(Debug, Clone)]
pub struct JobCompleteContext {
    /// The job. Its row is gone.
    pub job: Arc<Job>,
    /// Who ran it.
    pub worker_id: String,
    /// How long it ran.
    pub duration: Duration,
}

/// What [`JobFail`](crate::JobFail) tells.
#[derive(Debug, Clone)]
pub struct JobFailContext {
    /// The job.
    pub job: Arc<Job>,
    /// Who ran it.
    pub worker_id: String,
    /// What was stored as `last_error`.
    pub error: String,
    /// Whether it is tried again: always true, since the last failure is
    /// [`JobPermanentlyFail`](crate::JobPermanentlyFail).
    pub will_retry: bool,
}

/// What [`JobPermanentlyFail`](crate::JobPermanentlyFail) tells.
#[derive(Debug, Clone)]
pub struct JobPermanentlyFailContext {
    /// The job.
    pub job: Arc<Job>,
    /// Who ran it.
    pub worker_id: String,
    /// What was stored as `last_error`.
    pub error: String,
}

/// What [`JobInterrupted`](crate::JobInterrupted) tells.
#[derive(Debug, Clone)]
pub struct JobInterruptedContext {
    /// The job.
    pub job: Arc<Job>,
    /// Who gave it back.
    pub worker_id: String,
    /// Why.
    pub reason: FailureReason,
}

/// What [`JobLost`](crate::JobLost) tells.
#[derive(Debug, Clone)]
pub struct JobLostContext {
    /// The job, as it was claimed.
    pub job: Arc<Job>,
    /// Who lost it.
    pub worker_id: String,
}

/// What [`JobTimeout`](crate::JobTimeout) tells.
#[derive(Debug, Clone)]
pub struct JobTimeoutContext {
    /// The job.
    pub job: Arc<Job>,
    /// Who runs it.
    pub worker_id: String,
    /// The name of the thread on which the handler runs.
    pub thread: String,
    /// How long the task may run.
    pub timeout: Duration,
    /// Whether the handler has ignored the timeout for the whole grace period.
    pub stuck: bool,
}

/// What [`JobRecovery`](crate::JobRecovery) tells.
#[derive(Debug, Clone)]
pub struct JobRecoveryContext {
    /// The job.
    pub job: Arc<Job>,
    /// Who recovers it.
    pub worker_id: String,
    /// Who held it.
    pub previous_worker_id: String,
    /// Why it has to be recovered.
    pub reason: FailureReason,
}

/// What [`BeforeJobRun`](crate::BeforeJobRun) tells.
#[derive(Debug, Clone)]
pub struct BeforeJobRunContext {
    /// The job.
    pub job: Arc<Job>,
    /// Who is about to run it.
    pub worker_id: String,
    /// Its payload.
    pub payload: Value,
}

/// What [`AfterJobRun`](crate::AfterJobRun) tells.
#[derive(Debug, Clone)]
pub struct AfterJobRunContext {
    /// The job.
    pub job: Arc<Job>,
    /// Who ran it.
    pub worker_id: String,
    /// What the handler answered: the error as it would be stored.
    pub result: Result<(), String>,
    /// How long the handler took.
    pub duration: Duration,
}

/// What [`BeforeJobSchedule`](crate::BeforeJobSchedule) tells.
#[derive(Debug, Clone)]
pub struct BeforeJobScheduleContext {
    /// The task.
    pub identifier: String,
    /// The payload, as the interceptor before left it.
    pub payload: Value,
    /// The options.
    pub spec: JobSpec,
}

/// A crontab entry, as events name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CronItem {
    /// What the entry is known by: its `id`, or else its task.
    pub identifier: String,
    /// The task of its jobs.
    pub task_identifier: String,
}

/// What [`CronTick`](crate::CronTick) tells.
#[derive(Debug, Clone)]
pub struct CronTickContext {
    /// The minute that was reached.
    pub timestamp: DateTime<Utc>,
    /// The entries of this worker.
    pub crontabs: Vec<CronItem>,
}

/// What [`CronJobScheduled`](crate::CronJobScheduled) tells.
#[derive(Debug, Clone)]
pub struct CronJobScheduledContext {
    /// The entry.
    pub crontab: CronItem,
    /// The minute that the job stands for.
    pub scheduled_at: DateTime<Utc>,
}

/// What the local queue is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalQueueMode {
    /// Not yet set up.
    Starting,
    /// Its cache is empty, and it looks for jobs.
    Polling,
    /// It has jobs, and waits for a thread to take them.
    Waiting,
    /// Nobody took its jobs in time, and they went back.
    TtlExpired,
    /// The worker stops.
    Released,
}

/// What [`LocalQueueInit`](crate::LocalQueueInit) tells.
#[derive(Debug, Clone)]
pub struct LocalQueueInitContext {
    /// Whose queue it is.
    pub worker_id: String,
}

/// What [`LocalQueueSetMode`](crate::LocalQueueSetMode) tells.
#[derive(Debug, Clone)]
pub struct LocalQueueSetModeContext {
    /// Whose queue it is.
    pub worker_id: String,
    /// The mode that ends.
    pub old_mode: LocalQueueMode,
    /// The mode that begins.
    pub new_mode: LocalQueueMode,
}

/// What [`LocalQueueGetJobsComplete`](crate::LocalQueueGetJobsComplete) tells.
#[derive(Debug, Clone)]
pub struct LocalQueueGetJobsCompleteContext {
    /// Whose queue it is.
    pub worker_id: String,
    /// How many jobs came.
    pub jobs_count: usize,
}

/// What [`LocalQueueReturnJobs`](crate::LocalQueueReturnJobs) tells.
#[derive(Debug, Clone)]
pub struct LocalQueueReturnJobsContext {
    /// Whose queue it is.
    pub worker_id: String,
    /// How many jobs went back.
    pub jobs_count: usize,
}

/// What [`LocalQueueRefetchDelayStart`](crate::LocalQueueRefetchDelayStart) tells.
#[derive(Debug, Clone)]
pub struct LocalQueueRefetchDelayStartContext {
    /// Whose queue it is.
    pub worker_id: String,
    /// How long it waits.
    pub duration: Duration,
    /// It waits because it fetched no more than so many.
    pub threshold: usize,
    /// After so many announced jobs it waits no longer.
    pub abort_threshold: usize,
}

/// What [`LocalQueueRefetchDelayAbort`](crate::LocalQueueRefetchDelayAbort) tells.
#[derive(Debug, Clone)]
pub struct LocalQueueRefetchDelayAbortContext {
    /// Whose queue it is.
    pub worker_id: String,
    /// How many jobs were announced meanwhile.
    pub count: usize,
    /// After so many it waits no longer.
    pub abort_threshold: usize,
}

/// What [`LocalQueueRefetchDelayExpired`](crate::LocalQueueRefetchDelayExpired) tells.
#[derive(Debug, Clone)]
pub struct LocalQueueRefetchDelayExpiredContext {
    /// Whose queue it is.
    pub worker_id: String,
}
