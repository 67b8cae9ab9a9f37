//! gw-run-N: runs handlers, one job at a time. Never touches the database.

use super::{Shared, raise};
use crate::claim::{ActiveJob, Failure, Outcome};
use crate::hooks::panic_text;
use crate::retry::RetryPolicy;
use crate::task::{Surroundings, Task, WorkerContext};
use crossbeam_channel::select;
use log::warn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long a job that is to run alone holds the others up before it makes room for them.
const ALONE_PATIENCE: Duration = Duration::from_secs(30);

const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// When it tries again.
const ALONE_AGAIN: Duration = Duration::from_secs(60);

/// Runs jobs until a stop. `place` is this thread's number.
pub(crate) fn run(shared: &Shared, around: &Arc<Surroundings>, place: usize) {
    while let Some(active) = next(shared) {
        shared.pass_gate();
        if shared.stop.is_triggered() {
            active.give_back(None);
        } else if active.claim.alone {
            run_alone(shared, around, place, &active);
        } else if shared.others.is_closed() {
            active.give_back(None);
        } else if active.start() {
            work(shared, around, place, &active);
        }
        shared.ledger.returned(&active);
        shared.others.pass();
    }
}

/// Runs a job that may be what kills its workers, once this worker holds nothing else: who dies with it
/// then is known. The others go back, for other workers to run.
fn run_alone(shared: &Shared, around: &Arc<Surroundings>, place: usize, active: &Arc<ActiveJob>) {
    if !shared.others.close() {
        // Another one is to run alone; this one is claimed again after it.
        active.give_back(None);
        return;
    }
    let job = active.job();
    let patience_ends = Instant::now() + ALONE_PATIENCE;
    let alone = loop {
        shared.take_back();
        if is_alone(shared) {
            break true;
        }
        if shared.stop.wait_timeout(LOOK_AGAIN) || Instant::now() >= patience_ends {
            break false;
        }
    };
    if shared.stop.is_triggered() {
        active.give_back(None);
    } else if !alone {
        warn!(worker_id = shared.worker_id.as_str(), job_id = job.id, task = &*job.task_identifier, attempt = job.attempts;
            "a job that was recovered often did not come to run alone, because others take long; it waits a minute");
        active.give_back(Some(ALONE_AGAIN));
    } else if active.start() {
        work(shared, around, place, active);
    }
    shared.others.open();
    raise(&shared.wires.freed);
}

/// Whether one job is all that this worker holds, and no claim may bring more.
fn is_alone(shared: &Shared) -> bool {
    let no_claim_in_flight = shared.claiming.try_write().is_some();
    no_claim_in_flight && shared.ledger.len() == 1
}

/// The next job; asks dispatch for more when few are left. `None` at a stop.
fn next(shared: &Shared) -> Option<Arc<ActiveJob>> {
    let jobs = &shared.wires.jobs.1;
    shared.idle.fetch_add(1, Ordering::AcqRel);
    let job = jobs.try_recv().ok().or_else(|| {
        raise(&shared.wires.low);
        select! {
            recv(jobs) -> job => job.ok(),
            recv(shared.stop.receiver()) -> _ => None,
        }
    });
    shared.idle.fetch_sub(1, Ordering::AcqRel);
    shared.taken.fetch_add(1, Ordering::Relaxed);
    if jobs.len() <= shared.low_water.load(Ordering::Relaxed) {
        raise(&shared.wires.low);
    }
    job
}

fn work(shared: &Shared, around: &Arc<Surroundings>, place: usize, active: &Arc<ActiveJob>) {
    let task = &shared.tasks[active.claim.task];
    let start = Instant::now();
    *shared.now_running[place].lock() = Some(active.clone());
    let context = WorkerContext::new(active.clone(), around.clone());
    let result = shared.events.hooks.around(&active.claim.job, &shared.worker_id, || {
        catch_unwind(AssertUnwindSafe(|| (task.handler)(context)))
            .unwrap_or_else(|panic| Err(format!("the handler panicked: {}", panic_text(panic))))
    });
    *shared.now_running[place].lock() = None;
    let took = start.elapsed();
    task.pace.took(took);
    shared.stats.handler_times.note(took.as_micros() as u64);
    active.finish(match result {
        Ok(()) => active.take_snooze().map_or(Outcome::Done, Outcome::Snoozed),
        Err(text) if active.is_timed_out() => failed(task, active, format!("timed out: {text}")),
        // It was asked to end early, and did: the attempt does not count.
        Err(_) if active.is_cancelled() => Outcome::GivenBack(Some(shared.config.interrupted_delay)),
        Err(text) => failed(task, active, text),
    });
}

/// A failed attempt, with the delay that the task's policy gives it.
fn failed(task: &Task, active: &ActiveJob, text: String) -> Outcome {
    let attempt = active.job().attempts.max(1).unsigned_abs().into();
    let ask = |policy: &RetryPolicy| catch_unwind(AssertUnwindSafe(|| policy.delay(attempt, &text)));
    let delay = task.backoff.as_ref().map(ask).and_then(|answer| answer.map_err(std::mem::forget).ok());
    Outcome::Failed(Failure { delay, rest: active.take_rest(), text })
}
