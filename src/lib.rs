//! Graphile Worker's job queue as one synchronous engine: OS threads, blocking calls, no async.
//!
//! Jobs are rows of a PostgreSQL table. Whoever can write SQL can add one; a worker claims it, runs the
//! function registered for its task on one of its threads, and deletes the row, or writes down why it
//! failed and when it is tried again. The tables are those of Node's graphile-worker.
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
//! The library logs with the `log` crate: without a logger, such as `env_logger`, a failing job prints nothing.
//!
//! # What do you want to do?
//!
//! - **Run jobs.** Describe a task with [`TaskHandler`]; set [`WorkerOptions`]; `init` makes a [`Worker`],
//!   and [`Worker::run`] runs it. What a handler may return is [`IntoTaskHandlerResult`].
//! - **Run lists of items.** A [`BatchTaskHandler`] answers [`IntoBatchTaskHandlerResult`], mostly one result
//!   for each item, or a [`BatchTaskResult`]; only items that failed are tried again.
//! - **Say how jobs are retried, and how long they may run.** A [`JobDefinition`] has a [`RetryPolicy`] and a
//!   timeout.
//! - **Know more inside a handler.** [`WorkerContext`] has the [`Job`], a [`Connection`] of the pool, and
//!   tells when to end early.
//! - **Add or remove jobs.** [`WorkerUtils`] with a [`JobSpec`] and, for keys, a [`JobKeyMode`]; many at
//!   once as [`RawJob`]s; inside your own transaction through an [`Executor`].
//! - **Add jobs by the clock.** A [`Cron`] entry, typed or as crontab text, with [`WorkerOptions::with_cron`];
//!   what was missed is made up for by [`CrontabFill`].
//! - **Use your own pool.** Any r2d2 pool of `postgres` clients is a [`ConnectionPool`].
//! - **Stop.** By signal, by [`Worker::request_shutdown`], or by a [`ShutdownSignal`] of your own.
//! - **Be told, or decide.** [`WorkerOptions::on`] takes a function for an [`Event`]: observers such as
//!   [`JobComplete`], interceptors such as [`BeforeJobRun`], which answers a [`HookResult`], or
//!   [`BeforeJobSchedule`]. A [`Plugin`] registers several in a [`HookRegistry`].
//! - **Manage jobs.** [`WorkerUtils::list_jobs`] takes [`ListJobsOptions`] with a [`JobState`] and answers
//!   [`ListedJob`]s; [`WorkerUtils::stats`] answers [`JobStats`], [`WorkerUtils::queues`] [`QueueRow`]s,
//!   [`WorkerUtils::locked_workers`] [`LockedWorkerRow`]s. [`WorkerUtils::complete_jobs`],
//!   [`WorkerUtils::permanently_fail_jobs`] and [`WorkerUtils::reschedule_jobs`] with [`RescheduleJobOptions`]
//!   change jobs by hand; [`WorkerUtils::force_unlock_workers`] answers a [`ForceUnlockResult`];
//!   [`WorkerUtils::cleanup`] takes [`CleanupTask`]s and answers a [`CleanupResult`].
//! - **Recover.** [`WorkerOptions::worker_recovery`] takes a [`WorkerRecoveryConfig`];
//!   [`WorkerUtils::sweep_stale_workers`] takes [`SweepStaleWorkersOptions`] and answers a
//!   [`SweepStaleWorkersResult`]; [`WorkerUtils::list_active_workers`] answers [`ActiveWorkerRow`]s.
//! - **See what goes on.** [`Worker::stats`] answers [`WorkerStats`] with a [`Histogram`] of handler times; the `log` crate has an event for each
//!   step of a job's life, with the same field names everywhere and never a payload.
//! - **Handle errors.** [`Error`] says what to do next; branch on its [`ErrorKind`]. [`Result`] has it built in.
//! - **Check a name early.** [`TaskName`] and [`Schema`] refuse what PostgreSQL would.
//! - **Try things out.** [`devdb`] starts a private PostgreSQL that leaves nothing behind.
//!
//! Every call blocks. On a thread of a tokio runtime calls answer [`ErrorKind::Misuse`]: use
//! `spawn_blocking`.
#![warn(missing_docs)]
// The engine is one, with or without its C door; some of it only that door uses.
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
pub use tasks::{IntoTaskHandlerResult, JobDefinition, ReadOnlyExtensions, TaskHandler, WorkerContext};
pub use worker::Worker;
pub use worker::options::{CronSource, WorkerOptions};
