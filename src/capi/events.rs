//! Events of workers and jobs, and decisions of interceptors, by name and as JSON.

use super::boundary::{put, read, wanted};
use super::call::{call, status_of};
use super::error::gw_error_t;
use super::failure::Failure;
use super::handle::{self, KindSlab, Value, give};
use super::inside::{inside, is_inside};
use super::json::{job, place, reason};
use super::status::{GW_ERR_DEADLOCK, GW_OK, GW_STOPPED, GW_TIMEOUT, gw_status_t};
use super::text;
use super::user_data::{UserData, gw_free_fn};
use super::wakeup::{Wakeup, deadline};
use super::worker::{self, gw_worker_t};
use crate::{
    AfterJobRun, BeforeJobRun, BeforeJobSchedule, CronItem, CronJobScheduled, CronTick, Event, HookRegistry,
    HookResult, Job, JobComplete, JobFail, JobFetch, JobInterrupted, JobKeyMode, JobLost, JobPermanentlyFail,
    JobRecovery, JobRecoveryResult, JobScheduleResult, JobStart, JobTimeout, LocalQueueGetJobsComplete, LocalQueueInit,
    LocalQueueMode, LocalQueueRefetchDelayAbort, LocalQueueRefetchDelayExpired, LocalQueueRefetchDelayStart,
    LocalQueueReturnJobs, LocalQueueSetMode, Plugin, ShutdownReason, WorkerInit, WorkerRecovered, WorkerShutdown,
    WorkerStart,
};
use chrono::{DateTime, Utc};
use log::error;
use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use std::collections::VecDeque;
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;
use std::sync::Arc;

/// Decision: continue. The next interceptor decides; if there is none, nothing changes.
pub const GW_DECIDE_CONTINUE: i32 = 0x6B01;
/// Decision: the job counts as done (BeforeJobRun, AfterJobRun), is not added (BeforeJobSchedule), or stays locked
/// (JobRecovery).
pub const GW_DECIDE_SKIP: i32 = 0x6B02;
/// Decision: the attempt fails (BeforeJobRun, AfterJobRun) or the job is not added (BeforeJobSchedule). The reason is
/// the text of `gw_decision_set_text`.
pub const GW_DECIDE_FAIL: i32 = 0x6B03;
/// Decision: the job is added with the payload from `gw_decision_set_text`.
pub const GW_DECIDE_PAYLOAD: i32 = 0x6B04;
/// Decision: the job of a dead worker runs again at the time from `gw_decision_set_run_at`.
pub const GW_DECIDE_RESCHEDULE: i32 = 0x6B05;
/// Decision: the attempt of a dead worker's job counts as failed, and the job is retried after its backoff.
pub const GW_DECIDE_FAIL_WITH_BACKOFF: i32 = 0x6B06;

/// An event. Immutable and thread-safe. The caller owns an event from `gw_worker_next_event` or `gw_log_next`, and
/// frees it with `gw_event_free`. Observers and interceptors receive a borrowed event, valid until they return.
pub struct gw_event_t;

/// The details of an interceptor's decision, borrowed until the interceptor returns.
pub struct gw_decision_t;

/// Observes an event, on a thread of the library. Events wait while it runs, so it should be quick. `event` is
/// borrowed.
pub type gw_event_fn = Option<unsafe extern "C" fn(event: *const gw_event_t, user_data: *mut c_void)>;

/// Decides, on the thread where the event happens. Returns one of GW_DECIDE_...; another number counts as a failure of
/// the interceptor. `event` and `decision` are borrowed.
pub type gw_decide_fn =
    Option<unsafe extern "C" fn(event: *const gw_event_t, decision: *mut gw_decision_t, user_data: *mut c_void) -> i32>;

#[derive(Clone)]
pub(super) struct EventValue {
    name: &'static CStr,
    json: CString,
    job_id: i64,
    borrowed: bool,
}

impl Value for EventValue {
    const KIND: u64 = 8;
    const NAME: &'static str = "event";

    fn slab() -> &'static KindSlab<Self> {
        static SLAB: KindSlab<EventValue> = KindSlab::new();
        &SLAB
    }
}

impl EventValue {
    pub(super) fn new(name: &'static CStr, job: Option<&Job>, mut fields: Json, worker_id: Option<&str>) -> Self {
        if let Some(fields) = fields.as_object_mut() {
            job.inspect(|&about| _ = fields.insert("job".into(), self::job(about)));
            worker_id.inspect(|&id| _ = fields.insert("worker_id".into(), id.into()));
        }
        Self { name, json: text::owned(fields.to_string()), job_id: job.map_or(0, Job::id), borrowed: false }
    }
}

#[derive(Default)]
pub(super) struct DecisionValue(Mutex<Decision>);

#[derive(Default)]
struct Decision {
    text: String,
    run_at: Option<(DateTime<Utc>, Option<i16>)>,
}

impl Value for DecisionValue {
    const KIND: u64 = 9;
    const NAME: &'static str = "decision";

    fn slab() -> &'static KindSlab<Self> {
        static SLAB: KindSlab<DecisionValue> = KindSlab::new();
        &SLAB
    }
}

/// Events that wait to be pulled.
pub(super) struct EventQueue {
    pub(super) wakeup: Wakeup,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<EventValue>,
    /// The number of events dropped since the last one that was queued.
    dropped: u64,
    closed: bool,
}

/// The most events that wait.
const CAPACITY: usize = 1024;

impl EventQueue {
    pub(super) fn new() -> Result<Self, Failure> {
        Ok(Self { wakeup: Wakeup::new()?, waiting: Mutex::default() })
    }

    pub(super) fn push(&self, event: EventValue) {
        let mut waiting = self.waiting.lock();
        if waiting.events.len() >= CAPACITY {
            waiting.dropped += 1;
            return;
        }
        let dropped = std::mem::take(&mut waiting.dropped);
        if dropped > 0 {
            waiting.events.push_back(EventValue::new(c"EventsDropped", None, json!({ "events": dropped }), None));
        }
        waiting.events.push_back(event);
        self.wakeup.notify();
    }

    /// A worker starts: more events may follow.
    pub(super) fn open(&self) {
        self.waiting.lock().closed = false;
    }

    /// The worker has ended: no more events follow.
    pub(super) fn close(&self) {
        self.waiting.lock().closed = true;
        self.wakeup.notify();
    }

    /// The next event. Otherwise GW_TIMEOUT, or GW_STOPPED if no more events follow.
    pub(super) fn next(&self, timeout_ms: i64) -> Result<Result<EventValue, gw_status_t>, Failure> {
        // An event that is already there is returned even where the call must not wait.
        let may_wait = timeout_ms == 0 || !is_inside();
        let until = deadline(if may_wait { timeout_ms } else { 0 });
        match self.wakeup.wait_for(until, || self.look()) {
            Some(found) => Ok(found),
            None if may_wait => Ok(Err(GW_TIMEOUT)),
            None => {
                let text = "a function that the library calls must not wait for an event";
                Err(Failure::new(GW_ERR_DEADLOCK, text))
            }
        }
    }

    /// Looks once, without waiting.
    fn look(&self) -> Option<Result<EventValue, gw_status_t>> {
        let mut waiting = self.waiting.lock();
        match waiting.events.pop_front() {
            Some(event) => Some(Ok(event)),
            None => waiting.closed.then_some(Err(GW_STOPPED)),
        }
    }
}

/// A hook of the caller's.
#[derive(Clone)]
pub(super) struct Hook {
    name: &'static str,
    does: Does,
}

#[derive(Clone)]
enum Does {
    Observe(Arc<dyn Fn(EventValue) + Send + Sync>),
    Decide(Arc<Decide>),
}

struct Decide {
    function: unsafe extern "C" fn(*const gw_event_t, *mut gw_decision_t, *mut c_void) -> i32,
    user_data: UserData,
}

impl Decide {
    /// Calls the interceptor. Returns its code, and the details that it set.
    fn ask(&self, event: EventValue) -> (i32, Decision) {
        let event: *mut gw_event_t = give(EventValue { borrowed: true, ..event });
        let decision: *mut gw_decision_t = give(DecisionValue::default());
        // SAFETY: the caller passed function and `user_data` together; both handles are lent until it returns.
        let code = inside(|| unsafe { (self.function)(event, decision, self.user_data.pointer) });
        let said = handle::look::<DecisionValue, _>(decision).map(|said| std::mem::take(&mut *said.0.lock()));
        let _ = handle::free::<EventValue, _>(event);
        let _ = handle::free::<DecisionValue, _>(decision);
        (code, said.unwrap_or_default())
    }

    /// The decision of an interceptor of a run; `otherwise` handles a code that is not a decision.
    fn run(&self, event: EventValue, otherwise: impl FnOnce(i32) -> HookResult) -> HookResult {
        match self.ask(event) {
            (GW_DECIDE_CONTINUE, _) => HookResult::Continue,
            (GW_DECIDE_SKIP, _) => HookResult::Skip,
            (GW_DECIDE_FAIL, said) => HookResult::Fail(said.text),
            (other, _) => otherwise(other),
        }
    }
}

/// Logs a code that is not a decision. The effect is the same as of a panic of an interceptor in Rust.
fn no_decision(event: &str, answer: i32) -> String {
    let text = format!("an interceptor of {event} returned {answer}, which is not a decision for this event");
    error!(hook = event, error = text.as_str(); "interceptor returned an invalid decision");
    text
}

/// The hooks of a worker, as a plugin of the library.
pub(super) struct Hooks(pub(super) Vec<Hook>);

impl Plugin for Hooks {
    fn register(self, hooks: &mut HookRegistry) {
        for hook in self.0 {
            match hook.does {
                Does::Observe(tell) => observe(hooks, hook.name, tell),
                Does::Decide(decide) => intercept(hooks, hook.name, decide),
            }
        }
    }
}

const OBSERVED: [&CStr; 21] = [
    c"WorkerInit",
    c"WorkerStart",
    c"WorkerShutdown",
    c"WorkerRecovered",
    c"JobFetch",
    c"JobStart",
    c"JobComplete",
    c"JobFail",
    c"JobPermanentlyFail",
    c"JobInterrupted",
    c"JobLost",
    c"JobTimeout",
    c"CronTick",
    c"CronJobScheduled",
    c"LocalQueueInit",
    c"LocalQueueSetMode",
    c"LocalQueueGetJobsComplete",
    c"LocalQueueReturnJobs",
    c"LocalQueueRefetchDelayStart",
    c"LocalQueueRefetchDelayAbort",
    c"LocalQueueRefetchDelayExpired",
];

const DECIDED: [&CStr; 4] = [c"BeforeJobRun", c"AfterJobRun", c"BeforeJobSchedule", c"JobRecovery"];

/// The name of a known event. If the name is one of `others`, the error is `advice`.
fn find(names: &'static [&'static CStr], others: &[&CStr], advice: &str, name: &str) -> Result<&'static str, Failure> {
    let all: Vec<&'static str> = names.iter().filter_map(|known| known.to_str().ok()).collect();
    all.iter().find(|known| **known == name).copied().ok_or_else(|| {
        let elsewhere = others.iter().any(|other| other.to_bytes() == name.as_bytes());
        Failure::config(match elsewhere {
            true => format!("event {name:?}: {advice}"),
            false => format!("event {name:?}: is not one of {}", all.join(", ")),
        })
    })
}

/// Registers an observer. The event's JSON has the fields of its Rust context.
fn observe(hooks: &mut HookRegistry, name: &'static str, tell: Arc<dyn Fn(EventValue) + Send + Sync>) {
    /// Calls `tell` with the event's name, job, JSON fields and worker.
    macro_rules! on {
        ($event:ident, $name:literal, $c:ident => $job:expr, $worker:expr, $fields:expr) => {{
            hooks.on($event, move |$c| tell(EventValue::new($name, $job, $fields, $worker)));
        }};
    }
    macro_rules! about_job {
        ($event:ident, $name:literal, $c:ident => $fields:expr) => {
            on!($event, $name, $c => Some(&*$c.job), Some(&$c.worker_id), $fields)
        };
    }
    macro_rules! about_worker {
        ($event:ident, $name:literal, $c:ident => $fields:expr) => {
            on!($event, $name, $c => None, Some(&$c.worker_id), $fields)
        };
    }
    match name {
        "WorkerInit" => {
            on!(WorkerInit, c"WorkerInit", c => None, None, json!({ "schema": c.schema.name(), "concurrency": c.concurrency }))
        }
        "WorkerStart" => about_worker!(WorkerStart, c"WorkerStart", c => json!({})),
        "WorkerShutdown" => {
            about_worker!(WorkerShutdown, c"WorkerShutdown", c => json!({ "reason": shutdown(c.reason) }))
        }
        "WorkerRecovered" => about_worker!(WorkerRecovered, c"WorkerRecovered", c =>
            json!({ "dead_worker_ids": c.dead_worker_ids, "jobs_recovered": c.jobs_recovered })),
        "JobFetch" => about_job!(JobFetch, c"JobFetch", c => json!({})),
        "JobStart" => about_job!(JobStart, c"JobStart", c => json!({})),
        "JobComplete" => {
            about_job!(JobComplete, c"JobComplete", c => json!({ "duration_us": c.duration.as_micros() as u64 }))
        }
        "JobFail" => {
            about_job!(JobFail, c"JobFail", c => json!({ "error": c.error, "will_retry": c.will_retry }))
        }
        "JobPermanentlyFail" => {
            about_job!(JobPermanentlyFail, c"JobPermanentlyFail", c => json!({ "error": c.error }))
        }
        "JobInterrupted" => {
            about_job!(JobInterrupted, c"JobInterrupted", c => json!({ "reason": reason(c.reason) }))
        }
        "JobLost" => about_job!(JobLost, c"JobLost", c => json!({})),
        "JobTimeout" => about_job!(JobTimeout, c"JobTimeout", c =>
            json!({ "thread": c.thread, "timeout_us": c.timeout.as_micros() as u64, "stuck": c.stuck })),
        "CronTick" => on!(CronTick, c"CronTick", c => None, None,
            json!({ "timestamp": c.timestamp, "crontabs": c.crontabs.iter().map(item).collect::<Vec<_>>() })),
        "CronJobScheduled" => on!(CronJobScheduled, c"CronJobScheduled", c => None, None,
            json!({ "crontab": item(&c.crontab), "scheduled_at": c.scheduled_at })),
        "LocalQueueInit" => about_worker!(LocalQueueInit, c"LocalQueueInit", c => json!({})),
        "LocalQueueSetMode" => about_worker!(LocalQueueSetMode, c"LocalQueueSetMode", c =>
            json!({ "old_mode": mode(c.old_mode), "new_mode": mode(c.new_mode) })),
        "LocalQueueGetJobsComplete" => about_worker!(LocalQueueGetJobsComplete, c"LocalQueueGetJobsComplete", c =>
            json!({ "jobs_count": c.jobs_count })),
        "LocalQueueReturnJobs" => about_worker!(LocalQueueReturnJobs, c"LocalQueueReturnJobs", c =>
            json!({ "jobs_count": c.jobs_count })),
        "LocalQueueRefetchDelayStart" => {
            about_worker!(LocalQueueRefetchDelayStart, c"LocalQueueRefetchDelayStart", c =>
            json!({ "duration_us": c.duration.as_micros() as u64, "threshold": c.threshold,
                "abort_threshold": c.abort_threshold }))
        }
        "LocalQueueRefetchDelayAbort" => {
            about_worker!(LocalQueueRefetchDelayAbort, c"LocalQueueRefetchDelayAbort", c =>
            json!({ "count": c.count, "abort_threshold": c.abort_threshold }))
        }
        "LocalQueueRefetchDelayExpired" => {
            about_worker!(LocalQueueRefetchDelayExpired, c"LocalQueueRefetchDelayExpired", c => json!({}))
        }
        _ => unreachable!("{name} was looked up before"),
    }
}

/// Registers an interceptor.
fn intercept(hooks: &mut HookRegistry, name: &'static str, decide: Arc<Decide>) {
    match name {
        BeforeJobRun::NAME => {
            _ = hooks.on(BeforeJobRun, move |c| {
                let event = EventValue::new(c"BeforeJobRun", Some(&*c.job), json!({}), Some(&c.worker_id));
                decide.run(event, |answer| HookResult::Fail(no_decision(name, answer)))
            })
        }
        AfterJobRun::NAME => {
            _ = hooks.on(AfterJobRun, move |c| {
                let fields = json!({ "error": c.result.err(), "duration_us": c.duration.as_micros() as u64 });
                let event = EventValue::new(c"AfterJobRun", Some(&*c.job), fields, Some(&c.worker_id));
                decide.run(event, |answer| {
                    no_decision(name, answer);
                    HookResult::Continue
                })
            })
        }
        BeforeJobSchedule::NAME => {
            _ = hooks.on(BeforeJobSchedule, move |c| {
                let spec = &c.spec;
                let key_mode = spec.job_key_mode.map(JobKeyMode::as_sql);
                let fields = json!({ "identifier": c.identifier, "payload": c.payload, "queue_name": spec.queue_name,
                "run_at": spec.run_at, "max_attempts": spec.max_attempts, "job_key": spec.job_key,
                "job_key_mode": key_mode, "priority": spec.priority, "flags": spec.flags });
                match decide.ask(EventValue::new(c"BeforeJobSchedule", None, fields, None)) {
                    (GW_DECIDE_CONTINUE, _) => JobScheduleResult::Continue(c.payload),
                    (GW_DECIDE_SKIP, _) => JobScheduleResult::Skip,
                    (GW_DECIDE_FAIL, said) => JobScheduleResult::Fail(said.text),
                    (GW_DECIDE_PAYLOAD, said) => match serde_json::from_str(&said.text) {
                        Ok(payload) => JobScheduleResult::Continue(payload),
                        Err(e) => {
                            JobScheduleResult::Fail(format!("the interceptor's payload is not JSON ({})", place(&e)))
                        }
                    },
                    (other, _) => JobScheduleResult::Fail(no_decision(name, other)),
                }
            })
        }
        JobRecovery::NAME => {
            _ = hooks.on(JobRecovery, move |c| {
                let fields = json!({ "previous_worker_id": c.previous_worker_id, "reason": reason(c.reason) });
                match decide.ask(EventValue::new(c"JobRecovery", Some(&*c.job), fields, Some(&c.worker_id))) {
                    (GW_DECIDE_CONTINUE, _) => JobRecoveryResult::Default,
                    (GW_DECIDE_SKIP, _) => JobRecoveryResult::Skip,
                    (GW_DECIDE_FAIL_WITH_BACKOFF, _) => JobRecoveryResult::FailWithBackoff,
                    (GW_DECIDE_RESCHEDULE, Decision { run_at: Some((run_at, attempts)), .. }) => {
                        JobRecoveryResult::Reschedule { run_at, attempts }
                    }
                    // Also GW_DECIDE_RESCHEDULE without a call of `gw_decision_set_run_at`.
                    (other, _) => {
                        no_decision(name, other);
                        JobRecoveryResult::Default
                    }
                }
            })
        }
        _ => unreachable!("{name} was looked up before"),
    }
}

fn item(item: &CronItem) -> Json {
    json!({ "identifier": item.identifier, "task": item.task_identifier })
}

fn shutdown(reason: ShutdownReason) -> &'static str {
    match reason {
        ShutdownReason::Signal => "signal",
        ShutdownReason::Error => "error",
        ShutdownReason::Graceful => "graceful",
    }
}

fn mode(mode: LocalQueueMode) -> &'static str {
    match mode {
        LocalQueueMode::Starting => "starting",
        LocalQueueMode::Polling => "polling",
        LocalQueueMode::Waiting => "waiting",
        LocalQueueMode::TtlExpired => "ttl_expired",
        LocalQueueMode::Released => "released",
    }
}

/// Observes an event by its name: one of `gw_event_name_at` that cannot be intercepted. Only before the start.
///
/// `handler` is called on a thread for events, one event after the other. For `WorkerInit` and `JobStart`, it is called
/// on the thread where they happen. If `handler` is NULL, the event waits for `gw_worker_next_event`. At most 1024
/// events wait; an event `EventsDropped` reports how many were dropped.
///
/// `free_fn(user_data)` is called once, as soon as the library no longer needs the function, also if this call fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_on_event(
    worker: *mut gw_worker_t,
    name: *const c_char,
    handler: gw_event_fn,
    user_data: *mut c_void,
    free_fn: gw_free_fn,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    call(err, || {
        let user_data = UserData { pointer: user_data, free: free_fn };
        // SAFETY: see "Rules" in the header.
        let name = unsafe { text::required("name", name) }?;
        let name =
            find(&OBSERVED, &DECIDED, "cannot be observed; register an interceptor with gw_worker_intercept", name)?;
        worker::add_hook(worker, |queue| {
            let queue = queue.clone();
            let does: Arc<dyn Fn(EventValue) + Send + Sync> = match handler {
                None => Arc::new(move |event| queue.push(event)),
                Some(function) => Arc::new(move |event| {
                    let user_data = &user_data;
                    let event: *mut gw_event_t = give(EventValue { borrowed: true, ..event });
                    // SAFETY: the caller passed function and `user_data` together; the event is lent until it returns.
                    inside(|| unsafe { function(event, user_data.pointer) });
                    let _ = handle::free::<EventValue, _>(event);
                }),
            };
            Ok(Hook { name, does: Does::Observe(does) })
        })
    })
}

/// Registers an interceptor for one of these events. Only before the start.
///
/// - `BeforeJobRun` and `AfterJobRun`: continue, skip, fail.
/// - `BeforeJobSchedule`: continue, skip, fail, payload. Called for jobs that are added through this worker's client.
/// - `JobRecovery`: continue, skip, reschedule, fail with backoff.
///
/// `decide` is called on the thread where the event happens, which waits for it. Interceptors of one event are called
/// in the order of their registration. `free_fn(user_data)` is called once, as soon as the library no longer needs the
/// function, also if this call fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_intercept(
    worker: *mut gw_worker_t,
    name: *const c_char,
    decide: gw_decide_fn,
    user_data: *mut c_void,
    free_fn: gw_free_fn,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    call(err, || {
        let user_data = UserData { pointer: user_data, free: free_fn };
        // SAFETY: see "Rules" in the header.
        let name = unsafe { text::required("name", name) }?;
        let name =
            find(&DECIDED, &OBSERVED, "cannot be intercepted; register an observer with gw_worker_on_event", name)?;
        let function = decide.ok_or_else(|| Failure::invalid("decide: is NULL"))?;
        worker::add_hook(worker, |_| Ok(Hook { name, does: Does::Decide(Arc::new(Decide { function, user_data })) }))
    })
}

/// Sets the text of a decision: for GW_DECIDE_FAIL the reason, for GW_DECIDE_PAYLOAD the JSON. The text is copied.
/// `len` is in bytes and may be GW_NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_decision_set_text(
    decision: *mut gw_decision_t,
    text: *const c_char,
    len: usize,
) -> gw_status_t {
    status_of(|| {
        // SAFETY: see "Rules" in the header.
        let said = unsafe { text::sized("text", text, len) }?.to_owned();
        handle::look::<DecisionValue, _>(decision)?.0.lock().text = said;
        Ok(())
    })
}

/// For GW_DECIDE_RESCHEDULE: sets the time at which the job runs again, in microseconds since 1970, and its number of
/// used attempts. `attempts` below 0 leaves them unchanged. GW_ERR_CONFIG for a time outside the years 1 to 9999, or
/// attempts above 32767.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_decision_set_run_at(
    decision: *mut gw_decision_t,
    unix_us: i64,
    attempts: i32,
) -> gw_status_t {
    status_of(|| {
        let attempts = match attempts {
            ..0 => None,
            _ => Some(
                i16::try_from(attempts).map_err(|_| Failure::config(format!("attempts: {attempts} is above 32767")))?,
            ),
        };
        let run_at = super::spec::time("run_at", unix_us)?;
        handle::look::<DecisionValue, _>(decision)?.0.lock().run_at = Some((run_at, attempts));
        Ok(())
    })
}

/// The name of the event at `index`, from 0; NULL after the last. The last four names are those that can be
/// intercepted. Static text.
#[unsafe(no_mangle)]
pub extern "C" fn gw_event_name_at(index: usize) -> *const c_char {
    OBSERVED.iter().chain(&DECIDED).nth(index).map_or(ptr::null(), |name| name.as_ptr())
}

/// Writes the next event to `event`, of those registered without a handler. GW_OK, or GW_TIMEOUT after `timeout_ms`, or
/// GW_STOPPED if the worker has ended and all its events were delivered. GW_ERR_DEADLOCK if called with a timeout
/// within a function that the library calls. The caller frees the event with `gw_event_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_next_event(
    worker: *mut gw_worker_t,
    timeout_ms: i64,
    event: *mut *mut gw_event_t,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    call(err, || {
        let queue = worker::events(worker)?;
        give_next(&queue, timeout_ms, event)
    })
}

/// Writes the next event of a queue to `event`.
pub(super) fn give_next(
    queue: &EventQueue,
    timeout_ms: i64,
    event: *mut *mut gw_event_t,
) -> Result<gw_status_t, Failure> {
    wanted("event", event)?;
    match queue.next(timeout_ms)? {
        Err(status) => Ok(status),
        Ok(found) => {
            // SAFETY: `event` is not NULL; see "Rules" in the header.
            unsafe { put(event, handle::try_give(found)?) };
            Ok(GW_OK)
        }
    }
}

/// A file descriptor to poll for reading. It is readable while `gw_worker_next_event` with a timeout of 0 would return
/// anything but GW_TIMEOUT. The rules are those of `gw_worker_fd`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_event_fd(worker: *const gw_worker_t) -> i32 {
    read(-1, || Ok(worker::events(worker)?.wakeup.fd()))
}

/// The event's name: `"JobComplete"`. Static text. NULL on a bad handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_event_name(event: *const gw_event_t) -> *const c_char {
    read(ptr::null(), || Ok(handle::look::<EventValue, _>(event)?.name.as_ptr()))
}

/// The event's fields as a JSON object. Valid until the event is freed. NULL on a bad handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_event_json(event: *const gw_event_t) -> *const c_char {
    read(ptr::null(), || Ok(handle::look::<EventValue, _>(event)?.json.as_ptr()))
}

/// The id of the event's job; 0 if the event is not about a job.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_event_job_id(event: *const gw_event_t) -> i64 {
    read(0, || Ok(handle::look::<EventValue, _>(event)?.job_id))
}

/// Frees an event. NULL and borrowed events do nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_event_free(event: *mut gw_event_t) {
    read((), || {
        let borrowed = handle::look::<EventValue, _>(event)?.borrowed;
        if borrowed { Ok(()) } else { handle::free::<EventValue, _>(event) }
    });
}
