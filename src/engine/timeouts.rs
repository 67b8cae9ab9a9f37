//! gw-watch: cancels handlers that take longer than their task may, and reports those that go on all the same.
//! Runs only where a task has a timeout. Knows neither database nor channels of jobs.

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
        // A job that starts just after our look is not late before this.
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

/// Does what is due for one running job; answers when to look again.
fn look(shared: &Shared, active: &ActiveJob, now: Instant) -> Option<Instant> {
    let timeout = shared.tasks[active.claim.task].timeout?;
    let (started, thread) = active.started()?;
    let late = started + timeout;
    if now < late {
        return Some(late);
    }
    let (job, worker_id) = (active.job(), shared.worker_id.as_str());
    let tell = |stuck| {
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
        tell(false);
    }
    let too_late = late + shared.config.grace_period;
    if now < too_late {
        return Some(too_late);
    }
    if active.report_wedged() {
        add(&shared.stats.stuck, 1);
        error!(worker_id, job_id = job.id, task = &*job.task_identifier, attempt = job.attempts, thread,
            seconds = started.elapsed().as_secs();
            "a handler ignores its timeout; its thread is lost to other jobs, and its job stays ours while this process lives");
        tell(true);
    }
    None
}
