//! Tasks: the functions that run jobs, and what they are given. The only place that reads payloads.

use crate::claim::ActiveJob;
use crate::db::pool::Connection;
use crate::error::Result;
use crate::job::Job;
use crate::spec::{JobSpec, TaskName};
use crate::trace;
use crate::utils::WorkerUtils;
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

/// A handler with its types erased: called with a job's context, answers the failure's text.
pub(crate) type Handler = Box<dyn Fn(WorkerContext) -> Result<(), String> + Send + Sync>;

/// One task of a worker.
pub(crate) struct Task {
    pub(crate) name: TaskName,
    pub(crate) handler: Handler,
    pub(crate) pace: Pace,
}

impl Task {
    /// A task by its payload type.
    pub(crate) fn typed<T: TaskHandler>() -> Result<Self> {
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

    /// A task by its name and a function.
    pub(crate) fn raw<R: IntoTaskHandlerResult>(
        name: &str,
        handler: impl Fn(WorkerContext) -> R + Send + Sync + 'static,
    ) -> Result<Self> {
        let handler: Handler = Box::new(move |ctx| handler(ctx).into_result());
        Ok(Self { name: TaskName::new(name)?, handler, pace: Pace::default() })
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
pub(crate) struct Surroundings {
    pub(crate) worker_id: String,
    pub(crate) utils: WorkerUtils,
    pub(crate) extensions: Arc<Extensions>,
}

/// What a handler is given beside its payload. Cheap to clone; may go to other threads.
#[derive(Clone)]
pub struct WorkerContext {
    active: Arc<ActiveJob>,
    around: Arc<Surroundings>,
}

impl WorkerContext {
    pub(crate) fn new(active: Arc<ActiveJob>, around: Arc<Surroundings>) -> Self {
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

    /// The same utilities as outside of a worker.
    pub fn utils(&self) -> &WorkerUtils {
        &self.around.utils
    }

    /// Whether the job should end early: a stop whose grace period is over, or the job was lost to
    /// another worker. A handler that looks at it now and then makes stops quick and duplicates rare.
    pub fn is_cancelled(&self) -> bool {
        self.active.is_cancelled()
    }

    /// The value of type `T` given to [`WorkerOptions::add_extension`](crate::WorkerOptions::add_extension).
    pub fn get_ext<T: 'static>(&self) -> Option<&T> {
        self.around.extensions.get()
    }
}
