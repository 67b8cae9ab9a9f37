//! Pull mode: the host takes jobs with `next`, which never blocks. A callback fires when a job may be available. Knows
//! nothing of the host.

use super::Shared;
use super::run::may_run_alone;
use super::slot::Slot;
use crate::job::active::ActiveJob;
use crate::tasks::{StartedJob, WorkerContext, WorkerEnv};
use log::warn;
use std::sync::Arc;
use std::thread;

/// What `next` returns.
pub(crate) enum Next {
    /// A job, started.
    Job(StartedJob),
    /// A job that was handed out earlier is cancelled.
    Cancelled(WorkerContext),
    /// No job is available now.
    Nothing,
    /// The worker stops, and every job that was handed out has ended. No more jobs follow.
    Over,
}

/// The source of jobs for one start of a worker.
#[derive(Clone)]
pub(crate) struct JobSource {
    pub(crate) shared: Arc<Shared>,
    pub(crate) env: Arc<WorkerEnv>,
}

impl JobSource {
    /// The next job, or notice of one that is cancelled.
    pub(crate) fn next(&self) -> Next {
        match self.shared.channels.notices.1.try_recv() {
            Ok(context) => Next::Cancelled(context),
            Err(_) => self.next_job(),
        }
    }

    /// Whether a notice of a cancelled job waits to be taken.
    pub(crate) fn has_notices(&self) -> bool {
        !self.shared.channels.notices.1.is_empty()
    }

    /// The next job. At most `concurrency` jobs are handed out at once.
    pub(crate) fn next_job(&self) -> Next {
        let shared = &self.shared;
        if shared.stop.begun.is_triggered() && shared.slots.are_all_free() {
            return Next::Over;
        }
        self.alone().or_else(|| self.job()).map_or(Next::Nothing, Next::Job)
    }

    /// An exclusive job that gw-alone has started.
    fn alone(&self) -> Option<StartedJob> {
        self.shared.channels.alone.1.try_recv().ok()
    }

    fn job(&self) -> Option<StartedJob> {
        let shared = &self.shared;
        while !shared.gates.are_closed() {
            let number = shared.slots.try_take()?;
            let Some(active) = shared.held.try_take() else {
                shared.free_slot(number);
                return None;
            };
            if shared.stop.begun.is_triggered() || shared.gates.exclusive.is_closed() {
                active.give_back(None);
            } else if active.claim.alone {
                self.wait_for_it(active, number);
                continue;
            } else if active.start() {
                match self.put_in_slot(&active, number) {
                    None => continue,
                    started => return started,
                }
            }
            shared.leave(&active);
            shared.free_slot(number);
        }
        None
    }

    /// The job of a slot, for the caller; `None` if an interceptor has already decided its outcome.
    fn put_in_slot(&self, active: &Arc<ActiveJob>, number: usize) -> Option<StartedJob> {
        let started = Slot::take(&self.shared, active, number).hand_out(&self.env)?;
        if self.shared.config.pull.as_ref().is_some_and(|pull| pull.delivers_cancelled) {
            let (shared, weak) = (Arc::downgrade(&self.shared), Arc::downgrade(active));
            let env = self.env.clone();
            active.when_cancelled(move || {
                let (Some(shared), Some(active)) = (shared.upgrade(), weak.upgrade()) else { return };
                let _ = shared.channels.notices.0.send(WorkerContext::new(active, env.clone()));
                shared.notify_puller();
            });
        }
        Some(started)
    }

    /// Starts a job once it is alone. Waits on a helper thread, because `next` must not block. The job keeps its slot
    /// meanwhile, so that a stop waits for it.
    fn wait_for_it(&self, active: Arc<ActiveJob>, number: usize) {
        let source = self.clone();
        let waiting = active.clone();
        let wait = move || {
            let shared = &source.shared;
            if !may_run_alone(shared, &waiting) {
                shared.leave(&waiting);
                return shared.free_slot(number);
            }
            if let Some(started) = source.put_in_slot(&waiting, number) {
                let _ = shared.channels.alone.0.send(started);
                shared.notify_puller();
            }
        };
        if let Err(error) = thread::Builder::new().name("gw-alone".into()).spawn(wait) {
            warn!(worker_id = self.shared.worker_id.as_str(), error:% = error; "cannot start thread gw-alone");
            active.give_back(None);
            self.shared.leave(&active);
            self.shared.free_slot(number);
        }
    }
}
