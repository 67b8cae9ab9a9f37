//! Graphile Worker's job queue as one synchronous engine: OS threads, blocking calls, no async.
//!
//! Jobs are rows of a PostgreSQL table. Any SQL client can add one. A worker claims the job and runs the function
//! registered for its task on one of its threads. If the function succeeds, the worker deletes the row. If it fails,
//! the worker writes the error and the time of the next attempt. The tables are those of Node's graphile-worker.
//!
//! ```no_run
//! use graphile_worker::{IntoTaskHandlerResult, JobSpec, TaskHandler, WorkerContext, WorkerOptions};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct SendEmail {
//!     to: String,
//! }
//!
//! impl TaskHandler for SendEmail {
//!     const IDENTIFIER: &'static str = "send_email";
//!
//!     fn run(self, ctx: WorkerContext) -> impl IntoTaskHandlerResult {
//!         println!("job {}: to {}", ctx.job().id(), self.to);
//!     }
//! }
//!
//! # fn main() -> graphile_worker::Result<()> {
//! let worker = WorkerOptions::default()
//!     .database_url("postgres://localhost/app")
//!     .concurrency(8)
//!     .define_job::<SendEmail>()
//!     .init()?;
//! worker.create_utils().add_job(SendEmail { to: "ada@example.org".into() }, JobSpec::new())?;
//! worker.run() // until SIGINT or SIGTERM
//! # }
//! ```
//!
//! The library logs with the `log` crate. Without a logger, such as `env_logger`, a failing job prints nothing.
//!
//! # What do you want to do?
//!
//! - **Run jobs.** Describe a task with [`TaskHandler`], and set [`WorkerOptions`]. `init` returns a [`Worker`], and
//!   [`Worker::run`] runs it. A handler may return any [`IntoTaskHandlerResult`].
//! - **Run lists of items.** A [`BatchTaskHandler`] returns an [`IntoBatchTaskHandlerResult`]: usually one result for
//!   each item, or a [`BatchTaskResult`]. Only items that failed are retried.
//! - **Set how jobs are retried, and how long they may run.** A [`JobDefinition`] has a [`RetryPolicy`] and a timeout.
//! - **Use more inside a handler.** [`WorkerContext`] gives access to the [`Job`] and to a [`Connection`] of the pool,
//!   and reports when the handler should end early.
//! - **Add or remove jobs.** Use [`WorkerUtils`] with a [`JobSpec`] and, for keys, a [`JobKeyMode`]. Add many jobs in
//!   one call as [`RawJob`]s, and add jobs inside your own transaction through an [`Executor`].
//! - **Add jobs on a schedule.** Give a [`Cron`] entry, typed or as crontab text, to [`WorkerOptions::with_cron`].
//!   [`CrontabFill`] adds the jobs of ticks that were missed.
//! - **Use your own pool.** Any r2d2 pool of `postgres` clients is a [`ConnectionPool`].
//! - **Stop.** Use a signal of the operating system, [`Worker::request_shutdown`], or your own [`ShutdownSignal`].
//! - **Observe events, or decide.** [`WorkerOptions::on`] takes a function for an [`Event`]. Observers are, for
//!   example, [`JobComplete`]. Interceptors are, for example, [`BeforeJobRun`], which returns a [`HookResult`], and
//!   [`BeforeJobSchedule`]. A [`Plugin`] registers several functions in a [`HookRegistry`].
//! - **Manage jobs.** [`WorkerUtils::list_jobs`] takes [`ListJobsOptions`] with a [`JobState`] and returns
//!   [`ListedJob`]s. [`WorkerUtils::stats`] returns [`JobStats`], [`WorkerUtils::queues`] returns [`QueueRow`]s, and
//!   [`WorkerUtils::locked_workers`] returns [`LockedWorkerRow`]s. [`WorkerUtils::complete_jobs`],
//!   [`WorkerUtils::permanently_fail_jobs`] and [`WorkerUtils::reschedule_jobs`] with [`RescheduleJobOptions`] change
//!   jobs by hand. [`WorkerUtils::force_unlock_workers`] returns a [`ForceUnlockResult`]. [`WorkerUtils::cleanup`]
//!   takes [`CleanupTask`]s and returns a [`CleanupResult`].
//! - **Recover the jobs of dead workers.** [`WorkerOptions::worker_recovery`] takes a [`WorkerRecoveryConfig`].
//!   [`WorkerUtils::sweep_stale_workers`] takes [`SweepStaleWorkersOptions`] and returns a [`SweepStaleWorkersResult`].
//!   [`WorkerUtils::list_active_workers`] returns [`ActiveWorkerRow`]s.
//! - **Monitor a worker.** [`Worker::stats`] returns [`WorkerStats`] with a [`Histogram`] of handler times. The library
//!   logs each step of a job's life through the `log` crate. Field names are the same everywhere, and payloads are
//!   never logged.
//! - **Handle errors.** The text of an [`Error`] describes what to do next. Branch on its [`ErrorKind`]. [`Result`] is
//!   the standard `Result` with this error.
//! - **Check a name early.** [`TaskName`] and [`Schema`] refuse names that PostgreSQL would refuse.
//! - **Try things out.** [`devdb`] starts a private PostgreSQL server and deletes all its files afterwards.
//!
//! Every call blocks. On a thread of a tokio runtime, calls return [`ErrorKind::Misuse`]: use `spawn_blocking` there.
#![warn(missing_docs)]
// The engine is the same with and without the C API. Only the C API uses some of its functions.
#![cfg_attr(not(feature = "capi"), allow(dead_code))]

mod backoff;
#[cfg(feature = "capi")]
mod capi;
mod client;
mod config;
mod cron;
mod db;
pub mod devdb;
mod engine;
mod error;
mod extensions;
mod hooks;
mod job;
mod lock;
mod shutdown;
mod tasks;
mod text;
mod worker;

pub use client::admin::{
    CleanupResult, CleanupTask, ForceUnlockResult, JobState, JobStats, ListJobsOptions, ListedJob, LockedWorkerRow,
    QueueRow, RescheduleJobOptions,
};
pub use client::sweep::{ActiveWorkerRow, RaisedThreshold, SweepStaleWorkersOptions, SweepStaleWorkersResult};
pub use client::{Executor, WorkerUtils};
pub use config::WorkerRecoveryConfig;
pub use config::local_queue::{LocalQueueConfig, RefetchDelayConfig};
pub use config::retry::RetryPolicy;
pub use cron::crontab::{Cron, CrontabFill};
pub use db::pool::{Connection, ConnectionPool};
pub use db::schema::Schema;
pub use engine::stats::{Histogram, ListenerState, WorkerStats};
pub use error::{Error, ErrorKind, Result};
pub use extensions::ReadOnlyExtensions;
pub use hooks::{
    AfterJobRun, AfterJobRunContext, BeforeJobRun, BeforeJobRunContext, BeforeJobSchedule, BeforeJobScheduleContext,
    CronItem, CronJobScheduled, CronJobScheduledContext, CronTick, CronTickContext, Event, FailureReason, HookRegistry,
    HookResult, JobComplete, JobCompleteContext, JobFail, JobFailContext, JobFetch, JobFetchContext, JobInterrupted,
    JobInterruptedContext, JobLost, JobLostContext, JobPermanentlyFail, JobPermanentlyFailContext, JobRecovery,
    JobRecoveryContext, JobRecoveryResult, JobScheduleResult, JobStart, JobStartContext, JobTimeout, JobTimeoutContext,
    LocalQueueGetJobsComplete, LocalQueueGetJobsCompleteContext, LocalQueueInit, LocalQueueInitContext, LocalQueueMode,
    LocalQueueRefetchDelayAbort, LocalQueueRefetchDelayAbortContext, LocalQueueRefetchDelayExpired,
    LocalQueueRefetchDelayExpiredContext, LocalQueueRefetchDelayStart, LocalQueueRefetchDelayStartContext,
    LocalQueueReturnJobs, LocalQueueReturnJobsContext, LocalQueueSetMode, LocalQueueSetModeContext, Plugin,
    ShutdownReason, WorkerInit, WorkerInitContext, WorkerRecovered, WorkerRecoveredContext, WorkerShutdown,
    WorkerShutdownContext, WorkerStart, WorkerStartContext,
};
pub use job::Job;
pub use job::spec::{JobKeyMode, JobSpec, RawJob, TaskName};
pub use shutdown::ShutdownSignal;
pub use tasks::batch::{BatchTaskHandler, BatchTaskResult, IntoBatchTaskHandlerResult};
pub use tasks::{IntoTaskHandlerResult, JobDefinition, TaskHandler, WorkerContext};
pub use worker::Worker;
pub use worker::options::{CronSource, WorkerOptions};
