//! gw-watch: cancels handlers that run longer than their task's timeout, and reports those that ignore it. Runs only if
//! a task has a timeout. Knows neither database nor channels of jobs.

use super::Shared;
use crate::engine::stats::add;
use crate::hooks::{JobTimeout, JobTimeoutContext};
use crate::job::active::ActiveJob;
use log::{error, warn};
use std::time::{Duration, Instant};

/// A timeout is noticed no later than this after it is over.
const LATENESS: Duration = Duration::from_millis(5);

/// Watches until no handler can run any more.
pub(crate) fn watch(shared: &Shared) {
    let Some(shortest) = shared.tasks.iter().filter_map(|task| task.timeout).min() else { return };
    loop {
        let now = Instant::now();
        // A job that starts just after this look is not late before this moment.
        let mut next = now + shortest;
        for active in shared.slots.jobs() {
            let Some(due) = look(shared, &active, now) else { continue };
            next = next.min(due);
        }
        if shared.stop.drained.wait_timeout(next.saturating_duration_since(now).max(LATENESS)) {
            return;
        }
    }
}

/// Does what is due for one running job. Returns when to look at it again; `None` if that is not needed.
fn look(shared: &Shared, active: &ActiveJob, now: Instant) -> Option<Instant> {
    let timeout = shared.tasks[active.claim.task].timeout?;
    let (started, thread) = active.started()?;
    let late = started + timeout;
    if now < late {
        return Some(late);
    }
    let (job, worker_id) = (active.job(), shared.worker_id.as_str());
    let send_event = |stuck| {
        shared.events.send(JobTimeout, || JobTimeoutContext {
            job: active.claim.job.clone(),
            worker_id: shared.worker_id.clone(),
            thread: thread.to_owned(),
            timeout,
            stuck,
        });
    };
    if active.time_out() {
        add(&shared.stats.timed_out, 1);
        warn!(worker_id, job_id = job.id, task = &*job.task_identifier, attempt = job.attempts, thread,
            timeout_ms = timeout.as_millis() as u64; "job timed out, its handler is asked to end");
        send_event(false);
    }
    let too_late = late + shared.config.grace_period;
    if now < too_late {
        return Some(too_late);
    }
    if active.report_stuck() {
        add(&shared.stats.stuck, 1);
        error!(worker_id, job_id = job.id, task = &*job.task_identifier, attempt = job.attempts, thread,
            seconds = started.elapsed().as_secs();
            "a handler ignores its timeout; its thread runs no other job, and its job stays locked by this worker while this process lives");
        send_event(true);
    }
    None
}
