//! Interceptors: functions of the caller's that decide on an event, and the details of their decisions.

use super::call::{call, status_of};
use super::error::gw_error_t;
use super::event::{EventValue, gw_event_t};
use super::event_names::{DECIDED, OBSERVED, find};
use super::failure::Failure;
use super::handle::{self, KindSlab, Value, give};
use super::inside::inside;
use super::json::{place, reason};
use super::spec::time;
use super::status::gw_status_t;
use super::text;
use super::user_data::{UserData, gw_free_fn};
use super::worker::{self, gw_worker_t};
use crate::{
    AfterJobRun, BeforeJobRun, BeforeJobSchedule, Event, HookRegistry, HookResult, JobKeyMode, JobRecovery,
    JobRecoveryResult, JobScheduleResult,
};
use chrono::{DateTime, Utc};
use log::error;
use parking_lot::Mutex;
use serde_json::json;
use std::ffi::{c_char, c_void};
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

/// The details of an interceptor's decision, borrowed until the interceptor returns.
pub struct gw_decision_t;

/// Decides, on the thread where the event happens. Returns one of GW_DECIDE_...; another number counts as a failure of
/// the interceptor. `event` and `decision` are borrowed.
pub type gw_decide_fn =
    Option<unsafe extern "C" fn(event: *const gw_event_t, decision: *mut gw_decision_t, user_data: *mut c_void) -> i32>;

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
        let decide = Arc::new(Decide { function, user_data });
        worker::add_hook(worker, |_| Arc::new(move |hooks: &mut HookRegistry| intercept(hooks, name, decide.clone())))
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
        let text = unsafe { text::sized("text", text, len) }?.to_owned();
        handle::look::<DecisionValue, _>(decision)?.0.lock().text = text;
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
        let run_at = time("run_at", unix_us)?;
        handle::look::<DecisionValue, _>(decision)?.0.lock().run_at = Some((run_at, attempts));
        Ok(())
    })
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

struct Decide {
    function: unsafe extern "C" fn(*const gw_event_t, *mut gw_decision_t, *mut c_void) -> i32,
    user_data: UserData,
}

impl Decide {
    /// Calls the interceptor. Returns its code, and the details that it set.
    fn ask(&self, event: EventValue) -> (i32, Decision) {
        let event: *mut gw_event_t = give(event.lent());
        let decision: *mut gw_decision_t = give(DecisionValue::default());
        // SAFETY: the caller passed function and `user_data` together; both handles are lent until it returns.
        let code = inside(|| unsafe { (self.function)(event, decision, self.user_data.pointer) });
        let details = handle::look::<DecisionValue, _>(decision).map(|value| std::mem::take(&mut *value.0.lock()));
        let _ = handle::free::<EventValue, _>(event);
        let _ = handle::free::<DecisionValue, _>(decision);
        (code, details.unwrap_or_default())
    }

    /// The decision of an interceptor of a run; `otherwise` handles a code that is not a decision.
    fn run(&self, event: EventValue, otherwise: impl FnOnce(i32) -> HookResult) -> HookResult {
        match self.ask(event) {
            (GW_DECIDE_CONTINUE, _) => HookResult::Continue,
            (GW_DECIDE_SKIP, _) => HookResult::Skip,
            (GW_DECIDE_FAIL, decision) => HookResult::Fail(decision.text),
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
                    (GW_DECIDE_FAIL, decision) => JobScheduleResult::Fail(decision.text),
                    (GW_DECIDE_PAYLOAD, decision) => match serde_json::from_str(&decision.text) {
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
