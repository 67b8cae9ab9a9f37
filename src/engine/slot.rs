//! The slot of a running job. A worker has `concurrency` slots. A job takes one at its start and frees it when its
//! handler has dropped the job. Ends the job; knows nothing of threads and of the database.

use super::{Shared, signal};
use crate::config::retry::RetryPolicy;
use crate::job::active::{ActiveJob, Failure, Outcome};
use crate::shutdown::ShutdownSignal;
use crate::tasks::{Runner, StartedJob, Task, WorkerContext, WorkerEnv};
use crossbeam_channel::{Receiver, Sender, at, bounded, select};
use parking_lot::Mutex;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One of `concurrency` slots. Dropping the last reference to it frees the slot.
pub(crate) struct Slot {
    shared: Arc<Shared>,
    active: Arc<ActiveJob>,
    number: usize,
    start: Instant,
}

impl Slot {
    /// Puts a job that was just started into a free slot.
    pub(crate) fn take(shared: &Arc<Shared>, active: &Arc<ActiveJob>, number: usize) -> Arc<Self> {
        shared.slots.set(number, Some(active.clone()));
        Arc::new(Self { shared: shared.clone(), active: active.clone(), number, start: Instant::now() })
    }

    /// The job for the handler or the host that ends it; `None` if an interceptor has already decided its outcome.
    pub(crate) fn hand_out(self: &Arc<Self>, env: &Arc<WorkerEnv>) -> Option<StartedJob> {
        let shared = &self.shared;
        match shared.events.hooks.before_run(&self.active.claim.job, &shared.worker_id) {
            Some(decided) => {
                self.conclude(decided);
                None
            }
            None => {
                let (context, slot) = (WorkerContext::new(self.active.clone(), env.clone()), self.clone());
                Some(StartedJob::new(context, move |result| slot.end(result)))
            }
        }
    }

    /// The next job of this job's series, if it may run now. If it is not taken here, any thread gets it.
    pub(crate) fn next(&self) -> Option<Arc<ActiveJob>> {
        self.active.claim.series.as_ref()?.take_next()
    }

    /// Notes that the thread is free again, whether the job has ended or not.
    pub(crate) fn leave_to_others(&self) {
        self.active.leave_to_others();
    }

    pub(crate) fn task(&self) -> &Task {
        &self.shared.tasks[self.active.claim.task]
    }

    /// Ends the job as the interceptors decide. Returns false if the job already has an outcome, or was lost.
    fn end(&self, result: Result<(), String>) -> bool {
        let (hooks, job) = (&self.shared.events.hooks, &self.active.claim.job);
        self.conclude(hooks.after_run(job, &self.shared.worker_id, result, self.start.elapsed()))
    }

    /// Gives the job its outcome, from the handler's result and from what the handler requested meanwhile.
    fn conclude(&self, result: Result<(), String>) -> bool {
        let (shared, active) = (&self.shared, &self.active);
        shared.stats.handler_times.note(self.start.elapsed().as_micros() as u64);
        active.finish(match result {
            Ok(()) => active.take_snooze().map_or(Outcome::Done, Outcome::Snoozed),
            Err(text) if active.is_timed_out() => self.failed(format!("timed out: {text}")),
            // The handler was asked to end early, and did. The attempt does not count.
            Err(_) if active.is_cancelled() => Outcome::GivenBack(Some(shared.config.interrupted_delay)),
            Err(text) => self.failed(text),
        })
    }

    /// A failed attempt. Its delay is the one that the handler requested, else the one of the task's retry policy.
    fn failed(&self, text: String) -> Outcome {
        let active = &self.active;
        let attempt = active.job().attempts.max(1).unsigned_abs().into();
        let ask = |policy: &RetryPolicy| catch_unwind(AssertUnwindSafe(|| policy.delay(attempt, &text)));
        let policy = || self.task().backoff.as_ref().map(ask).and_then(|answer| answer.map_err(std::mem::forget).ok());
        let (delay, rest) = (active.take_delay().or_else(policy), active.take_rest());
        Outcome::Failed(Failure { text, delay, rest, for_good: false })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let shared = &self.shared;
        shared.slots.set(self.number, None);
        if let Some(next) = self.next() {
            shared.held.put(next);
        }
        if matches!(self.task().runner, Runner::Pull) {
            self.task().pace.took(self.start.elapsed());
        }
        shared.leave(&self.active);
        shared.free_slot(self.number);
        if self.active.claim.alone {
            shared.let_others_run();
        }
    }
}

/// All slots of one worker.
pub(crate) struct Slots {
    /// The numbers of the free ones.
    free: (Sender<usize>, Receiver<usize>),
    /// Signals that a slot became free during a stop.
    freed: (Sender<()>, Receiver<()>),
    /// The job in each slot, by the slot's number.
    jobs: Vec<Mutex<Option<Arc<ActiveJob>>>>,
}

/// How a wait for all slots ended.
#[derive(PartialEq, Eq)]
pub(crate) enum Waited {
    AllFree,
    TimeIsUp,
    Cancelled,
}

impl Slots {
    pub(crate) fn new(concurrency: usize) -> Self {
        let free = bounded(concurrency);
        (0..concurrency).for_each(|number| free.0.send(number).expect("room for all"));
        Self { free, freed: bounded(1), jobs: (0..concurrency).map(|_| Mutex::new(None)).collect() }
    }

    /// A free slot; waits for one. `None` at a stop.
    pub(crate) fn take(&self, stop: &ShutdownSignal) -> Option<usize> {
        self.try_take().or_else(|| {
            select! {
                recv(self.free.1) -> number => number.ok(),
                recv(stop.receiver()) -> _ => None,
            }
        })
    }

    /// A free slot, if there is one.
    pub(crate) fn try_take(&self) -> Option<usize> {
        self.free.1.try_recv().ok()
    }

    /// Frees a slot, which holds no job any more.
    pub(crate) fn free(&self, number: usize, stop: &ShutdownSignal) {
        let _ = self.free.0.send(number);
        if stop.is_triggered() {
            signal(&self.freed.0);
        }
    }

    /// How many slots are free.
    pub(crate) fn count_free(&self) -> usize {
        self.free.1.len()
    }

    pub(crate) fn are_all_free(&self) -> bool {
        self.free.1.is_full()
    }

    /// Waits until all slots are free.
    pub(crate) fn wait_until_free(&self, deadline: Instant, cancel: &ShutdownSignal) -> Waited {
        while !self.are_all_free() {
            select! {
                recv(self.freed.1) -> _ => {}
                recv(cancel.receiver()) -> _ => return Waited::Cancelled,
                recv(at(deadline)) -> _ => return Waited::TimeIsUp,
            }
        }
        Waited::AllFree
    }

    fn set(&self, number: usize, active: Option<Arc<ActiveJob>>) {
        *self.jobs[number].lock() = active;
    }

    /// The jobs in the slots, including those that ignore their timeout or were lost.
    pub(crate) fn jobs(&self) -> Vec<Arc<ActiveJob>> {
        self.jobs.iter().filter_map(|job| job.lock().clone()).collect()
    }

    /// For how long the oldest handler of this task has been running. Jobs that have freed their thread do not count.
    pub(crate) fn oldest_running(&self, task: usize) -> Duration {
        let age = |job: &Mutex<Option<Arc<ActiveJob>>>| {
            let job = job.lock();
            let active = job.as_ref().filter(|active| active.claim.task == task && !active.is_left_to_others())?;
            active.started().map(|(since, _)| since.elapsed())
        };
        self.jobs.iter().filter_map(age).max().unwrap_or_default()
    }
}
