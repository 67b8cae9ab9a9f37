//! The jobs that this worker holds and no thread has started: gw-fetch puts them in, threads take them out. Knows no
//! statement and no ledger.

use super::signal;
use crate::job::active::ActiveJob;
use crate::shutdown::ShutdownSignal;
use crossbeam_channel::{Receiver, Sender, select, unbounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How often a thread without a job yields before it sleeps.
const YIELDS: usize = 4;

pub(crate) struct HeldJobs {
    jobs: (Sender<Arc<ActiveJob>>, Receiver<Arc<ActiveJob>>),
    /// How many threads wait for a job.
    idle: AtomicUsize,
    /// How many jobs threads have taken since the start.
    taken: AtomicUsize,
    /// With this many jobs or fewer, a thread that takes one signals dispatch.
    low_water: AtomicUsize,
    /// To dispatch: few jobs are left.
    low: Sender<()>,
}

impl HeldJobs {
    pub(crate) fn new(low: Sender<()>) -> Self {
        Self {
            jobs: unbounded(),
            idle: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
            low_water: AtomicUsize::new(0),
            low,
        }
    }

    /// Where a series puts the next of its jobs.
    pub(crate) fn sender(&self) -> Sender<Arc<ActiveJob>> {
        self.jobs.0.clone()
    }

    pub(crate) fn put(&self, active: Arc<ActiveJob>) {
        self.jobs.0.send(active).expect("the receiver is in the same struct");
    }

    /// The next job; waits for one. `None` at a stop.
    pub(crate) fn take(&self, stop: &ShutdownSignal) -> Option<Arc<ActiveJob>> {
        let jobs = &self.jobs.1;
        self.idle.fetch_add(1, Ordering::AcqRel);
        let job = jobs.try_recv().ok().or_else(|| {
            signal(&self.low);
            // More jobs often arrive within moments. Other threads work meanwhile, and a sleeping thread costs a wakeup
            // for each job.
            for _ in 0..YIELDS {
                std::thread::yield_now();
                if let Ok(job) = jobs.try_recv() {
                    return Some(job);
                }
            }
            select! {
                recv(jobs) -> job => job.ok(),
                recv(stop.receiver()) -> _ => None,
            }
        });
        self.idle.fetch_sub(1, Ordering::AcqRel);
        self.note_taken();
        job
    }

    /// The next job, if there is one.
    pub(crate) fn try_take(&self) -> Option<Arc<ActiveJob>> {
        let job = self.jobs.1.try_recv().ok()?;
        self.note_taken();
        Some(job)
    }

    fn note_taken(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
        if self.len() <= self.low_water.load(Ordering::Relaxed) {
            signal(&self.low);
        }
    }

    /// Takes all jobs out without counting them as taken by a thread.
    pub(crate) fn drain(&self) -> impl Iterator<Item = Arc<ActiveJob>> {
        self.jobs.1.try_iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.jobs.1.len()
    }

    /// How many threads wait for a job.
    pub(crate) fn idle(&self) -> usize {
        self.idle.load(Ordering::Acquire)
    }

    /// How many jobs threads have taken since the start. If it does not change, no thread has become free.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Sets at how many jobs a thread that takes one signals dispatch.
    pub(crate) fn set_low_water(&self, jobs: usize) {
        self.low_water.store(jobs, Ordering::Relaxed);
    }
}
