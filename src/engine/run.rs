//! gw-run-N: runs handlers, one job at a time. Never touches the database.

use super::slot::Slot;
use super::{Shared, raise};
use crate::hooks::panic_text;
use crate::job::active::ActiveJob;
use crate::tasks::{Runner, WorkerEnv};
use crossbeam_channel::select;
use log::{error, warn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long a job that is to run alone holds the others up before it makes room for them.
const ALONE_PATIENCE: Duration = Duration::from_secs(30);

const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How often a thread without a job lets others go first before it sleeps.
const YIELDS: usize = 4;

/// When it tries again.
const ALONE_AGAIN: Duration = Duration::from_secs(60);

/// Runs jobs until a stop.
pub(crate) fn run(shared: &Arc<Shared>, around: &Arc<WorkerEnv>) {
    while let Some(number) = slot(shared) {
        let Some(active) = next(shared) else {
            shared.give_slot(number);
            return;
        };
        shared.pass_gate();
        let starts = if shared.stop.is_triggered() {
            active.give_back(None);
            false
        } else if active.claim.alone {
            may_run_alone(shared, &active)
        } else if shared.others.is_closed() {
            active.give_back(None);
            false
        } else {
            active.start()
        };
        if starts {
            work(around, &Slot::take(shared, &active, number));
        } else {
            shared.leave(&active);
            shared.give_slot(number);
        }
        shared.others.pass();
    }
}

/// Starts a job that may be what kills its workers once this worker holds nothing else: who dies with it then is
/// known. The others go back, for other workers to run. Answers whether it was started; if so, the others are
/// held up until its slot is free.
pub(crate) fn may_run_alone(shared: &Shared, active: &Arc<ActiveJob>) -> bool {
    if !shared.others.close() {
        // Another one is to run alone; this one is claimed again after it.
        active.give_back(None);
        return false;
    }
    let job = active.job();
    let patience_ends = Instant::now() + ALONE_PATIENCE;
    let alone = loop {
        shared.take_back();
        // It may have waited for long: what held before need not hold now.
        if is_alone(shared) && !shared.is_in_doubt() {
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
        return true;
    }
    shared.let_others_run();
    false
}

/// Whether one job is all that this worker holds, and no claim may bring more.
fn is_alone(shared: &Shared) -> bool {
    let no_claim_in_flight = shared.claiming.try_write().is_some();
    no_claim_in_flight && shared.ledger.len() == 1
}

/// A slot for the next job, once one is free. `None` at a stop.
fn slot(shared: &Shared) -> Option<usize> {
    let slots = &shared.channels.slots.1;
    slots.try_recv().ok().or_else(|| {
        select! {
            recv(slots) -> number => number.ok(),
            recv(shared.stop.receiver()) -> _ => None,
        }
    })
}

/// The next job; asks dispatch for more when few are left. `None` at a stop.
fn next(shared: &Shared) -> Option<Arc<ActiveJob>> {
    let jobs = &shared.channels.jobs.1;
    shared.idle.fetch_add(1, Ordering::AcqRel);
    let job = jobs.try_recv().ok().or_else(|| {
        raise(&shared.channels.low);
        // More are often on their way. Others work meanwhile, and sleeping would cost a wake for each job.
        for _ in 0..YIELDS {
            std::thread::yield_now();
            if let Ok(job) = jobs.try_recv() {
                return Some(job);
            }
        }
        select! {
            recv(jobs) -> job => job.ok(),
            recv(shared.stop.receiver()) -> _ => None,
        }
    });
    shared.idle.fetch_sub(1, Ordering::AcqRel);
    shared.note_taken();
    job
}

impl Shared {
    /// A job was taken: that some are is what dispatch wants to see, and it claims more when few are left.
    pub(crate) fn note_taken(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
        if self.channels.jobs.1.len() <= self.low_water.load(Ordering::Relaxed) {
            raise(&self.channels.low);
        }
    }
}

/// Lets the task have the job. It may end it later, and elsewhere; this thread is free for the next one then.
fn work(around: &Arc<WorkerEnv>, slot: &Arc<Slot>) {
    let start = Instant::now();
    let started = slot.hand_out(around);
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
}
