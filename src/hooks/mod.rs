//! Hooks: functions of the caller's that observe a worker, or decide over its jobs.
//! Knows what is called and what an answer means; when things happen is the engine's to say.

mod context;
pub(crate) mod events;

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

/// A set of hooks that belong together, registered by [`WorkerOptions::add_plugin`](crate::WorkerOptions::add_plugin).
/// Source: the guide, Observability.
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
    /// Registers the hooks. Called once, when the plugin is added.
    fn register(self, hooks: &mut HookRegistry);
}

/// What an interceptor of a job's run decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum HookResult {
    /// Go on: the next interceptor decides, or nothing changes.
    #[default]
    Continue,
    /// The job counts as done: its row is deleted, whatever its handler said.
    Skip,
    /// The attempt fails with this text, whatever the handler said.
    Fail(String),
}

/// What an interceptor of an enqueue decides.
#[derive(Debug, Clone, PartialEq)]
pub enum JobScheduleResult {
    /// Go on with this payload: the next interceptor is shown it, and after the last it is stored.
    Continue(Value),
    /// Nothing is added; the caller is answered [`ErrorKind::JobScheduleSkipped`].
    Skip,
    /// Nothing is added; the caller is answered [`ErrorKind::JobScheduleFailed`] with this text.
    Fail(String),
}

/// What an interceptor of a recovery decides about a job that a dead worker held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum JobRecoveryResult {
    /// The next interceptor decides; after the last, the job is given back, its attempt not counted.
    #[default]
    Default,
    /// The job runs again at this time.
    Reschedule {
        /// Not before this time.
        run_at: DateTime<Utc>,
        /// How many attempts count as used; as they are if `None`.
        attempts: Option<i16>,
    },
    /// The attempt counts as failed, and the job is tried again after its backoff.
    FailWithBackoff,
    /// The job stays locked.
    Skip,
}

/// Something that a hook can be registered for; the event's own name is its only value.
///
/// An *observer* answers nothing. An *interceptor* answers what is to happen; several are asked in the
/// order of their registration, and the first that does not say "go on" decides.
pub trait Event: sealed::Sealed + Send + Sync + 'static {
    /// What the hook is told.
    type Context: Clone + Send + 'static;
    /// What the hook answers.
    type Output;
    /// The event's name, as it stands in the log.
    const NAME: &'static str;

    #[doc(hidden)]
    fn handlers(hooks: &HookRegistry) -> &Vec<sealed::Handler<Self::Context, Self::Output>>;
    #[doc(hidden)]
    fn handlers_mut(hooks: &mut HookRegistry) -> &mut Vec<sealed::Handler<Self::Context, Self::Output>>;
}

/// Out of reach, so that nobody invents an event that is never sent.
mod sealed {
    pub type Handler<C, O> = Box<dyn Fn(C) -> O + Send + Sync>;

    pub trait Sealed {}
}

/// An event that gw-events tells observers of.
pub(crate) trait Observed: Event<Output = ()> {
    /// How long its sender waits at most when gw-events cannot keep up.
    const PATIENCE: Duration;
}

/// Events of a job's life: their senders slow down rather than lose one.
const JOB: Duration = Duration::from_millis(100);

/// Events that are less dear than the time of the thread that sends them.
const NONE: Duration = Duration::ZERO;

/// Declares every event once: its name, its hooks' place in the registry, what it is told and answers.
macro_rules! events {
    (
        observers { $($(#[$doc:meta])* $event:ident($place:ident, $context:ty, $patience:ident);)* }
        called in place { $($(#[$in_doc:meta])* $in_event:ident($in_place:ident, $in_context:ty) -> $output:ty;)* }
    ) => {
        $(events!(@event $(#[$doc])* $event, $place, $context, ());)*
        $(events!(@event $(#[$in_doc])* $in_event, $in_place, $in_context, $output);)*
        $(impl Observed for $event { const PATIENCE: Duration = $patience; })*

        /// The hooks of one worker, in the order of their registration. Source: the guide, Observability.
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
            $($place: Vec<sealed::Handler<$context, ()>>,)*
            $($in_place: Vec<sealed::Handler<$in_context, $output>>,)*
        }

        impl HookRegistry {
            /// Whether nothing is registered.
            pub fn is_empty(&self) -> bool {
                !self.observes() $(&& self.$in_place.is_empty())*
            }

            /// Whether anything is registered that gw-events would tell of.
            pub(crate) fn observes(&self) -> bool {
                $(!self.$place.is_empty())||*
            }
        }
    };
    (@event $(#[$doc:meta])* $event:ident, $place:ident, $context:ty, $output:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $event;

        impl sealed::Sealed for $event {}

        impl Event for $event {
            type Context = $context;
            type Output = $output;
            const NAME: &'static str = stringify!($event);

            fn handlers(hooks: &HookRegistry) -> &Vec<sealed::Handler<$context, $output>> {
                &hooks.$place
            }

            fn handlers_mut(hooks: &mut HookRegistry) -> &mut Vec<sealed::Handler<$context, $output>> {
                &mut hooks.$place
            }
        }
    };
}

events! {
    observers {
        /// The worker runs: its threads have started.
        WorkerStart(worker_start, WorkerStartContext, NONE);
        /// The worker has stopped: outcomes are written, `run` is about to return.
        WorkerShutdown(worker_shutdown, WorkerShutdownContext, NONE);
        /// A sweep has recovered what dead workers held.
        WorkerRecovered(worker_recovered, WorkerRecoveredContext, NONE);
        /// A job was claimed, and will start when a thread comes free.
        JobFetch(job_fetch, JobFetchContext, JOB);
        /// A job succeeded, and its row is gone.
        JobComplete(job_complete, JobCompleteContext, JOB);
        /// An attempt failed, and its row says so; the job is tried again.
        JobFail(job_fail, JobFailContext, JOB);
        /// A job's last attempt failed, and its row says so. Sent in place of [`JobFail`].
        JobPermanentlyFail(job_permanently_fail, JobPermanentlyFailContext, JOB);
        /// A job that had started was given back, and its row says so: by a stop, or after its worker died.
        JobInterrupted(job_interrupted, JobInterruptedContext, JOB);
        /// A job is no longer ours although nobody here gave it up: somebody else freed its lock or took
        /// it, and its outcome counts for nothing. Not in the async crate.
        JobLost(job_lost, JobLostContext, NONE);
        /// A handler takes longer than its task may, and is asked to end; told once more if it then goes on
        /// for longer than the grace period. Not in the async crate.
        JobTimeout(job_timeout, JobTimeoutContext, NONE);
        /// The scheduler has reached a minute, by the database's clock.
        CronTick(cron_tick, CronTickContext, NONE);
        /// A job of a crontab entry was added, by this worker's scheduler.
        CronJobScheduled(cron_job_scheduled, CronJobScheduledContext, NONE);
        /// The local queue is set up.
        LocalQueueInit(local_queue_init, LocalQueueInitContext, NONE);
        /// The local queue is in another mode.
        LocalQueueSetMode(local_queue_set_mode, LocalQueueSetModeContext, NONE);
        /// The local queue has fetched jobs.
        LocalQueueGetJobsComplete(local_queue_get_jobs_complete, LocalQueueGetJobsCompleteContext, NONE);
        /// The local queue has returned jobs.
        LocalQueueReturnJobs(local_queue_return_jobs, LocalQueueReturnJobsContext, NONE);
        /// The local queue waits before it fetches again.
        LocalQueueRefetchDelayStart(local_queue_refetch_delay_start, LocalQueueRefetchDelayStartContext, NONE);
        /// So many jobs were announced that the local queue stopped waiting.
        LocalQueueRefetchDelayAbort(local_queue_refetch_delay_abort, LocalQueueRefetchDelayAbortContext, NONE);
        /// The local queue has waited long enough.
        LocalQueueRefetchDelayExpired(local_queue_refetch_delay_expired, LocalQueueRefetchDelayExpiredContext, NONE);
    }
    called in place {
        /// `init` is about to answer a worker. Observed on the thread that calls `init`.
        WorkerInit(worker_init, WorkerInitContext) -> ();
        /// A job's handler is about to be called. Observed on the job's own thread, so it delays the job.
        JobStart(job_start, JobStartContext) -> ();
        /// Decides whether a job's handler is called; asked on the job's own thread. After `Skip` or `Fail`
        /// neither [`JobStart`] nor [`AfterJobRun`] follows. One that panics fails the attempt.
        BeforeJobRun(before_job_run, BeforeJobRunContext) -> HookResult;
        /// Decides what becomes of a job whose handler has returned; asked on the job's own thread. One that
        /// panics changes nothing.
        AfterJobRun(after_job_run, AfterJobRunContext) -> HookResult;
        /// Decides over a job that is about to be added through this worker: by its
        /// [`create_utils`](crate::Worker::create_utils), by a handler, by cron. Asked on the thread that adds
        /// it. One that panics refuses the job. What others add, or plain SQL, is not asked about. A tick of
        /// cron whose job is skipped or refused is over, for all schedulers that come to it later.
        BeforeJobSchedule(before_job_schedule, BeforeJobScheduleContext) -> JobScheduleResult;
        /// Decides what becomes of a job that a dead worker held; asked on the recovery's thread. One that
        /// panics decides nothing.
        JobRecovery(job_recovery, JobRecoveryContext) -> JobRecoveryResult;
    }
}

impl HookRegistry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a hook. Observers run on a thread of their own, one after the other, unless their event
    /// says otherwise; a hook that panics is logged, and nothing else ends.
    pub fn on<E: Event>(
        &mut self,
        _event: E,
        hook: impl Fn(E::Context) -> E::Output + Send + Sync + 'static,
    ) -> &mut Self {
        E::handlers_mut(self).push(Box::new(hook));
        self
    }

    /// The registry with a plugin's hooks added.
    pub fn with_plugin(mut self, plugin: impl Plugin) -> Self {
        plugin.register(&mut self);
        self
    }

    fn listens<E: Event>(&self) -> bool {
        !E::handlers(self).is_empty()
    }

    /// Calls the observers of an event, here and now.
    pub(crate) fn tell<E: Event<Output = ()>>(&self, context: impl FnOnce() -> E::Context) {
        let Some((last, others)) = E::handlers(self).split_last() else { return };
        let context = context();
        for hook in others {
            let _ = call::<E>(hook, context.clone());
        }
        let _ = call::<E>(last, context);
    }

    /// Asks interceptors until one decides. A panic is answered as `panicked` has it.
    fn ask<E: Event>(
        &self,
        context: &E::Context,
        panicked: fn(String) -> E::Output,
        decides: fn(&E::Output) -> bool,
    ) -> Option<E::Output> {
        let answers = E::handlers(self).iter().map(|hook| call::<E>(hook, context.clone()).unwrap_or_else(panicked));
        answers.into_iter().find(decides)
    }

    /// Asks the interceptors before a run, on the job's own thread: what they have decided over the job, or `None` if
    /// it is to run, which its observers are then told of.
    pub(crate) fn before_run(&self, job: &Arc<Job>, worker_id: &str) -> Option<Result<(), String>> {
        match self.before(job, worker_id) {
            HookResult::Continue => {}
            HookResult::Skip => return Some(Ok(())),
            HookResult::Fail(text) => return Some(Err(text)),
        }
        self.tell::<JobStart>(|| JobStartContext { job: job.clone(), worker_id: worker_id.to_owned() });
        None
    }

    /// Asks the interceptors after a run; answers what is to become of the job.
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
        // Whoever decides by the payload must not be passed by one that it cannot be shown.
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
        // What the handler did is done: a broken hook must not make it happen twice.
        let panicked = |_| HookResult::Continue;
        let answer = self.ask::<AfterJobRun>(&context, panicked, HookResult::decides).unwrap_or_default();
        answer.note::<AfterJobRun>(job, worker_id)
    }

    /// Asks about a job that is about to be added; answers it with its payload as it is to be stored.
    pub(crate) fn schedule(&self, mut job: RawJob) -> Result<RawJob> {
        if !self.listens::<BeforeJobSchedule>() {
            return Ok(job);
        }
        let task = job.identifier.as_str();
        let original: Value = serde_json::from_str(&job.payload).map_err(|e| {
            // Not serde's own words: they may quote the payload.
            let (line, column) = (e.line(), e.column());
            let text = format!(
                "task {task}: the payload is not JSON that BeforeJobSchedule hooks can be shown (line {line}, column {column})"
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
        // One that nobody changed is stored byte for byte as it came.
        if payload != original {
            job.payload = payload.to_string();
        }
        Ok(job)
    }

    /// Asks about all jobs of one call: they are added all or none.
    pub(crate) fn schedule_all(&self, jobs: Vec<RawJob>) -> Result<Vec<RawJob>> {
        if !self.listens::<BeforeJobSchedule>() {
            return Ok(jobs);
        }
        let asked = jobs.into_iter().enumerate();
        asked.map(|(place, job)| self.schedule(job).map_err(|e| e.context(format_args!("job {place}")))).collect()
    }

    /// Asks what is to become of a job that a dead worker held.
    pub(crate) fn recover(&self, context: &JobRecoveryContext) -> JobRecoveryResult {
        let decides = |answer: &JobRecoveryResult| *answer != JobRecoveryResult::Default;
        self.ask::<JobRecovery>(context, |_| JobRecoveryResult::Default, decides).unwrap_or_default()
    }
}

impl HookResult {
    fn decides(&self) -> bool {
        *self != Self::Continue
    }

    /// Leaves a line in the log if it decides something.
    fn note<E: Event>(self, job: &Job, worker_id: &str) -> Self {
        if self.decides() {
            let decision = if self == Self::Skip { "skip" } else { "fail" };
            debug!(worker_id, job_id = job.id, task = &*job.task_identifier, attempt = job.attempts, hook = E::NAME, decision;
                "a hook decided over the job");
        }
        self
    }
}

/// Calls one hook; answers what its panic said if it panicked, after logging it.
fn call<E: Event>(hook: &sealed::Handler<E::Context, E::Output>, context: E::Context) -> Result<E::Output, String> {
    catch_unwind(AssertUnwindSafe(|| hook(context))).map_err(|panic| {
        let text = format!("the hook {} panicked: {}", E::NAME, panic_text(panic));
        error!(hook = E::NAME, error = text.as_str(); "a hook panicked");
        text
    })
}

/// What a panic said.
pub(crate) fn panic_text(panic: Box<dyn Any + Send>) -> String {
    let panic = match panic.downcast::<&'static str>() {
        Ok(text) => return (*text).to_owned(),
        Err(panic) => panic,
    };
    panic.downcast::<String>().map_or_else(
        |panic| {
            // Forgotten, not dropped: dropping it may panic again.
            std::mem::forget(panic);
            "without a message".to_owned()
        },
        |text| *text,
    )
}
