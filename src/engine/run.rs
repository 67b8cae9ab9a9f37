//! gw-run-N: runs handlers, one job at a time. Never touches the database.

use super::Shared;
use super::slot::Slot;
use crate::hooks::panic_text;
use crate::job::active::ActiveJob;
use crate::tasks::{Runner, WorkerEnv};
use log::{error, warn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long an exclusive job may block the others before it gives way to them.
const ALONE_TIMEOUT: Duration = Duration::from_secs(30);

const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How long an exclusive job waits before it is available again, if it could not run.
const ALONE_AGAIN: Duration = Duration::from_secs(60);

/// Runs jobs until a stop.
pub(crate) fn run(shared: &Arc<Shared>, env: &Arc<WorkerEnv>) {
    // The next job of a series runs on the thread of the one before it.
    let mut next = None;
    while let Some(number) = take_slot(shared, &mut next) {
        let Some(active) = next.take().or_else(|| shared.held.take(&shared.stop.begun)) else {
            shared.free_slot(number);
            return;
        };
        shared.gates.pass_doubt();
        let starts = if shared.stop.begun.is_triggered() {
            active.give_back(None);
            false
        } else if active.claim.alone {
            may_run_alone(shared, &active)
        } else if shared.gates.exclusive.is_closed() {
            active.give_back(None);
            false
        } else {
            active.start()
        };
        if starts {
            next = work(env, &Slot::take(shared, &active, number));
        } else {
            shared.leave(&active);
            shared.free_slot(number);
        }
        // A thread with a next job gives it back instead, because the exclusive job waits for that.
        if next.is_none() {
            shared.gates.exclusive.pass();
        }
    }
}

/// A free slot; waits for one. `None` at a stop. If this thread has the next job of a series and no slot is free, all
/// threads may take the job.
fn take_slot(shared: &Shared, next: &mut Option<Arc<ActiveJob>>) -> Option<usize> {
    let free = shared.slots.try_take();
    if free.is_none() {
        next.take().into_iter().for_each(|active| shared.held.put(active));
    }
    free.or_else(|| shared.slots.take(&shared.stop.begun))
}

/// Starts an exclusive job once this worker holds no other one. If the worker then dies, this job is the cause. The
/// other jobs go back, for other workers to run. Returns whether the job was started; if so, other jobs wait until its
/// slot is free.
pub(crate) fn may_run_alone(shared: &Shared, active: &Arc<ActiveJob>) -> bool {
    if !shared.gates.exclusive.close() {
        // Another exclusive job is first; this one is claimed again after it.
        active.give_back(None);
        return false;
    }
    let job = active.job();
    let deadline = Instant::now() + ALONE_TIMEOUT;
    let alone = loop {
        shared.take_back();
        // The job may have waited for long, so check again whether it is still this worker's.
        if is_alone(shared) && !shared.gates.are_in_doubt() {
            break true;
        }
        if shared.stop.begun.wait_timeout(LOOK_AGAIN) || Instant::now() >= deadline {
            break false;
        }
    };
    if shared.stop.begun.is_triggered() {
        active.give_back(None);
    } else if !alone {
        warn!(worker_id = shared.worker_id.as_str(), job_id = job.id, task = &*job.task_identifier, attempt = job.attempts;
            "a job that was recovered often could not run alone, because other jobs take long; it waits a minute");
        active.give_back(Some(ALONE_AGAIN));
    } else if active.start() {
        return true;
    }
    shared.let_others_run();
    false
}

/// Whether this worker holds one job only, and no claim in flight may return more.
fn is_alone(shared: &Shared) -> bool {
    !shared.gates.has_claim_in_flight() && shared.ledger.len() == 1
}

/// Passes the job to its task. The task may end the job later and on another thread; this thread is then free for the
/// next job. Returns the next job of the series for this thread, whose slot is free then.
fn work(env: &Arc<WorkerEnv>, slot: &Arc<Slot>) -> Option<Arc<ActiveJob>> {
    let start = Instant::now();
    let started = slot.hand_out(env);
    match (&slot.task().runner, started) {
        (_, None) => {}
        (Runner::Call(handler), Some(started)) => {
            let context = started.context().clone();
            let result = catch_unwind(AssertUnwindSafe(|| handler(context)));
            started.finish(result.unwrap_or_else(|panic| Err(format!("the handler panicked: {}", panic_text(panic)))));
        }
        (Runner::Give(handler), Some(started)) => {
            // Unwinding drops the job, which fails it.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| handler(started))) {
                error!(task = slot.task().name.as_str(), error = panic_text(panic).as_str(); "a task panicked");
            }
            slot.leave_to_others();
        }
        (Runner::Pull, Some(_)) => unreachable!("no thread runs where jobs are pulled"),
    }
    slot.task().pace.took(start.elapsed());
    matches!(slot.task().runner, Runner::Call(_)).then(|| slot.next()).flatten()
}
