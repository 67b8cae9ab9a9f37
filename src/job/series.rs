//! The jobs of one named queue that one claim returned. They run one after another, and the queue stays locked until the
//! last of them is settled. Knows neither database nor handlers.

use crate::job::active::ActiveJob;
use crossbeam_channel::Sender;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The state that all jobs of a series share.
pub(crate) struct Series {
    state: Mutex<State>,
    /// How many jobs of the series the database may still have as this worker's.
    unsettled: AtomicUsize,
    /// To the threads: jobs that may start.
    startable: Sender<Arc<ActiveJob>>,
    /// How many jobs of all series wait for the job before them. Shared with the ledger.
    successors: Arc<AtomicUsize>,
}

#[derive(Default)]
struct State {
    /// The jobs after the current one, in their order.
    waiting: VecDeque<Arc<ActiveJob>>,
    /// The id of the job that may run: the threads have it, and it has not ended.
    current: Option<i64>,
    is_broken: bool,
}

impl Series {
    pub(crate) fn new(jobs: usize, startable: Sender<Arc<ActiveJob>>, successors: Arc<AtomicUsize>) -> Self {
        Self { state: Mutex::default(), unsettled: AtomicUsize::new(jobs), startable, successors }
    }

    /// Appends a job. The threads get it at once if all jobs before it have ended, or if the series has broken off.
    pub(crate) fn append(&self, active: Arc<ActiveJob>) {
        let mut state = self.state.lock();
        if state.is_broken {
            self.pass(active);
        } else if state.current.is_none() && state.waiting.is_empty() {
            state.current = Some(active.job().id);
            self.pass(active);
        } else {
            self.successors.fetch_add(1, Ordering::Relaxed);
            state.waiting.push_back(active);
        }
    }

    /// A job of the series has ended. If it is completed, the thread that leaves it takes the next one. Otherwise the
    /// series breaks off.
    pub(crate) fn ended(&self, completed: bool) {
        let mut state = self.state.lock();
        match completed {
            true => state.current = None,
            false => self.break_off(&mut state),
        }
    }

    /// The next job, if the one before it is completed.
    pub(crate) fn take_next(&self) -> Option<Arc<ActiveJob>> {
        let mut state = self.state.lock();
        if state.current.is_some() {
            return None;
        }
        let next = state.waiting.pop_front()?;
        self.successors.fetch_sub(1, Ordering::Relaxed);
        state.current = Some(next.job().id);
        Some(next)
    }

    /// Lets no further job of the series start.
    pub(crate) fn interrupt(&self) {
        self.break_off(&mut self.state.lock());
    }

    /// Whether this job may start. If not, the series has broken off before it.
    pub(crate) fn may_start(&self, job: i64) -> bool {
        self.state.lock().current == Some(job)
    }

    /// Whether jobs wait for the current one.
    pub(crate) fn has_successors(&self) -> bool {
        !self.state.lock().waiting.is_empty()
    }

    pub(crate) fn unsettled(&self) -> usize {
        self.unsettled.load(Ordering::Acquire)
    }

    /// The database has the outcome of one more job of the series, or the job is not this worker's any more.
    pub(crate) fn settled(&self) {
        self.unsettled.fetch_sub(1, Ordering::AcqRel);
    }

    /// The threads give the waiting jobs back, because these may not start.
    fn break_off(&self, state: &mut State) {
        state.is_broken = true;
        self.successors.fetch_sub(state.waiting.len(), Ordering::Relaxed);
        state.waiting.drain(..).for_each(|active| self.pass(active));
    }

    fn pass(&self, active: Arc<ActiveJob>) {
        // The receiver is in the worker's `Shared`, which outlives its threads.
        let _ = self.startable.send(active);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Job;
    use crate::job::active::{Arrival, Ledger, Outcome, Settlement};
    use crossbeam_channel::{Receiver, unbounded};

    struct Claimed {
        ledger: Ledger,
        jobs: Vec<Arc<ActiveJob>>,
        series: Arc<Series>,
        startable: Receiver<Arc<ActiveJob>>,
        done: Receiver<Settlement>,
    }

    impl Claimed {
        /// The jobs 1 to 4 of one series.
        fn new() -> Self {
            let (ledger, (put, startable), (send, done)) = (Ledger::default(), unbounded(), unbounded());
            let series = ledger.series(4, put);
            let arrival = |id| Arrival {
                task: 0,
                job: Job { queue_id: Some(1), ..Job::example(id) },
                alone: false,
                recovered: false,
                apart: None,
                unreadable: None,
                series: Some(series.clone()),
            };
            let jobs = ledger.enter((1..=4).map(arrival), &send).startable;
            jobs.iter().for_each(|active| series.append(active.clone()));
            Self { ledger, jobs, series, startable, done }
        }

        /// Starts what may start, and returns the ids of the started jobs.
        fn start(&self) -> Vec<i64> {
            let jobs = self.startable.try_iter().chain(self.series.take_next());
            jobs.filter(|active| active.start()).map(|active| active.job().id).collect()
        }

        fn given_back(&self) -> Vec<i64> {
            let back = self.done.try_iter().filter(|(_, outcome)| *outcome == Outcome::GivenBack(None));
            back.map(|(active, _)| active.job().id).collect()
        }
    }

    #[test]
    fn a_job_starts_when_the_one_before_it_is_completed() {
        let claimed = Claimed::new();
        for (place, active) in claimed.jobs.iter().enumerate() {
            assert_eq!(claimed.start(), [place as i64 + 1]);
            assert_eq!(claimed.ledger.successors(), 3 - place);
            assert!(active.finish(Outcome::Done));
        }
        assert!(claimed.start().is_empty());
    }

    #[test]
    fn a_job_that_is_not_completed_ends_its_series() {
        let ends: [fn(&Arc<ActiveJob>) -> bool; 4] = [
            |active| active.start() && active.finish(Outcome::Failed(Default::default())),
            |active| active.give_back(None),
            |active| active.void(),
            |active| active.start() && active.void(),
        ];
        for end in ends {
            let claimed = Claimed::new();
            claimed.startable.recv().unwrap();
            assert!(end(&claimed.jobs[0]));
            assert!(claimed.start().is_empty());
            assert!(claimed.given_back().ends_with(&[2, 3, 4]));
            assert_eq!(claimed.ledger.successors(), 0);
        }
    }

    #[test]
    fn a_series_that_is_interrupted_ends_after_its_current_job() {
        let claimed = Claimed::new();
        claimed.series.interrupt();
        assert_eq!(claimed.start(), [1]);
        assert_eq!(claimed.given_back(), [2, 3, 4]);
    }

    #[test]
    fn a_job_that_comes_after_the_others_have_ended_starts_at_once() {
        let claimed = Claimed::new();
        for active in &claimed.jobs {
            assert_eq!(claimed.start().len(), 1);
            assert!(active.finish(Outcome::Done));
        }
        assert!(claimed.series.take_next().is_none());
        claimed.series.append(claimed.jobs[0].clone());
        assert_eq!(claimed.startable.len(), 1);
    }
}
