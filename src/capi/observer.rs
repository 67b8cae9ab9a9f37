//! Observers of events: each event of a worker with its JSON, passed to a function of the caller's or to the queue.

use super::call::call;
use super::error::gw_error_t;
use super::event::{EventValue, gw_event_t};
use super::event_names::{DECIDED, OBSERVED, find};
use super::handle::{self, give};
use super::inside::inside;
use super::json::reason;
use super::status::gw_status_t;
use super::text;
use super::user_data::{UserData, gw_free_fn};
use super::worker::{self, gw_worker_t};
use crate::{
    CronItem, CronJobScheduled, CronTick, HookRegistry, JobComplete, JobFail, JobFetch, JobInterrupted, JobLost,
    JobPermanentlyFail, JobStart, JobTimeout, LocalQueueGetJobsComplete, LocalQueueInit, LocalQueueMode,
    LocalQueueRefetchDelayAbort, LocalQueueRefetchDelayExpired, LocalQueueRefetchDelayStart, LocalQueueReturnJobs,
    LocalQueueSetMode, ShutdownReason, WorkerInit, WorkerRecovered, WorkerShutdown, WorkerStart,
};
use serde_json::{Value as Json, json};
use std::ffi::{c_char, c_void};
use std::sync::Arc;

/// Observes an event, on a thread of the library. Events wait while it runs, so it should be quick. `event` is
/// borrowed.
pub type gw_event_fn = Option<unsafe extern "C" fn(event: *const gw_event_t, user_data: *mut c_void)>;

/// Receives the events of an observer.
type SendEvent = Arc<dyn Fn(EventValue) + Send + Sync>;

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
            let send: SendEvent = match handler {
                None => Arc::new(move |event| queue.push(event)),
                Some(function) => Arc::new(move |event| {
                    let user_data = &user_data;
                    let event: *mut gw_event_t = give(event.lent());
                    // SAFETY: the caller passed function and `user_data` together; the event is lent until it returns.
                    inside(|| unsafe { function(event, user_data.pointer) });
                    let _ = handle::free::<EventValue, _>(event);
                }),
            };
            Arc::new(move |hooks: &mut HookRegistry| observe(hooks, name, send.clone()))
        })
    })
}

/// Registers an observer. The event's JSON has the fields of its Rust context.
fn observe(hooks: &mut HookRegistry, name: &'static str, send: SendEvent) {
    /// Calls `send` with the event's name, job, JSON fields and worker.
    macro_rules! on {
        ($event:ident, $name:literal, $c:ident => $job:expr, $worker:expr, $fields:expr) => {{
            hooks.on($event, move |$c| send(EventValue::new($name, $job, $fields, $worker)));
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
