//! Tasks: the functions that run jobs, and what they are given. The only place that reads payloads.

pub(crate) mod batch;

use crate::client::WorkerUtils;
use crate::config::retry::{LONGEST_DELAY, RetryPolicy};
use crate::db::pool::Connection;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::job::active::ActiveJob;
use crate::job::spec::{JobSpec, TaskName};
use crate::job::trace;
use batch::BatchTaskHandler;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A task: a payload type, the name under which its jobs are stored, and what to do with one.
///
/// The worker reads the payload as `Self` and calls [`run`](Self::run) on one of its threads. A
/// returned error or a panic fails the attempt, and the job is tried again after e^attempts seconds.
/// Source: the guide, Worker Process.
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
///             return Err("nobody to write to");
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait TaskHandler: Serialize + DeserializeOwned + Send + 'static {
    /// The task's name in the database: 1..=128 characters.
    const IDENTIFIER: &'static str;

    /// Runs one job. Called on a worker thread; may block.
    fn run(self, ctx: WorkerContext) -> impl IntoTaskHandlerResult;

    /// The task as a value: [`JobDefinition::of`].
    fn definition() -> JobDefinition {
        JobDefinition::of::<Self>()
    }
}

/// What a handler may return: nothing, or a `Result` whose error can be displayed.
pub trait IntoTaskHandlerResult {
    /// The failure's text, which becomes the job's `last_error`.
    fn into_result(self) -> Result<(), String>;
}

impl IntoTaskHandlerResult for () {
    fn into_result(self) -> Result<(), String> {
        Ok(())
    }
}

impl<E: Display> IntoTaskHandlerResult for Result<(), E> {
    fn into_result(self) -> Result<(), String> {
        // The alternate form prints the whole chain of an anyhow-like error, and any other as it is.
        self.map_err(|e| format!("{e:#}"))
    }
}

/// How the jobs of a task are run.
pub(crate) enum Runner {
    /// A function is called with the job's context; what it answers is the outcome.
    Call(Box<dyn Fn(WorkerContext) -> Result<(), String> + Send + Sync>),
    /// A function is given the job; whoever it leaves it to says how it ended, then or later.
    Give(Box<dyn Fn(StartedJob) + Send + Sync>),
    /// Nothing is called: the job is given to whoever asks the worker for one.
    Pull,
}

/// A task as a value: its name, its handler, and how its jobs are run. What a module can run is a
/// list of these, given to [`WorkerOptions::define_jobs`](crate::WorkerOptions::define_jobs).
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
/// Source: the guide, Worker Process; `backoff` and `timeout` are ours.
#[must_use = "a definition does nothing until define_jobs() registers it"]
pub struct JobDefinition {
    identifier: String,
    runner: Runner,
    backoff: Option<RetryPolicy>,
    timeout: Option<Duration>,
}

impl JobDefinition {
    /// The task `T`.
    pub fn of<T: TaskHandler>() -> Self {
        Self::raw(T::IDENTIFIER, |ctx: WorkerContext| {
            let payload = ctx.job().payload_as().or_else(|error| {
                // A type that knows all its fields has no room for the trace context.
                let rest = trace::without(ctx.payload()).and_then(|rest| serde_json::from_value(rest).ok());
                rest.ok_or(error)
            });
            let payload: T = payload.map_err(|e| e.to_string())?;
            payload.run(ctx).into_result()
        })
    }

    /// The batch task `T`.
    pub fn of_batch<T: BatchTaskHandler>() -> Self {
        Self::raw(T::IDENTIFIER, batch::run::<T>)
    }

    /// A task by its name and a function that reads the payload itself.
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

    /// How long a failed job waits for its next attempt. Defaults to e^attempts seconds, e^10 at most,
    /// as the database's own functions have it.
    ///
    /// Only jobs that fail in this worker wait so; others that share the tables have their own rules.
    ///
    /// # Errors
    /// `init` answers `Config` if a delay of the policy is longer than 100 years.
    pub fn backoff(mut self, policy: RetryPolicy) -> Self {
        self.backoff = Some(policy);
        self
    }

    /// How long a handler may run, counted from its start. Defaults to no limit.
    ///
    /// A handler that is late is cancelled: [`WorkerContext::is_cancelled`] answers true. If it then
    /// returns an error, the attempt has failed by timeout; if it succeeds all the same, the job is done.
    /// One that has not returned after the `shutdown_grace_period` is reported, by job and thread, as
    /// stuck. It stays this worker's: nobody else runs it as long as this process lives.
    ///
    /// # Errors
    /// `init` answers `Config` if it is shorter than 1 ms.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

/// One task of a worker, checked.
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

/// How long a task's handlers take, as a moving average. Zero: not known yet.
#[derive(Default)]
pub(crate) struct Pace(AtomicU64);

impl Pace {
    pub(crate) fn took(&self, time: Duration) {
        let nanos = (time.as_nanos() as u64).max(1);
        let average = self.0.load(Ordering::Relaxed);
        // Slow runs count at once, fast ones little by little: a wrong guess must not hoard jobs.
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

/// Values that handlers share, by type. Source: the async crate's extensions.
#[derive(Default)]
pub(crate) struct Extensions(HashMap<TypeId, Box<dyn Any + Send + Sync>>);

impl Extensions {
    pub(crate) fn insert<T: Send + Sync + 'static>(&mut self, value: T) {
        self.0.insert(TypeId::of::<T>(), Box::new(value));
    }

    fn get<T: 'static>(&self) -> Option<&T> {
        self.0.get(&TypeId::of::<T>()).and_then(|value| value.downcast_ref())
    }
}

/// The values given to [`WorkerOptions::add_extension`](crate::WorkerOptions::add_extension), by their type.
#[derive(Clone)]
pub struct ReadOnlyExtensions(pub(crate) Arc<Extensions>);

impl ReadOnlyExtensions {
    /// The value of type `T`, if one was added.
    pub fn get<T: 'static>(&self) -> Option<&T> {
        self.0.get()
    }
}

/// What all jobs of one worker share.
pub(crate) struct WorkerEnv {
    pub(crate) worker_id: String,
    pub(crate) utils: WorkerUtils,
    pub(crate) extensions: Arc<Extensions>,
}

/// What a handler is given beside its payload. Cheap to clone; may go to other threads.
#[derive(Clone)]
pub struct WorkerContext {
    active: Arc<ActiveJob>,
    around: Arc<WorkerEnv>,
}

impl WorkerContext {
    pub(crate) fn new(active: Arc<ActiveJob>, around: Arc<WorkerEnv>) -> Self {
        Self { active, around }
    }

    /// The job that runs.
    pub fn job(&self) -> &Job {
        self.active.job()
    }

    /// Its payload: JSON text, byte for byte as PostgreSQL holds it.
    pub fn payload(&self) -> &[u8] {
        self.active.job().payload()
    }

    /// The id under which this worker locks jobs; a new one at every start.
    pub fn worker_id(&self) -> &str {
        &self.around.worker_id
    }

    /// Borrows a connection of the worker's pool, until it is dropped.
    ///
    /// # Errors
    /// [`ErrorKind::Connect`](crate::ErrorKind::Connect) if none came free in time; see `max_pg_conn`.
    pub fn connection(&self) -> Result<Connection> {
        self.around.utils.connection()
    }

    /// The W3C trace context that the job was added with, if any: its payload's `_trace.traceparent`.
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

    /// Adds a job of task `T`, as [`WorkerUtils::add_job`]. It belongs to this job's trace, unless the
    /// spec names another.
    ///
    /// # Errors
    /// As [`WorkerUtils::add_job`].
    pub fn add_job<T: TaskHandler>(&self, payload: T, spec: JobSpec) -> Result<Job> {
        self.around.utils.add_typed(payload, spec, self.traceparent().as_deref())
    }

    /// Adds one job of batch task `T` with these items, as [`WorkerUtils::add_batch_job`].
    ///
    /// # Errors
    /// As [`WorkerUtils::add_batch_job`].
    pub fn add_batch_job<T: BatchTaskHandler>(&self, items: Vec<T>, spec: JobSpec) -> Result<Job> {
        self.around.utils.add_batch_job(items, spec)
    }

    /// The same utilities as outside of a worker.
    pub fn utils(&self) -> &WorkerUtils {
        &self.around.utils
    }

    /// Runs the job again no earlier than after `delay`, once the handler has returned without an error:
    /// the attempt does not count. At most 100 years; the last call counts. A named queue goes on with its
    /// next job meanwhile. If the handler fails all the same, the failure counts and this does not.
    ///
    /// ```
    /// # use graphile_worker::WorkerContext;
    /// # use std::time::Duration;
    /// fn handler(ctx: WorkerContext) {
    ///     let ready = false; // Say, a report that another system is still writing.
    ///     if !ready {
    ///         ctx.snooze(Duration::from_secs(30));
    ///     }
    /// }
    /// ```
    pub fn snooze(&self, delay: Duration) {
        self.active.wish_snooze(delay.min(LONGEST_DELAY));
    }

    /// Lets the next attempt wait for `delay`, if this one fails, whatever its task's policy says. At most 100 years;
    /// the last call counts.
    ///
    /// ```
    /// # use graphile_worker::WorkerContext;
    /// # use std::time::Duration;
    /// fn handler(ctx: WorkerContext) -> Result<(), String> {
    ///     let asked_to_wait = Duration::from_secs(90); // Say, by the other side's answer.
    ///     ctx.retry_after(asked_to_wait);
    ///     Err("too many requests".into())
    /// }
    /// ```
    pub fn retry_after(&self, delay: Duration) {
        self.active.wish_delay(delay.min(LONGEST_DELAY));
    }

    /// Only this payload is left for the next attempt, if this one fails.
    pub(crate) fn keep_only(&self, payload: String) {
        self.active.wish_rest(payload);
    }

    /// Whether the job should end early: a stop whose grace period is over, its task's timeout, or the
    /// job was lost to another worker. A handler that looks at it now and then makes stops quick and duplicates rare.
    pub fn is_cancelled(&self) -> bool {
        self.active.is_cancelled()
    }

    /// The value of type `T` given to [`WorkerOptions::add_extension`](crate::WorkerOptions::add_extension).
    pub fn get_ext<T: 'static>(&self) -> Option<&T> {
        self.around.extensions.get()
    }
}

/// A started job, until it is said how it ended: by whoever holds this, on any thread. Dropped before, it fails.
pub(crate) struct StartedJob {
    context: WorkerContext,
    /// Taken by the first who says how it ended.
    end: Mutex<Option<Arc<dyn End>>>,
}

/// The engine's end of a started job; dropped once the job has left its handler.
pub(crate) trait End: Send + Sync {
    /// Gives the job its outcome; false if it has one, or is no longer ours.
    fn with(&self, result: Result<(), String>) -> bool;
}

impl StartedJob {
    pub(crate) fn new(context: WorkerContext, end: Arc<dyn End>) -> Self {
        Self { context, end: Mutex::new(Some(end)) }
    }

    pub(crate) fn context(&self) -> &WorkerContext {
        &self.context
    }

    /// Whether nobody has ended it yet.
    pub(crate) fn is_open(&self) -> bool {
        self.end.lock().is_some()
    }

    /// Ends the job, once, with the failure's text if it failed; false if somebody has done so before.
    pub(crate) fn finish(&self, result: Result<(), String>) -> bool {
        let end = self.end.lock().take();
        end.is_some_and(|end| end.with(result))
    }
}

impl Drop for StartedJob {
    fn drop(&mut self) {
        self.finish(Err("handle dropped without a result".into()));
    }
}
