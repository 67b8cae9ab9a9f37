//! Tasks: the functions that run jobs, and the context that they get.

mod add;
pub(crate) mod batch;

use crate::client::WorkerUtils;
use crate::config::retry::{LONGEST_DELAY, RetryPolicy};
use crate::db::pool::Connection;
use crate::error::{Error, Result};
use crate::extensions::Extensions;
use crate::job::Job;
use crate::job::active::ActiveJob;
use crate::job::spec::{JobSpec, TaskName};
use crate::job::trace;
use batch::BatchTaskHandler;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A task: a payload type, the name of the task in the database, and the function that runs a job.
///
/// The worker deserializes the payload as `Self` and calls [`run`](Self::run) on one of its threads. If `run` returns
/// an error or panics, the attempt fails, and the job is retried after e^attempts seconds, unless the task has another
/// retry policy. See the deployment guide, section Worker Process (docs/deployment-guide.async.md).
///
/// ```
/// use graphile_worker::{IntoTaskHandlerResult, TaskHandler, WorkerContext};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct SendEmail { to: String }
///
/// impl TaskHandler for SendEmail {
///     const IDENTIFIER: &'static str = "send_email";
///     fn run(self, _ctx: WorkerContext) -> impl IntoTaskHandlerResult {
///         if self.to.is_empty() {
///             return Err("no recipient");
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait TaskHandler: Serialize + DeserializeOwned + Send + 'static {
    /// The task's name in the database: 1..=128 characters.
    const IDENTIFIER: &'static str;

    /// Runs one job. Called on a worker thread, and may block.
    fn run(self, ctx: WorkerContext) -> impl IntoTaskHandlerResult;

    /// Returns the task as a value, as [`JobDefinition::of`] does.
    fn definition() -> JobDefinition {
        JobDefinition::of::<Self>()
    }
}

/// The return type of a handler: `()`, or a `Result` whose error type implements `Display`.
pub trait IntoTaskHandlerResult {
    /// Converts the value into a result. The error text is stored as the job's `last_error`.
    fn into_result(self) -> Result<(), String>;
}

impl IntoTaskHandlerResult for () {
    fn into_result(self) -> Result<(), String> {
        Ok(())
    }
}

impl<E: Display> IntoTaskHandlerResult for Result<(), E> {
    fn into_result(self) -> Result<(), String> {
        // The alternate form displays the whole chain of an anyhow-like error. Other errors are not affected.
        self.map_err(|e| format!("{e:#}"))
    }
}

/// How a worker runs the jobs of a task.
pub(crate) enum Runner {
    /// The worker calls the function with the job's context. Its result is the outcome.
    Call(Box<dyn Fn(WorkerContext) -> Result<(), String> + Send + Sync>),
    /// The worker calls the function with the job. The function, or any thread that it gives the job to, ends the job
    /// then or later.
    Give(Box<dyn Fn(StartedJob) + Send + Sync>),
    /// The worker calls no function. The host takes jobs with `next`.
    Pull,
}

/// A task as a value: its name, its handler, its retry policy and its timeout. Pass a list of definitions to
/// [`WorkerOptions::define_jobs`](crate::WorkerOptions::define_jobs).
///
/// ```
/// use graphile_worker::{IntoTaskHandlerResult, JobDefinition, RetryPolicy, TaskHandler, WorkerContext};
/// use serde::{Deserialize, Serialize};
/// use std::time::Duration;
///
/// #[derive(Serialize, Deserialize)]
/// struct SendEmail { to: String }
///
/// impl TaskHandler for SendEmail {
///     const IDENTIFIER: &'static str = "send_email";
///     fn run(self, _ctx: WorkerContext) -> impl IntoTaskHandlerResult {}
/// }
///
/// fn jobs() -> Vec<JobDefinition> {
///     let patient = RetryPolicy::exponential(Duration::from_secs(10), Duration::from_secs(3600));
///     vec![SendEmail::definition().backoff(patient).timeout(Duration::from_secs(60))]
/// }
/// assert_eq!(jobs()[0].identifier(), "send_email");
/// ```
/// See the deployment guide, section Worker Process (docs/deployment-guide.async.md). `backoff` and `timeout` are
/// additions of this library.
#[must_use = "a definition does nothing until define_jobs() registers it"]
pub struct JobDefinition {
    identifier: String,
    runner: Runner,
    backoff: Option<RetryPolicy>,
    timeout: Option<Duration>,
}

impl JobDefinition {
    /// Creates the definition of the task `T`.
    pub fn of<T: TaskHandler>() -> Self {
        Self::raw(T::IDENTIFIER, |ctx: WorkerContext| {
            let payload = ctx.job().payload_as().or_else(|error| {
                // A type that denies unknown fields does not accept the trace context.
                let rest = trace::without(ctx.payload()).and_then(|rest| serde_json::from_value(rest).ok());
                rest.ok_or(error)
            });
            let payload: T = payload.map_err(|e| e.to_string())?;
            payload.run(ctx).into_result()
        })
    }

    /// Creates the definition of the batch task `T`.
    pub fn of_batch<T: BatchTaskHandler>() -> Self {
        Self::raw(T::IDENTIFIER, batch::run::<T>)
    }

    /// Creates the definition of a task from its name and a function that reads the payload itself.
    pub fn raw<R: IntoTaskHandlerResult>(
        identifier: &str,
        handler: impl Fn(WorkerContext) -> R + Send + Sync + 'static,
    ) -> Self {
        Self::run_by(identifier, Runner::Call(Box::new(move |ctx| handler(ctx).into_result())))
    }

    pub(crate) fn run_by(identifier: &str, runner: Runner) -> Self {
        Self { identifier: identifier.to_owned(), runner, backoff: None, timeout: None }
    }

    /// The task's name in the database.
    pub fn identifier(&self) -> &str {
        &self.identifier
    }

    /// Sets how long a failed job waits for its next attempt. Defaults to e^attempts seconds, at most e^10 seconds, as
    /// in the functions of the database schema.
    ///
    /// The policy applies only to jobs that fail in this worker. Other workers on the same tables use their own
    /// policies.
    ///
    /// # Errors
    /// `init` returns `Config` if a delay of the policy is longer than 100 years.
    pub fn backoff(mut self, policy: RetryPolicy) -> Self {
        self.backoff = Some(policy);
        self
    }

    /// Sets how long a handler may run, counted from its start. Defaults to no limit.
    ///
    /// If the handler exceeds its timeout, it is cancelled: [`WorkerContext::is_cancelled`] returns true. If it then
    /// returns an error, the attempt fails by timeout. If it succeeds, the job is done. If it has not returned after a
    /// further `shutdown_grace_period`, the worker logs it as stuck, with job and thread. The worker keeps the job
    /// locked, so no other worker runs it as long as this process lives.
    ///
    /// # Errors
    /// `init` returns `Config` if the timeout is shorter than 1 ms.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

/// One task of a worker, with checked options.
pub(crate) struct Task {
    pub(crate) name: TaskName,
    pub(crate) runner: Runner,
    pub(crate) backoff: Option<RetryPolicy>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) pace: Pace,
}

impl Task {
    pub(crate) fn checked(definition: JobDefinition) -> Result<Self> {
        let JobDefinition { identifier, runner, backoff, timeout } = definition;
        if let Some(longest) =
            backoff.as_ref().and_then(RetryPolicy::longest).filter(|&longest| longest > LONGEST_DELAY)
        {
            return Err(Error::config(format!("backoff of task {identifier:?}: {longest:?} is longer than 100 years")));
        }
        if let Some(timeout) = timeout.filter(|&timeout| timeout < Duration::from_millis(1)) {
            return Err(Error::config(format!("timeout of task {identifier:?}: {timeout:?} is shorter than 1 ms")));
        }
        let timeout = timeout.map(|timeout| timeout.min(LONGEST_DELAY));
        Ok(Self { name: TaskName::new(&identifier)?, runner, backoff, timeout, pace: Pace::default() })
    }
}

/// How long a task's handlers take, as a moving average in nanoseconds. Zero means that none has returned yet.
#[derive(Default)]
pub(crate) struct Pace(AtomicU64);

impl Pace {
    pub(crate) fn took(&self, time: Duration) {
        let nanos = (time.as_nanos() as u64).max(1);
        let average = self.0.load(Ordering::Relaxed);
        // A slow run raises the average quickly, and a fast run lowers it slowly. If the average were too low, this
        // worker would claim jobs that it cannot start soon.
        let next = if average == 0 || nanos > average {
            nanos.midpoint(average.max(1))
        } else {
            average - (average - nanos) / 8
        };
        self.0.store(next.max(1), Ordering::Relaxed);
    }

    pub(crate) fn average(&self) -> Option<Duration> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }
}

/// The values that all jobs of one worker share.
pub(crate) struct WorkerEnv {
    pub(crate) worker_id: String,
    pub(crate) utils: WorkerUtils,
    pub(crate) extensions: Arc<Extensions>,
}

/// The context that a handler gets in addition to its payload. Cloning is cheap. It can be sent to other threads.
#[derive(Clone)]
pub struct WorkerContext {
    active: Arc<ActiveJob>,
    env: Arc<WorkerEnv>,
}

impl WorkerContext {
    pub(crate) fn new(active: Arc<ActiveJob>, env: Arc<WorkerEnv>) -> Self {
        Self { active, env }
    }

    /// The job that the handler runs.
    pub fn job(&self) -> &Job {
        self.active.job()
    }

    /// The job's payload: JSON text, byte for byte as PostgreSQL stores it.
    pub fn payload(&self) -> &[u8] {
        self.active.job().payload()
    }

    /// The id with which this worker locks jobs. It is a new random id at every start.
    pub fn worker_id(&self) -> &str {
        &self.env.worker_id
    }

    /// Borrows a connection from the worker's pool. Dropping it gives it back.
    ///
    /// # Errors
    /// [`ErrorKind::Connect`](crate::ErrorKind::Connect) if no connection was free in time; see `max_pg_conn`.
    pub fn connection(&self) -> Result<Connection> {
        self.env.utils.connection()
    }

    /// The W3C trace context that the job was added with, if any. The payload contains it as `_trace.traceparent`.
    ///
    /// ```
    /// # use graphile_worker::WorkerContext;
    /// fn handler(ctx: WorkerContext) {
    ///     if let Some(traceparent) = ctx.traceparent() {
    ///         println!("part of {traceparent}"); // Or make it the parent of a span.
    ///     }
    /// }
    /// ```
    pub fn traceparent(&self) -> Option<String> {
        trace::of(self.payload())
    }

    /// Adds a job of task `T`, as [`WorkerUtils::add_job`] does. The new job gets the trace context of this job, unless
    /// the spec has another one.
    ///
    /// # Errors
    /// The errors of [`WorkerUtils::add_job`].
    pub fn add_job<T: TaskHandler>(&self, payload: T, spec: JobSpec) -> Result<Job> {
        self.env.utils.add_typed(payload, spec, self.traceparent().as_deref())
    }

    /// Adds one job of batch task `T` with these items, as [`WorkerUtils::add_batch_job`] does.
    ///
    /// # Errors
    /// The errors of [`WorkerUtils::add_batch_job`].
    pub fn add_batch_job<T: BatchTaskHandler>(&self, items: Vec<T>, spec: JobSpec) -> Result<Job> {
        self.env.utils.add_batch_job(items, spec)
    }

    /// The worker's [`WorkerUtils`], with which the handler can add, remove and change jobs.
    pub fn utils(&self) -> &WorkerUtils {
        &self.env.utils
    }

    /// If the handler succeeds, the job runs again after `delay` at the earliest, and the attempt does not count. If
    /// the handler fails, the call has no effect, and the failure counts. Delays above 100 years count as 100 years.
    /// The last call wins. While the job waits, its named queue continues with the next job.
    ///
    /// ```
    /// # use graphile_worker::WorkerContext;
    /// # use std::time::Duration;
    /// fn handler(ctx: WorkerContext) {
    ///     let ready = false; // For example, another system is still writing a report.
    ///     if !ready {
    ///         ctx.snooze(Duration::from_secs(30));
    ///     }
    /// }
    /// ```
    pub fn snooze(&self, delay: Duration) {
        self.active.request_snooze(delay.min(LONGEST_DELAY));
    }

    /// If the handler fails, the next attempt waits for `delay`, regardless of the task's retry policy. Delays above
    /// 100 years count as 100 years. The last call wins.
    ///
    /// ```
    /// # use graphile_worker::WorkerContext;
    /// # use std::time::Duration;
    /// fn handler(ctx: WorkerContext) -> Result<(), String> {
    ///     let asked_to_wait = Duration::from_secs(90); // For example, from a Retry-After header.
    ///     ctx.retry_after(asked_to_wait);
    ///     Err("too many requests".into())
    /// }
    /// ```
    pub fn retry_after(&self, delay: Duration) {
        self.active.request_delay(delay.min(LONGEST_DELAY));
    }

    /// If the handler fails, the next attempt gets this payload.
    pub(crate) fn keep_only(&self, payload: String) {
        self.active.request_rest(payload);
    }

    /// Returns true if the job should end early: the grace period of a stop is over, the job exceeded its task's
    /// timeout, or another worker has taken the job. A handler that checks this regularly makes stops fast and
    /// duplicate runs rare.
    pub fn is_cancelled(&self) -> bool {
        self.active.is_cancelled()
    }

    /// The value of type `T` that was passed to [`WorkerOptions::add_extension`](crate::WorkerOptions::add_extension).
    /// `None` if there is none.
    pub fn get_ext<T: 'static>(&self) -> Option<&T> {
        self.env.extensions.get()
    }
}

/// A started job that has no outcome yet. Any thread that owns this value can end the job. If it is dropped before, the
/// attempt fails.
pub(crate) struct StartedJob {
    context: WorkerContext,
    /// Taken by the first call of `finish`.
    end: Mutex<Option<End>>,
}

/// Gives a job its outcome. Returns false if the job already has one, or if this worker has lost it.
type End = Box<dyn FnOnce(Result<(), String>) -> bool + Send>;

impl StartedJob {
    pub(crate) fn new(context: WorkerContext, end: impl FnOnce(Result<(), String>) -> bool + Send + 'static) -> Self {
        Self { context, end: Mutex::new(Some(Box::new(end))) }
    }

    pub(crate) fn context(&self) -> &WorkerContext {
        &self.context
    }

    /// Returns true if `finish` was not called yet.
    pub(crate) fn is_open(&self) -> bool {
        self.end.lock().is_some()
    }

    /// Ends the job, with the text of the error if it failed. Only the first call has an effect. Returns false if the
    /// job already has an outcome, or if this worker has lost it.
    pub(crate) fn finish(&self, result: Result<(), String>) -> bool {
        let end = self.end.lock().take();
        end.is_some_and(|end| end(result))
    }
}

impl Drop for StartedJob {
    fn drop(&mut self) {
        self.finish(Err("handle dropped without a result".into()));
    }
}
