//! The jobs that a worker holds: the claim of each job, its single outcome, and the ledger of all claims.
//! Knows neither database nor handlers.

use crate::job::Job;
use crate::job::series::Series;
use crossbeam_channel::Sender;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// One claim of one job, with its own number. If the job is claimed again later, that is another claim.
///
/// Not `Clone`, so that it is settled only once.
pub(crate) struct Claim {
    number: u64,
    /// The index of the job's task in the worker's list of tasks.
    pub(crate) task: usize,
    /// Shared with the hooks that receive it.
    pub(crate) job: Arc<Job>,
    /// If true, the job starts only while the worker holds no other job.
    pub(crate) alone: bool,
    /// True if a sweep has recovered the job before. A row of `_native_recoveries` then counts its recoveries. Settle
    /// deletes that row when the job is done.
    pub(crate) recovered: bool,
    /// The series that the job is in, if the claim took several jobs of its queue.
    pub(crate) series: Option<Arc<Series>>,
}

/// A job that a claim returned.
pub(crate) struct Arrival {
    pub(crate) task: usize,
    pub(crate) job: Job,
    pub(crate) alone: bool,
    /// If the claim left the payload out: how many bytes the database stores for it.
    pub(crate) apart: Option<usize>,
    /// Why no handler can run the job: its texts cannot be read. Such a job fails permanently.
    pub(crate) unreadable: Option<String>,
    pub(crate) recovered: bool,
    pub(crate) series: Option<Arc<Series>>,
}

/// How a claim ends.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// The handler succeeded: the job is deleted.
    Done,
    /// The handler failed. The job is retried after a delay, or fails permanently after its last attempt.
    Failed(Failure),
    /// The handler succeeded and asked to be run again after the delay. The attempt does not count.
    Snoozed(Duration),
    /// The job was not started, or a stop interrupted it. The attempt does not count. With a delay, the job waits for
    /// it. Without one, the job is available at once, and workers are notified.
    GivenBack(Option<Duration>),
}

/// The name of [`Outcome::GivenBack`].
pub(crate) const GIVEN_BACK: &str = "given back";

impl Outcome {
    /// The name of the outcome, for log texts.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Done => "completed",
            Self::Failed(_) => "failed",
            Self::Snoozed(_) => "snoozed",
            Self::GivenBack(_) => GIVEN_BACK,
        }
    }
}

/// How a handler failed, and how the job is retried.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Failure {
    pub(crate) text: String,
    /// How long the next attempt waits, if the handler or the task's retry policy sets it. Otherwise the database does.
    pub(crate) delay: Option<Duration>,
    /// The payload of the next attempt, if a part of this attempt's payload is done.
    pub(crate) rest: Option<String>,
    /// If true, the job fails permanently, even if attempts are left.
    pub(crate) for_good: bool,
}

/// What a handler requested in addition to its result.
#[derive(Default)]
struct Requests {
    snooze: Option<Duration>,
    delay: Option<Duration>,
    rest: Option<String>,
}

/// A claim and its outcome, sent to gw-settle.
pub(crate) type Settlement = (Arc<ActiveJob>, Outcome);

const HELD: u8 = 0;
const RUNNING: u8 = 1;
const FINISHED: u8 = 2;
const VOID: u8 = 3;

/// A job that this worker holds, from its claim until it is settled and its handler has returned.
pub(crate) struct ActiveJob {
    pub(crate) claim: Claim,
    state: AtomicU8,
    cancelled: AtomicBool,
    /// Called when the job is cancelled, for hosts that cannot poll `is_cancelled`.
    when_cancelled: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// True if the job was cancelled because it exceeded its task's timeout.
    timed_out: AtomicBool,
    /// True if the handler was reported as ignoring the timeout.
    stuck: AtomicBool,
    requests: Mutex<Requests>,
    /// True from `start` until `Ledger::returned`, even if another thread gives the job its outcome meanwhile.
    inside: AtomicBool,
    /// True once the thread that started the job is free for other jobs. Another thread may still have to end the job.
    left_to_others: AtomicBool,
    settled: AtomicBool,
    /// True if the reply to the statement that writes the outcome was lost. The outcome may be written a second time.
    in_doubt: AtomicBool,
    claimed_at: Instant,
    started: OnceLock<(Instant, Thread)>,
    /// How long the handler took. Set together with its outcome.
    ran: OnceLock<Duration>,
    /// When the job got its outcome, and the outcome's name.
    finished: OnceLock<(Instant, &'static str)>,
    /// Since when the outcome waits because the database does not accept it.
    deferred: OnceLock<Instant>,
    /// The total payload size of all jobs that are held and not started. Shared with the ledger.
    held_bytes: Arc<AtomicUsize>,
    /// gw-settle owns the receiver. The channel is unbounded, so that `finish` never blocks.
    done: Sender<Settlement>,
}

impl ActiveJob {
    pub(crate) fn job(&self) -> &Job {
        &self.claim.job
    }

    /// Returns true if the job had a key when it was claimed. If its row has no key now, the job was superseded.
    pub(crate) fn keyed(&self) -> bool {
        self.claim.job.key.is_some()
    }

    pub(crate) fn held_for(&self) -> Duration {
        self.claimed_at.elapsed()
    }

    /// Marks the job as running. Returns false if it must not run because the claim was voided or given back meanwhile.
    /// Gives the job back if its series has broken off.
    pub(crate) fn start(self: &Arc<Self>) -> bool {
        if self.claim.series.as_ref().is_some_and(|series| !series.may_start(self.claim.job.id)) {
            self.give_back(None);
        }
        let started = self.advance(HELD, RUNNING);
        if started {
            self.inside.store(true, Ordering::SeqCst);
            let _ = self.started.set((Instant::now(), std::thread::current()));
        }
        started
    }

    /// Gives a running job its outcome. Only the first call does so: later calls return false and drop theirs.
    pub(crate) fn finish(self: &Arc<Self>, outcome: Outcome) -> bool {
        let finished = self.advance(RUNNING, FINISHED);
        if finished {
            let _ = self.finished.set((Instant::now(), outcome.name()));
            let _ = self.ran.set(self.started.get().map(|(start, _)| start.elapsed()).unwrap_or_default());
            let completed = outcome == Outcome::Done;
            // The receiver is closed only after a stop, which has given this job back.
            let _ = self.done.send((self.clone(), outcome));
            self.end_turn(completed);
        }
        finished
    }

    /// Gives back a job that was not started. Returns false if it was started or has an outcome.
    pub(crate) fn give_back(self: &Arc<Self>, delay: Option<Duration>) -> bool {
        self.end_unseen(Outcome::GivenBack(delay))
    }

    /// Fails a job that was not started. Returns false if it was started or has an outcome.
    pub(crate) fn refuse(self: &Arc<Self>, failure: Failure) -> bool {
        self.end_unseen(Outcome::Failed(failure))
    }

    fn end_unseen(self: &Arc<Self>, outcome: Outcome) -> bool {
        let ended = self.advance(HELD, FINISHED);
        if ended {
            let _ = self.finished.set((Instant::now(), outcome.name()));
            let _ = self.done.send((self.clone(), outcome));
            self.end_turn(false);
        }
        ended
    }

    /// Invalidates the claim and cancels the job. A job that was not started never starts. If a handler runs, its
    /// outcome is dropped. Returns false if the claim already has an outcome or is void.
    pub(crate) fn void(&self) -> bool {
        self.cancel();
        let voided = self.advance(HELD, VOID) || self.advance(RUNNING, VOID);
        if voided {
            self.claim.series.iter().for_each(|series| series.settled());
            self.end_turn(false);
        }
        voided
    }

    /// Tells the series that this job has ended.
    fn end_turn(&self, completed: bool) {
        if let Some(series) = &self.claim.series {
            series.ended(completed);
        }
    }

    pub(crate) fn cancel(&self) {
        if !self.cancelled.swap(true, Ordering::AcqRel) {
            self.when_cancelled.get().inspect(|notify| notify());
        }
    }

    /// Calls `notify` when the job is cancelled, or at once if it already is. If both happen at the same moment, `notify`
    /// may be called twice.
    pub(crate) fn when_cancelled(&self, notify: impl Fn() + Send + Sync + 'static) {
        let _ = self.when_cancelled.set(Box::new(notify));
        if self.is_cancelled() {
            self.when_cancelled.get().inspect(|notify| notify());
        }
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Cancels the job because it exceeded its timeout. Returns false if that happened before.
    pub(crate) fn time_out(&self) -> bool {
        let first = !self.timed_out.swap(true, Ordering::AcqRel);
        self.cancel();
        first
    }

    pub(crate) fn is_timed_out(&self) -> bool {
        self.timed_out.load(Ordering::Acquire)
    }

    /// Marks the handler as stuck, because it ignores the timeout. Returns false if it was marked before.
    pub(crate) fn report_stuck(&self) -> bool {
        !self.stuck.swap(true, Ordering::AcqRel)
    }

    /// If the handler succeeds, the job runs again after `delay` instead of being completed.
    pub(crate) fn request_snooze(&self, delay: Duration) {
        self.requests.lock().snooze = Some(delay);
    }

    /// If the handler fails, the job is retried after `delay`, regardless of its task's retry policy.
    pub(crate) fn request_delay(&self, delay: Duration) {
        self.requests.lock().delay = Some(delay);
    }

    /// If the handler fails, the next attempt gets this payload.
    pub(crate) fn request_rest(&self, payload: String) {
        self.requests.lock().rest = Some(payload);
    }

    pub(crate) fn take_snooze(&self) -> Option<Duration> {
        self.requests.lock().snooze.take()
    }

    pub(crate) fn take_delay(&self) -> Option<Duration> {
        self.requests.lock().delay.take()
    }

    pub(crate) fn take_rest(&self) -> Option<String> {
        self.requests.lock().rest.take()
    }

    pub(crate) fn is_held(&self) -> bool {
        self.state.load(Ordering::Acquire) == HELD
    }

    pub(crate) fn is_running(&self) -> bool {
        self.state.load(Ordering::Acquire) == RUNNING
    }

    /// How long the outcome has been waiting to be written. `None` if there is no outcome, or it is written.
    pub(crate) fn unsettled_for(&self) -> Option<Duration> {
        self.unsettled().map(|(since, _)| since.elapsed())
    }

    /// When the job got its outcome, and the outcome's name. `None` if there is no outcome, or it is written.
    pub(crate) fn unsettled(&self) -> Option<(Instant, &'static str)> {
        let waits = !self.settled.load(Ordering::SeqCst);
        self.finished.get().filter(|_| waits).copied()
    }

    /// Records that the outcome waits because the database does not accept it.
    pub(crate) fn note_deferred(&self) {
        self.deferred.get_or_init(Instant::now);
    }

    /// How long the outcome has been waiting because the database does not accept it. `None` if it was never deferred.
    pub(crate) fn deferred_for(&self) -> Option<Duration> {
        self.deferred.get().map(Instant::elapsed)
    }

    pub(crate) fn leave_to_others(&self) {
        self.left_to_others.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_left_to_others(&self) -> bool {
        self.left_to_others.load(Ordering::Relaxed)
    }

    /// When the job was started, and the name of the thread that started it.
    pub(crate) fn started(&self) -> Option<(Instant, &str)> {
        self.started.get().map(|(since, thread)| (*since, thread.name().unwrap_or_default()))
    }

    /// How long the handler took. Zero before it has an outcome.
    pub(crate) fn ran(&self) -> Duration {
        self.ran.get().copied().unwrap_or_default()
    }

    /// Records that the reply to the statement that writes the outcome was lost.
    pub(crate) fn note_in_doubt(&self) {
        self.in_doubt.store(true, Ordering::SeqCst);
    }

    /// Returns true if a later claim of the same job may start. The job could be claimed again, so the outcome of this
    /// claim is already written. If the outcome is in doubt, the later claim must not start: settle may write the
    /// outcome a second time, which could undo the later claim.
    fn has_let_go(&self) -> bool {
        let written = self.finished.get().is_some() && !self.in_doubt.load(Ordering::SeqCst);
        // If this claim is settled, its handler has given the outcome and is about to return.
        self.settled.load(Ordering::SeqCst) || (written && !self.inside.load(Ordering::SeqCst))
    }

    /// Returns true if the claim is settled or void, and its handler has returned.
    fn is_over(&self) -> bool {
        let settled = self.settled.load(Ordering::SeqCst) || self.state.load(Ordering::Acquire) == VOID;
        settled && !self.inside.load(Ordering::SeqCst)
    }

    fn advance(&self, from: u8, to: u8) -> bool {
        let advanced = self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if advanced && from == HELD {
            self.held_bytes.fetch_sub(self.claim.job.payload.len(), Ordering::AcqRel);
        }
        advanced
    }
}

/// All claims of this worker. A claim is removed when it is settled or void, and its handler has returned.
#[derive(Default)]
pub(crate) struct Ledger {
    entries: Mutex<Entries>,
    held_bytes: Arc<AtomicUsize>,
    successors: Arc<AtomicUsize>,
}

/// The result of entering the jobs of one claim statement.
#[derive(Default)]
pub(crate) struct Entered {
    pub(crate) startable: Vec<Arc<ActiveJob>>,
    /// Jobs that must not start because an older claim of them is still in the ledger. The caller gives them back.
    pub(crate) doubled: Vec<Arc<ActiveJob>>,
    /// Older claims of these jobs that had no outcome. They are now void.
    pub(crate) voided: Vec<Arc<ActiveJob>>,
}

#[derive(Default)]
struct Entries {
    /// The latest claim of each job.
    latest: HashMap<i64, Arc<ActiveJob>>,
    /// Claims of jobs that were claimed again while these claims were still in the ledger.
    older: Vec<Arc<ActiveJob>>,
    /// Jobs that are claimed but not entered yet, because their payloads are still being read.
    coming: HashSet<i64>,
    last: u64,
}

impl Ledger {
    /// Enters the jobs that a claim returned. If an older claim of a job is still in the ledger and may still run or be
    /// written, the older claim is voided. The new claim is then in `doubled`, and the caller must give it back.
    pub(crate) fn enter(&self, jobs: impl IntoIterator<Item = Arrival>, done: &Sender<Settlement>) -> Entered {
        let Entered { mut startable, mut doubled, mut voided } = Entered::default();
        let mut entries = self.entries.lock();
        for Arrival { task, job, alone, recovered, series, .. } in jobs {
            entries.last += 1;
            let number = entries.last;
            let id = job.id;
            entries.coming.remove(&id);
            self.held_bytes.fetch_add(job.payload.len(), Ordering::AcqRel);
            let active = Arc::new(ActiveJob {
                claim: Claim { number, task, job: Arc::new(job), alone, recovered, series },
                state: AtomicU8::new(HELD),
                cancelled: AtomicBool::new(false),
                when_cancelled: OnceLock::new(),
                timed_out: AtomicBool::new(false),
                stuck: AtomicBool::new(false),
                requests: Mutex::default(),
                inside: AtomicBool::new(false),
                left_to_others: AtomicBool::new(false),
                settled: AtomicBool::new(false),
                in_doubt: AtomicBool::new(false),
                claimed_at: Instant::now(),
                started: OnceLock::new(),
                ran: OnceLock::new(),
                finished: OnceLock::new(),
                deferred: OnceLock::new(),
                held_bytes: self.held_bytes.clone(),
                done: done.clone(),
            });
            let Some(older) = entries.latest.insert(id, active.clone()) else {
                startable.push(active);
                continue;
            };
            if older.has_let_go() {
                startable.push(active);
            } else {
                if older.void() {
                    voided.push(older.clone());
                }
                doubled.push(active);
            }
            entries.older.push(older);
        }
        Entered { startable, doubled, voided }
    }

    /// Records that the handler has returned. Returns true if the claim was settled or void before, and is removed now.
    pub(crate) fn returned(&self, active: &Arc<ActiveJob>) -> bool {
        active.inside.store(false, Ordering::SeqCst);
        // Usually the claim is not settled yet, and `settled` removes it. The later of the two calls sees both flags.
        let over = active.is_over();
        if over {
            self.let_go(std::slice::from_ref(active));
        }
        over
    }

    /// Records that the outcomes of these claims are written, or that there is none to write.
    pub(crate) fn settled(&self, actives: &[Arc<ActiveJob>]) {
        for active in actives {
            active.settled.store(true, Ordering::SeqCst);
        }
        self.let_go(actives);
    }

    /// Removes the claims that are over.
    fn let_go(&self, actives: &[Arc<ActiveJob>]) {
        let mut entries = self.entries.lock();
        for active in actives.iter().filter(|active| active.is_over()) {
            let id = active.claim.job.id;
            match entries.latest.get(&id) {
                Some(latest) if Arc::ptr_eq(latest, active) => drop(entries.latest.remove(&id)),
                _ => entries.older.retain(|older| !Arc::ptr_eq(older, active)),
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        let entries = self.entries.lock();
        entries.latest.len() + entries.older.len() + entries.coming.len()
    }

    /// The total payload size of all jobs that are held and not started.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes.load(Ordering::Acquire)
    }

    /// A series for this many jobs of one claim. Those that may start are sent to the threads.
    pub(crate) fn series(&self, jobs: usize, startable: Sender<Arc<ActiveJob>>) -> Arc<Series> {
        Arc::new(Series::new(jobs, startable, self.successors.clone()))
    }

    /// How many jobs wait for the job before them in their series.
    pub(crate) fn successors(&self) -> usize {
        self.successors.load(Ordering::Relaxed)
    }

    /// Records jobs that are claimed and will be entered later.
    pub(crate) fn expect(&self, jobs: impl IntoIterator<Item = i64>) {
        self.entries.lock().coming.extend(jobs);
    }

    /// The ids of all jobs that have a claim in the ledger, or will have one once their payload is read.
    pub(crate) fn known(&self) -> HashSet<i64> {
        let entries = self.entries.lock();
        let older = entries.older.iter().map(|active| active.claim.job.id);
        entries.latest.keys().copied().chain(older).chain(entries.coming.iter().copied()).collect()
    }

    /// Returns true if the ledger has no later claim of the same job.
    pub(crate) fn is_latest(&self, active: &Arc<ActiveJob>) -> bool {
        let entries = self.entries.lock();
        entries.latest.get(&active.claim.job.id).is_none_or(|latest| Arc::ptr_eq(latest, active))
    }

    /// All claims in the ledger, in the order in which they were entered.
    pub(crate) fn all(&self) -> Vec<Arc<ActiveJob>> {
        let entries = self.entries.lock();
        let mut all: Vec<_> = entries.latest.values().chain(&entries.older).cloned().collect();
        drop(entries);
        all.sort_by_key(|active| active.claim.number);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::{Receiver, unbounded};

    fn job(id: i64) -> Arrival {
        Arrival {
            task: 0,
            job: Job::example(id),
            alone: false,
            recovered: false,
            apart: None,
            unreadable: None,
            series: None,
        }
    }

    fn claimed(id: i64) -> (Ledger, Arc<ActiveJob>, Sender<Settlement>, Receiver<Settlement>) {
        let (done, settle) = unbounded();
        let ledger = Ledger::default();
        let Entered { mut startable, .. } = ledger.enter([job(id)], &done);
        (ledger, startable.remove(0), done, settle)
    }

    #[test]
    fn a_job_has_one_outcome() {
        let (_, active, _, settle) = claimed(1);
        assert!(active.start());
        assert!(!active.start());
        assert!(active.finish(Outcome::Done));
        assert!(!active.finish(Outcome::Failed(Failure::default())));
        assert!(!active.give_back(None));
        assert_eq!(settle.try_iter().map(|(_, outcome)| outcome).collect::<Vec<_>>(), [Outcome::Done]);
    }

    #[test]
    fn a_job_given_back_does_not_start() {
        let (_, active, _, settle) = claimed(1);
        assert!(active.give_back(None));
        assert!(!active.start());
        assert_eq!(settle.len(), 1);
    }

    #[test]
    fn a_second_claim_of_a_running_job_voids_the_first() {
        let (ledger, older, done, settle) = claimed(1);
        older.start();
        let Entered { startable, doubled, voided } = ledger.enter([job(1), job(2)], &done);
        assert_eq!((startable.len(), doubled.len(), voided.len()), (1, 1, 1));
        assert!(older.is_cancelled());
        assert!(!older.finish(Outcome::Done), "its outcome is dropped");
        assert_eq!(settle.len(), 0);
    }

    #[test]
    fn held_bytes_shrink_when_a_job_starts_or_is_given_back_or_void() {
        let (ledger, active, done, _settle) = claimed(1);
        let more = ledger.enter([job(2), job(3)], &done).startable;
        assert_eq!(ledger.held_bytes(), 6);
        active.start();
        more[0].give_back(None);
        assert_eq!(ledger.held_bytes(), 2);
        more[1].void();
        active.finish(Outcome::Done);
        assert_eq!(ledger.held_bytes(), 0);
    }

    #[test]
    fn a_job_given_back_can_be_claimed_again_before_it_is_settled() {
        for in_doubt in [false, true] {
            let (ledger, older, done, _settle) = claimed(1);
            older.give_back(None);
            if in_doubt {
                older.note_in_doubt();
            }
            let Entered { startable, doubled, .. } = ledger.enter([job(1)], &done);
            assert_eq!((startable.len(), doubled.len()), if in_doubt { (0, 1) } else { (1, 0) });
            assert!(!ledger.is_latest(&older));
            ledger.settled(std::slice::from_ref(&older));
            assert_eq!(ledger.len(), 1, "the later claim");
        }
    }

    #[test]
    fn a_settled_entry_stays_until_its_handler_has_returned() {
        let (ledger, active, _, _settle) = claimed(1);
        active.start();
        active.finish(Outcome::GivenBack(None));
        ledger.settled(std::slice::from_ref(&active));
        assert_eq!(ledger.len(), 1, "the handler still runs");
        assert!(ledger.returned(&active), "it was settled before");
        assert_eq!(ledger.len(), 0);
    }

    #[test]
    fn an_entry_stays_after_its_handler_until_it_is_settled() {
        let (ledger, active, _, _settle) = claimed(1);
        active.start();
        active.finish(Outcome::Done);
        assert!(!ledger.returned(&active), "its outcome is still to be written");
        assert_eq!(ledger.len(), 1);
        ledger.settled(std::slice::from_ref(&active));
        assert_eq!(ledger.len(), 0);
    }
}
