//! Sends observers the events of a local queue of fixed size: its mode, and the jobs that it fetches and gives back.
//! Decides nothing; sends nothing if no such queue is configured.

use super::Shared;
use crate::hooks::{
    LocalQueueGetJobsComplete, LocalQueueGetJobsCompleteContext, LocalQueueInit, LocalQueueInitContext, LocalQueueMode,
    LocalQueueRefetchDelayAbort, LocalQueueRefetchDelayAbortContext, LocalQueueRefetchDelayExpired,
    LocalQueueRefetchDelayExpiredContext, LocalQueueRefetchDelayStart, LocalQueueRefetchDelayStartContext,
    LocalQueueReturnJobs, LocalQueueReturnJobsContext, LocalQueueSetMode, LocalQueueSetModeContext, Observed,
};
use std::time::Duration;

/// A change of the pause after a claim that returned few jobs.
pub(crate) enum Pause {
    Begins {
        duration: Duration,
        threshold: usize,
        abort_after: Option<u64>,
    },
    /// Enough notifications arrived to end the pause early.
    Aborted {
        announced: u64,
        abort_after: u64,
    },
    Expires,
}

/// A local queue as its observers see it.
pub(crate) struct LocalQueueEvents<'a> {
    shared: &'a Shared,
    mode: LocalQueueMode,
}

impl<'a> LocalQueueEvents<'a> {
    pub(crate) fn new(shared: &'a Shared) -> Self {
        let mut queue = Self { shared, mode: LocalQueueMode::Starting };
        queue.send(LocalQueueInit, |worker_id| LocalQueueInitContext { worker_id });
        queue.enters(LocalQueueMode::Polling);
        queue
    }

    /// A claim returned this number of jobs.
    pub(crate) fn fetched(&mut self, jobs: usize) {
        let context = |worker_id| LocalQueueGetJobsCompleteContext { worker_id, jobs_count: jobs };
        self.send(LocalQueueGetJobsComplete, context);
        if jobs > 0 {
            self.enters(LocalQueueMode::Waiting);
        }
    }

    /// This number of jobs waits for a thread.
    pub(crate) fn holds(&mut self, jobs: usize) {
        if jobs == 0 && self.mode == LocalQueueMode::Waiting {
            self.enters(LocalQueueMode::Polling);
        }
    }

    /// A claim is sent.
    pub(crate) fn claim_sent(&mut self) {
        if self.mode == LocalQueueMode::TtlExpired {
            self.enters(LocalQueueMode::Polling);
        }
    }

    /// Jobs were held for too long, and this number of them was given back.
    pub(crate) fn expired(&mut self, jobs: usize) {
        self.returned(jobs);
        self.enters(LocalQueueMode::TtlExpired);
    }

    /// The worker stops, and this number of jobs was given back.
    pub(crate) fn released(&mut self, jobs: usize) {
        self.returned(jobs);
        self.enters(LocalQueueMode::Released);
    }

    pub(crate) fn refetch(&self, pause: Option<Pause>) {
        match pause {
            None => {}
            Some(Pause::Begins { duration, threshold, abort_after }) => {
                let abort_threshold = abort_after.map_or(usize::MAX, |after| after as usize);
                self.send(LocalQueueRefetchDelayStart, |worker_id| LocalQueueRefetchDelayStartContext {
                    worker_id,
                    duration,
                    threshold,
                    abort_threshold,
                });
            }
            Some(Pause::Aborted { announced, abort_after }) => {
                let (count, abort_threshold) = (announced as usize, abort_after as usize);
                let context = |worker_id| LocalQueueRefetchDelayAbortContext { worker_id, count, abort_threshold };
                self.send(LocalQueueRefetchDelayAbort, context);
            }
            Some(Pause::Expires) => {
                self.send(LocalQueueRefetchDelayExpired, |worker_id| LocalQueueRefetchDelayExpiredContext {
                    worker_id,
                });
            }
        }
    }

    fn returned(&self, jobs: usize) {
        if jobs > 0 {
            let context = |worker_id| LocalQueueReturnJobsContext { worker_id, jobs_count: jobs };
            self.send(LocalQueueReturnJobs, context);
        }
    }

    fn enters(&mut self, new_mode: LocalQueueMode) {
        let old_mode = std::mem::replace(&mut self.mode, new_mode);
        if old_mode != new_mode {
            self.send(LocalQueueSetMode, |worker_id| LocalQueueSetModeContext { worker_id, old_mode, new_mode });
        }
    }

    fn send<E: Observed>(&self, event: E, context: impl FnOnce(String) -> E::Context) {
        if self.shared.config.local_queue.is_some() {
            self.shared.events.send(event, || context(self.shared.worker_id.clone()));
        }
    }
}
