//! Hooks: functions of the caller that observe a worker, or decide what happens to its jobs.
//! Calls the hooks and applies their results. The engine decides when each event happens.

mod context;
pub(crate) mod observers;

pub use context::{
    AfterJobRunContext, BeforeJobRunContext, BeforeJobScheduleContext, CronItem, CronJobScheduledContext,
    CronTickContext, FailureReason, JobCompleteContext, JobFailContext, JobFetchContext, JobInterruptedContext,
    JobLostContext, JobPermanentlyFailContext, JobRecoveryContext, JobStartContext, JobTimeoutContext,
    LocalQueueGetJobsCompleteContext, LocalQueueInitContext, LocalQueueMode, LocalQueueRefetchDelayAbortContext,
    LocalQueueRefetchDelayExpiredContext, LocalQueueRefetchDelayStartContext, LocalQueueReturnJobsContext,
    LocalQueueSetModeContext, ShutdownReason, WorkerInitContext, WorkerRecoveredContext, WorkerShutdownContext,
    WorkerStartContext,
};

use crate::error::{Error, ErrorKind, Result};
use crate::job::Job;
use crate::job::spec::RawJob;
use chrono::{DateTime, Utc};
use log::{debug, error};
use serde_json::Value;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// A set of hooks that belong together. [`WorkerOptions::add_plugin`](crate::WorkerOptions::add_plugin) registers them.
/// See the deployment guide, section Observability (docs/deployment-guide.async.md).
///
/// ```
/// use graphile_worker::{HookRegistry, JobComplete, Plugin};
///
/// struct PrintDurations;
///
/// impl Plugin for PrintDurations {
///     fn register(self, hooks: &mut HookRegistry) {
///         hooks.on(JobComplete, |ctx| println!("job {} took {:?}", ctx.job.id(), ctx.duration));
///     }
/// }
///
/// assert!(!HookRegistry::new().with_plugin(PrintDurations).is_empty());
/// ```
pub trait Plugin: Send + Sync + 'static {
    /// Registers the hooks. It is called once, when the plugin is added.
    fn register(self, hooks: &mut HookRegistry);
}

/// The decision of a [`BeforeJobRun`] or [`AfterJobRun`] hook.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum HookResult {
    /// This hook does not decide. The next hook is asked. After the last one, nothing changes.
    #[default]
    Continue,
    /// The job is done, regardless of its handler's result. Its row is deleted.
    Skip,
    /// The attempt fails with this text, regardless of the handler's result.
    Fail(String),
}

/// The decision of a [`BeforeJobSchedule`] hook.
#[derive(Debug, Clone, PartialEq)]
pub enum JobScheduleResult {
    /// Continue with this payload. The next hook receives it. After the last hook, it is stored.
    Continue(Value),
    /// Nothing is added. The call that adds the job returns [`ErrorKind::JobScheduleSkipped`].
    Skip,
    /// Nothing is added. The call that adds the job returns [`ErrorKind::JobScheduleFailed`] with this text.
    Fail(String),
}

/// The decision of a [`JobRecovery`] hook about a job that a dead worker held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum JobRecoveryResult {
    /// This hook does not decide. The next hook is asked. After the last one, the job is given back with the recovery
    /// delay, and its attempt does not count. If the job ran alone in the dead worker and exceeds `max_recoveries`, it
    /// fails permanently instead.
    #[default]
    Default,
    /// The job runs again at this time.
    Reschedule {
        /// The job does not run before this time.
        run_at: DateTime<Utc>,
        /// How many attempts count as used. `None` leaves the number unchanged.
        attempts: Option<i16>,
    },
    /// The attempt counts as failed, and the job is retried after e^attempts seconds, at most e^10.
    FailWithBackoff,
    /// The job stays locked by the dead worker. The next sweep asks again.
    Skip,
}

/// An event for which a hook can be registered. Each event is a unit struct, so its name is also its only value.
///
/// An *observer* returns nothing. An *interceptor* returns a decision. Several interceptors of one event are asked in
/// the order of their registration, and the first one that decides wins.
pub trait Event: sealed::Sealed + Send + Sync + 'static {
    /// The argument of the hook.
    type Context: Clone + Send + 'static;
    /// The return type of the hook.
    type Output;
    /// The event's name, as logged.
    const NAME: &'static str;

    #[doc(hidden)]
    fn handlers(hooks: &HookRegistry) -> &Vec<sealed::Handler<Self::Context, Self::Output>>;
    #[doc(hidden)]
    fn handlers_mut(hooks: &mut HookRegistry) -> &mut Vec<sealed::Handler<Self::Context, Self::Output>>;
}

/// Private, so that callers cannot define events that the engine never sends.
mod sealed {
    pub type Handler<C, O> = Box<dyn Fn(C) -> O + Send + Sync>;

    pub trait Sealed {}
}

/// An event whose observers are called on the thread gw-events.
pub(crate) trait Observed: Event<Output = ()> {
    /// How long the sender waits at most if the channel to gw-events is full.
    const SEND_TIMEOUT: Duration;
}

/// For events of a job's life: the sender waits for room in the channel before it drops the event.
const JOB: Duration = Duration::from_millis(100);

/// For all other events: if the channel is full, the event is dropped. The sender never waits.
const NONE: Duration = Duration::ZERO;

/// Declares each event: its name, the field of its hooks in the registry, its argument and its return type.
macro_rules! events {
    (
        observers { $($(#[$doc:meta])* $event:ident($field:ident, $context:ty, $timeout:ident);)* }
        called in place { $($(#[$in_doc:meta])* $in_event:ident($in_field:ident, $in_context:ty) -> $output:ty;)* }
    ) => {
        $(events!(@event $(#[$doc])* $event, $field, $context, ());)*
        $(events!(@event $(#[$in_doc])* $in_event, $in_field, $in_context, $output);)*
        $(impl Observed for $event { const SEND_TIMEOUT: Duration = $timeout; })*

        /// The hooks of one worker, in the order of their registration. See the deployment guide, section Observability
        /// (docs/deployment-guide.async.md).
        ///
        /// ```
        /// use graphile_worker::{BeforeJobRun, HookRegistry, HookResult};
        /// let mut hooks = HookRegistry::new();
        /// hooks.on(BeforeJobRun, |ctx| match ctx.payload.get("skip") {
        ///     Some(skip) if skip == true => HookResult::Skip,
        ///     _ => HookResult::Continue,
        /// });
        /// assert!(!hooks.is_empty());
        /// ```
        #[derive(Default)]
        pub struct HookRegistry {
            $($field: Vec<sealed::Handler<$context, ()>>,)*
            $($in_field: Vec<sealed::Handler<$in_context, $output>>,)*
        }

        impl HookRegistry {
            /// Returns true if no hook is registered.
            pub fn is_empty(&self) -> bool {
                !self.observes() $(&& self.$in_field.is_empty())*
            }

            /// Returns true if an observer is registered that gw-events must call.
            pub(crate) fn observes(&self) -> bool {
                $(!self.$field.is_empty())||*
            }
        }
    };
    (@event $(#[$doc:meta])* $event:ident, $field:ident, $context:ty, $output:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $event;

        impl sealed::Sealed for $event {}

        impl Event for $event {
            type Context = $context;
            type Output = $output;
            const NAME: &'static str = stringify!($event);

            fn handlers(hooks: &HookRegistry) -> &Vec<sealed::Handler<$context, $output>> {
                &hooks.$field
            }

            fn handlers_mut(hooks: &mut HookRegistry) -> &mut Vec<sealed::Handler<$context, $output>> {
                &mut hooks.$field
            }
        }
    };
}

events! {
    observers {
        /// The worker has started its threads.
        WorkerStart(worker_start, WorkerStartContext, NONE);
        /// The worker has stopped. Outcomes are written, and `run` is about to return.
        WorkerShutdown(worker_shutdown, WorkerShutdownContext, NONE);
        /// A sweep has recovered jobs of dead workers.
        WorkerRecovered(worker_recovered, WorkerRecoveredContext, NONE);
        /// A job was claimed. It starts when a thread is free.
        JobFetch(job_fetch, JobFetchContext, JOB);
        /// A job succeeded, and its row is deleted.
        JobComplete(job_complete, JobCompleteContext, JOB);
        /// An attempt failed, and the failure is written to the job's row. The job is retried.
        JobFail(job_fail, JobFailContext, JOB);
        /// A job failed permanently, and the failure is written to its row. Sent instead of [`JobFail`].
        JobPermanentlyFail(job_permanently_fail, JobPermanentlyFailContext, JOB);
        /// A started job was given back, and its row is updated. The cause is a stop of its worker, or the worker's
        /// death.
        JobInterrupted(job_interrupted, JobInterruptedContext, JOB);
        /// This worker has lost a job that it did not give back: another session freed the job's lock or claimed the
        /// job. The job's outcome is dropped. Not in the async crate.
        JobLost(job_lost, JobLostContext, NONE);
        /// A handler exceeded its task's timeout, and its job was cancelled. Sent a second time, with `stuck` set, if
        /// the handler then continues for longer than the grace period. Not in the async crate.
        JobTimeout(job_timeout, JobTimeoutContext, NONE);
        /// The scheduler has reached a new minute, by the clock of the database.
        CronTick(cron_tick, CronTickContext, NONE);
        /// The scheduler of this worker has added a job of a crontab entry.
        CronJobScheduled(cron_job_scheduled, CronJobScheduledContext, NONE);
        /// The local queue is set up.
        LocalQueueInit(local_queue_init, LocalQueueInitContext, NONE);
        /// The local queue has changed its mode.
        LocalQueueSetMode(local_queue_set_mode, LocalQueueSetModeContext, NONE);
        /// The local queue has fetched jobs.
        LocalQueueGetJobsComplete(local_queue_get_jobs_complete, LocalQueueGetJobsCompleteContext, NONE);
        /// The local queue has given jobs back.
        LocalQueueReturnJobs(local_queue_return_jobs, LocalQueueReturnJobsContext, NONE);
        /// The local queue has started a pause before its next fetch.
        LocalQueueRefetchDelayStart(local_queue_refetch_delay_start, LocalQueueRefetchDelayStartContext, NONE);
        /// The local queue has ended its pause early, because enough notifications of new jobs arrived.
        LocalQueueRefetchDelayAbort(local_queue_refetch_delay_abort, LocalQueueRefetchDelayAbortContext, NONE);
        /// The pause of the local queue is over.
        LocalQueueRefetchDelayExpired(local_queue_refetch_delay_expired, LocalQueueRefetchDelayExpiredContext, NONE);
    }
    called in place {
        /// `init` is about to return a worker. The hook is called on the thread that calls `init`.
        WorkerInit(worker_init, WorkerInitContext) -> ();
        /// A job's handler is about to be called. The hook is called on the job's thread, so it delays the job.
        JobStart(job_start, JobStartContext) -> ();
        /// Decides whether a job's handler is called. The hook is called on the job's thread. After `Skip` or `Fail`,
        /// neither [`JobStart`] nor [`AfterJobRun`] follows. If the hook panics, the attempt fails. The attempt also
        /// fails if the payload cannot be decoded, because a hook that vetoes must see the payload.
        BeforeJobRun(before_job_run, BeforeJobRunContext) -> HookResult;
        /// Decides over the result of a job whose handler has returned. The hook is called on the job's thread. If it
        /// panics, the result does not change.
        AfterJobRun(after_job_run, AfterJobRunContext) -> HookResult;
        /// Decides whether a job is added through this worker: by its [`create_utils`](crate::Worker::create_utils), by
        /// a handler, or by cron. The hook is called on the thread that adds the job. If it panics, the job is refused.
        /// Jobs that other clients or plain SQL add are not affected. If the job of a cron tick is skipped or refused,
        /// the tick is done: other schedulers do not add its job later.
        BeforeJobSchedule(before_job_schedule, BeforeJobScheduleContext) -> JobScheduleResult;
        /// Decides what happens to a job that a dead worker held. The hook is called on the thread that sweeps. If it
        /// panics, it does not decide.
        JobRecovery(job_recovery, JobRecoveryContext) -> JobRecoveryResult;
    }
}

impl HookRegistry {
    /// Creates an empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a hook for an event. Observers are called one after the other on the thread gw-events, unless the
    /// documentation of the event names another thread. If a hook panics, the panic is logged, and the worker
    /// continues.
    pub fn on<E: Event>(
        &mut self,
        _event: E,
        hook: impl Fn(E::Context) -> E::Output + Send + Sync + 'static,
    ) -> &mut Self {
        E::handlers_mut(self).push(Box::new(hook));
        self
    }

    /// Adds the hooks of a plugin.
    pub fn with_plugin(mut self, plugin: impl Plugin) -> Self {
        plugin.register(&mut self);
        self
    }

    fn listens<E: Event>(&self) -> bool {
        !E::handlers(self).is_empty()
    }

    /// Calls the observers of an event on this thread. `context` is called only if there are observers.
    pub(crate) fn notify<E: Event<Output = ()>>(&self, context: impl FnOnce() -> E::Context) {
        let Some((last, others)) = E::handlers(self).split_last() else { return };
        let context = context();
        for hook in others {
            let _ = call::<E>(hook, context.clone());
        }
        let _ = call::<E>(last, context);
    }

    /// Asks the interceptors until one decides. If one panics, `panicked` supplies its result.
    fn ask<E: Event>(
        &self,
        context: &E::Context,
        panicked: fn(String) -> E::Output,
        decides: fn(&E::Output) -> bool,
    ) -> Option<E::Output> {
        let answers = E::handlers(self).iter().map(|hook| call::<E>(hook, context.clone()).unwrap_or_else(panicked));
        answers.into_iter().find(decides)
    }

    /// Asks the interceptors before a run, on the job's thread. Returns the result that they decided, or `None` if the
    /// job is to run. In the second case, calls the observers of `JobStart`.
    pub(crate) fn before_run(&self, job: &Arc<Job>, worker_id: &str) -> Option<Result<(), String>> {
        match self.before(job, worker_id) {
            HookResult::Continue => {}
            HookResult::Skip => return Some(Ok(())),
            HookResult::Fail(text) => return Some(Err(text)),
        }
        self.notify::<JobStart>(|| JobStartContext { job: job.clone(), worker_id: worker_id.to_owned() });
        None
    }

    /// Asks the interceptors after a run. Returns the final result of the job.
    pub(crate) fn after_run(
        &self,
        job: &Arc<Job>,
        worker_id: &str,
        result: Result<(), String>,
        duration: Duration,
    ) -> Result<(), String> {
        match self.after(job, worker_id, &result, duration) {
            HookResult::Continue => result,
            HookResult::Skip => Ok(()),
            HookResult::Fail(text) => Err(text),
        }
    }

    fn before(&self, job: &Arc<Job>, worker_id: &str) -> HookResult {
        if !self.listens::<BeforeJobRun>() {
            return HookResult::Continue;
        }
        // Fails if the payload cannot be decoded, because a hook that vetoes must see the payload.
        let payload = match job.payload_as() {
            Ok(payload) => payload,
            Err(error) => return HookResult::Fail(format!("BeforeJobRun: {error}")),
        };
        let context = BeforeJobRunContext { job: job.clone(), worker_id: worker_id.to_owned(), payload };
        let answer = self.ask::<BeforeJobRun>(&context, HookResult::Fail, HookResult::decides).unwrap_or_default();
        answer.note::<BeforeJobRun>(job, worker_id)
    }

    fn after(&self, job: &Arc<Job>, worker_id: &str, result: &Result<(), String>, duration: Duration) -> HookResult {
        if !self.listens::<AfterJobRun>() {
            return HookResult::Continue;
        }
        let (job_, worker_id_) = (job.clone(), worker_id.to_owned());
        let context = AfterJobRunContext { job: job_, worker_id: worker_id_, result: result.clone(), duration };
        // The handler has run. A failed attempt would run it again because of a hook with a bug.
        let panicked = |_| HookResult::Continue;
        let answer = self.ask::<AfterJobRun>(&context, panicked, HookResult::decides).unwrap_or_default();
        answer.note::<AfterJobRun>(job, worker_id)
    }

    /// Asks the interceptors about a job that is about to be added. Returns the job with the payload to store.
    pub(crate) fn schedule(&self, mut job: RawJob) -> Result<RawJob> {
        if !self.listens::<BeforeJobSchedule>() {
            return Ok(job);
        }
        let task = job.identifier.as_str();
        let original: Value = serde_json::from_str(&job.payload).map_err(|e| {
            // serde's own text is not used, because it may quote the payload.
            let (line, column) = (e.line(), e.column());
            let text = format!(
                "task {task}: the payload cannot be decoded for BeforeJobSchedule hooks (line {line}, column {column})"
            );
            Error::new(ErrorKind::Payload, text).caused_by(e)
        })?;
        let mut payload = original.clone();
        for hook in BeforeJobSchedule::handlers(self) {
            let context = BeforeJobScheduleContext { identifier: task.to_owned(), payload, spec: job.spec.clone() };
            match call::<BeforeJobSchedule>(hook, context).unwrap_or_else(JobScheduleResult::Fail) {
                JobScheduleResult::Continue(changed) => payload = changed,
                JobScheduleResult::Skip => {
                    let text = format!("task {task}: a BeforeJobSchedule hook skipped the job; nothing was added");
                    return Err(Error::new(ErrorKind::JobScheduleSkipped, text));
                }
                JobScheduleResult::Fail(why) => {
                    let text =
                        format!("task {task}: a BeforeJobSchedule hook refused the job, nothing was added: {why}");
                    return Err(Error::new(ErrorKind::JobScheduleFailed, text));
                }
            }
        }
        // A payload that no hook changed is stored byte for byte as the caller gave it.
        if payload != original {
            job.payload = payload.to_string();
        }
        Ok(job)
    }

    /// Asks the interceptors about all jobs of one call. If one job is refused or skipped, none is added.
    pub(crate) fn schedule_all(&self, jobs: Vec<RawJob>) -> Result<Vec<RawJob>> {
        if !self.listens::<BeforeJobSchedule>() {
            return Ok(jobs);
        }
        let asked = jobs.into_iter().enumerate();
        asked.map(|(place, job)| self.schedule(job).map_err(|e| e.context(format_args!("job {place}")))).collect()
    }

    /// Asks the interceptors what happens to a job that a dead worker held.
    pub(crate) fn recover(&self, context: &JobRecoveryContext) -> JobRecoveryResult {
        let decides = |answer: &JobRecoveryResult| *answer != JobRecoveryResult::Default;
        self.ask::<JobRecovery>(context, |_| JobRecoveryResult::Default, decides).unwrap_or_default()
    }
}

impl HookResult {
    fn decides(&self) -> bool {
        *self != Self::Continue
    }

    /// Logs the decision, if there is one.
    fn note<E: Event>(self, job: &Job, worker_id: &str) -> Self {
        if self.decides() {
            let decision = if self == Self::Skip { "skip" } else { "fail" };
            debug!(worker_id, job_id = job.id, task = &*job.task_identifier, attempt = job.attempts, hook = E::NAME, decision;
                "a hook decided the result of the job");
        }
        self
    }
}

/// Calls one hook. If it panics, logs the panic and returns its text.
fn call<E: Event>(hook: &sealed::Handler<E::Context, E::Output>, context: E::Context) -> Result<E::Output, String> {
    catch_unwind(AssertUnwindSafe(|| hook(context))).map_err(|panic| {
        let text = format!("the hook {} panicked: {}", E::NAME, panic_text(panic));
        error!(hook = E::NAME, error = text.as_str(); "a hook panicked");
        text
    })
}

/// Returns the text of a panic.
pub(crate) fn panic_text(panic: Box<dyn Any + Send>) -> String {
    let panic = match panic.downcast::<&'static str>() {
        Ok(text) => return (*text).to_owned(),
        Err(panic) => panic,
    };
    panic.downcast::<String>().map_or_else(
        |panic| {
            // The value is leaked, because dropping it may panic again.
            std::mem::forget(panic);
            "without a message".to_owned()
        },
        |text| *text,
    )
}
