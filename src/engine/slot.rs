//! The slot of a job that runs: one of as many as may run at once, taken from its start until its handler has
//! let go of it. Ends the job; knows nothing of threads and of the database.

use super::{Shared, raise};
use crate::config::retry::RetryPolicy;
use crate::job::active::{ActiveJob, Failure, Outcome};
use crate::tasks::{End, Runner, StartedJob, Task, WorkerContext, WorkerEnv};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// One of `concurrency` slots. Whoever drops the last reference to it frees it.
pub(crate) struct Slot {
    shared: Arc<Shared>,
    active: Arc<ActiveJob>,
    number: usize,
    start: Instant,
}

impl Slot {
    /// Seats a job that was just started.
    pub(crate) fn take(shared: &Arc<Shared>, active: &Arc<ActiveJob>, number: usize) -> Arc<Self> {
        *shared.now_running[number].lock() = Some(active.clone());
        Arc::new(Self { shared: shared.clone(), active: active.clone(), number, start: Instant::now() })
    }

    /// The job for whoever is to end it, or `None` if an interceptor has decided over it already.
    pub(crate) fn hand_out(self: &Arc<Self>, around: &Arc<WorkerEnv>) -> Option<StartedJob> {
        let shared = &self.shared;
        match shared.events.hooks.before_run(&self.active.claim.job, &shared.worker_id) {
            Some(decided) => {
                self.conclude(decided);
                None
            }
            None => Some(StartedJob::new(WorkerContext::new(self.active.clone(), around.clone()), self.clone())),
        }
    }

    /// The thread is free again, whether the job has ended or not.
    pub(crate) fn leave_to_others(&self) {
        self.active.leave_to_others();
    }

    pub(crate) fn task(&self) -> &Task {
        &self.shared.tasks[self.active.claim.task]
    }

    /// Gives the job its outcome: what was said of it, and what else was asked for meanwhile.
    fn conclude(&self, result: Result<(), String>) -> bool {
        let (shared, active) = (&self.shared, &self.active);
        shared.stats.handler_times.note(self.start.elapsed().as_micros() as u64);
        active.finish(match result {
            Ok(()) => active.take_snooze().map_or(Outcome::Done, Outcome::Snoozed),
            Err(text) if active.is_timed_out() => self.failed(format!("timed out: {text}")),
            // It was asked to end early, and did: the attempt does not count.
            Err(_) if active.is_cancelled() => Outcome::GivenBack(Some(shared.config.interrupted_delay)),
            Err(text) => self.failed(text),
        })
    }

    /// A failed attempt, with the delay that was asked for, or that the task's policy gives it.
    fn failed(&self, text: String) -> Outcome {
        let active = &self.active;
        let attempt = active.job().attempts.max(1).unsigned_abs().into();
        let ask = |policy: &RetryPolicy| catch_unwind(AssertUnwindSafe(|| policy.delay(attempt, &text)));
        let policy = || self.task().backoff.as_ref().map(ask).and_then(|answer| answer.map_err(std::mem::forget).ok());
        let (delay, rest) = (active.take_delay().or_else(policy), active.take_rest());
        Outcome::Failed(Failure { text, delay, rest, for_good: false })
    }
}

impl End for Slot {
    fn with(&self, result: Result<(), String>) -> bool {
        let (hooks, job) = (&self.shared.events.hooks, &self.active.claim.job);
        self.conclude(hooks.after_run(job, &self.shared.worker_id, result, self.start.elapsed()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let shared = &self.shared;
        *shared.now_running[self.number].lock() = None;
        if matches!(self.task().runner, Runner::Pull) {
            self.task().pace.took(self.start.elapsed());
        }
        shared.leave(&self.active);
        shared.give_slot(self.number);
        if self.active.claim.alone {
            shared.let_others_run();
        }
    }
}

impl Shared {
    /// No handler has the job any more, or none ever had it.
    pub(crate) fn leave(&self, active: &Arc<ActiveJob>) {
        if self.ledger.returned(active) {
            // Settled while a handler still had it: this, and not settling, may have been the last thing that
            // a run until empty waits for.
            raise(&self.channels.low);
        }
    }

    /// A slot is free. Somebody who came for a job while there was none looks again.
    pub(crate) fn give_slot(&self, number: usize) {
        let _ = self.channels.slots.0.send(number);
        if self.stop.is_triggered() {
            raise(&self.channels.slot_freed);
            self.notify_puller();
        } else if !self.channels.jobs.1.is_empty() {
            self.notify_puller();
        } else if self.config.pull.is_some() {
            // No thread waits for a job here, and says so: dispatch, which counts free slots, may have looked
            // while this one was taken.
            raise(&self.channels.low);
        }
    }

    /// The job that had to run alone is over.
    pub(crate) fn let_others_run(&self) {
        self.others.open();
        raise(&self.channels.freed);
        self.notify_puller();
    }

    /// How many jobs could start at once, if they were there.
    pub(crate) fn idle(&self) -> usize {
        match self.config.pull {
            Some(_) => self.channels.slots.1.len(),
            None => self.idle.load(Ordering::Acquire),
        }
    }

    /// Tells those who come for jobs that there may be one now, or that there will be none.
    pub(crate) fn notify_puller(&self) {
        if let Some(pull) = &self.config.pull {
            (pull.notify)();
        }
    }
}
