//! Values of the library as JSON.

use crate::hooks::FailureReason;
use crate::{Histogram, Job, ListenerState, WorkerStats};
use serde_json::{Value, json, value::RawValue};

/// Where a text is not valid JSON. serde's own message is not used, because it may quote a payload.
pub(super) fn place(error: &serde_json::Error) -> String {
    format!("line {}, column {}", error.line(), error.column())
}

/// A job as it was claimed or added. The payload is parsed; it is null if it is not JSON.
pub(super) fn job(job: &Job) -> Value {
    let payload = String::from_utf8_lossy(job.payload());
    json!({
        "id": job.id(), "task_identifier": job.task_identifier(), "job_queue_id": job.job_queue_id(),
        "payload": serde_json::from_str::<Value>(&payload).unwrap_or(Value::Null), "priority": job.priority(),
        "run_at": job.run_at(), "attempts": job.attempts(), "max_attempts": job.max_attempts(),
        "created_at": job.created_at(), "key": job.key(), "revision": job.revision(), "flags": job.flags(),
    })
}

/// The same as text, with the payload byte for byte.
pub(super) fn job_text(job: &Job) -> String {
    let mut fields = self::job(job);
    let payload = String::from_utf8_lossy(job.payload());
    let raw = serde_json::from_str::<&RawValue>(&payload).map_or("null", RawValue::get);
    fields.as_object_mut().map(|fields| fields.remove("payload"));
    let mut text = fields.to_string();
    text.pop();
    text + ",\"payload\":" + raw + "}"
}

/// All of a worker's statistics.
pub(super) fn stats(stats: &WorkerStats) -> Value {
    let listener = match stats.listener {
        ListenerState::Off => "off",
        ListenerState::Connecting => "connecting",
        ListenerState::Listening => "listening",
        ListenerState::Degraded => "degraded",
    };
    json!({
        "claimed": stats.claimed, "completed": stats.completed, "failed": stats.failed, "retried": stats.retried,
        "permanently_failed": stats.permanently_failed, "returned": stats.returned, "snoozed": stats.snoozed,
        "timed_out": stats.timed_out, "stuck": stats.stuck, "lost": stats.lost, "reconciled": stats.reconciled,
        "database_errors": stats.database_errors, "claims": stats.claims, "settlements": stats.settlements,
        "notifications": stats.notifications, "held": stats.held, "running": stats.running,
        "in_flight": stats.in_flight, "settle_lag_us": stats.settle_lag.as_micros() as u64, "listener": listener,
        "events_dropped": stats.events_dropped, "sessions": stats.sessions,
        "claim_sizes": histogram(&stats.claim_sizes), "settle_sizes": histogram(&stats.settle_sizes),
        "handler_times_us": histogram(&stats.handler_times),
    })
}

fn histogram(values: &Histogram) -> Value {
    json!({
        "count": values.count(), "sum": values.sum(), "max": values.max(),
        "p50": values.quantile(0.5), "p90": values.quantile(0.9), "p99": values.quantile(0.99),
    })
}

pub(super) fn reason(reason: FailureReason) -> &'static str {
    match reason {
        FailureReason::TaskError => "task_error",
        FailureReason::TaskPanic => "task_panic",
        FailureReason::ShutdownAborted => "shutdown_aborted",
        FailureReason::WorkerCrashed => "worker_crashed",
    }
}
