//! What a worker holds: the claim of each job, its one outcome, and the ledger of them all.
//! Knows neither database nor handlers.

use crate::job::Job;
use crossbeam_channel::Sender;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// One claim of one job, numbered: a job that comes back later is another claim.
///
/// Not `Clone`: whoever settles it is the only one who can.
pub(crate) struct Claim {
    number: u64,
    /// Which of the worker's tasks runs it.
    pub(crate) task: usize,
    /// Shared with the hooks that are told of it.
    pub(crate) job: Arc<Job>,
    /// Whether it starts only while its worker holds nothing else.
    pub(crate) alone: bool,
    /// Whether the job's recoveries are counted in a row, which goes when the job is done.
    pub(crate) recovered: bool,
}

/// A job that a claim brought.
pub(crate) struct Arrival {
    pub(crate) task: usize,
    pub(crate) job: Job,
    pub(crate) alone: bool,
    /// How many bytes the database stores for its payload, if the claim left that out.
    pub(crate) apart: Option<usize>,
    /// Why the job cannot be given to a handler.
    pub(crate) unreadable: Option<String>,
    pub(crate) recovered: bool,
}

/// How a claim ends.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// The handler succeeded: the job is deleted.
    Done,
    /// The handler failed: tried again after a delay, or failed for good after the last attempt.
    Failed(Failure),
    /// The handler succeeded and asked to be run again after the delay: the attempt does not count.
    Snoozed(Duration),
    /// Not started, or interrupted by a stop: the attempt does not count. A job that was started
    /// waits for the delay; one that was not is at once there for others, who are told.
    GivenBack(Option<Duration>),
}

/// The name of an outcome that leaves the job as it was before its claim.
pub(crate) const GIVEN_BACK: &str = "given back";

impl Outcome {
    /// Its name, for people.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Done => "completed",
            Self::Failed(_) => "failed",
            Self::Snoozed(_) => "snoozed",
            Self::GivenBack(_) => GIVEN_BACK,
        }
    }
}

/// How a handler failed, and what is left to do.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Failure {
    pub(crate) text: String,
    /// How long the next attempt waits, if the task has a retry policy of its own.
    pub(crate) delay: Option<Duration>,
    /// The payload of the next attempt, if a part of this one's is done.
    pub(crate) rest: Option<String>,
    /// Whether there is no next attempt, however many are left.
    pub(crate) for_good: bool,
}

/// What a handler asked for beside its result.
#[derive(Default)]
struct Wishes {
    snooze: Option<Duration>,
    delay: Option<Duration>,
    rest: Option<String>,
}

/// A claim on its way to be settled.
pub(crate) type Settlement = (Arc<ActiveJob>, Outcome);

const HELD: u8 = 0;
const RUNNING: u8 = 1;
const FINISHED: u8 = 2;
const VOID: u8 = 3;

/// A job in the hands of this worker, from its claim until its handler has returned and it is settled.
pub(crate) struct ActiveJob {
    pub(crate) claim: Claim,
    state: AtomicU8,
    cancelled: AtomicBool,
    /// Called when it is cancelled, for those who cannot keep asking.
    when_cancelled: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// Whether it was cancelled because it took longer than its task may.
    timed_out: AtomicBool,
    /// Whether it was reported as ignoring that.
    stuck: AtomicBool,
    wishes: Mutex<Wishes>,
    /// Whether a handler is inside. Set by gw-run, also when the job was finished from elsewhere.
    inside: AtomicBool,
    /// The thread that started it is free again: whoever keeps the job ends it.
    left_to_others: AtomicBool,
    settled: AtomicBool,
    /// Whether the reply to the statement that writes its outcome was lost: it may be written again.
    in_doubt: AtomicBool,
    claimed_at: Instant,
    started: OnceLock<(Instant, Thread)>,
    /// How long the handler took, once it is over.
    ran: OnceLock<Duration>,
    /// When it got its outcome, and which.
    finished: OnceLock<(Instant, &'static str)>,
    /// Since when its outcome waits because the database does not take it.
    deferred: OnceLock<Instant>,
    /// The size of the payloads of all jobs that are held; this one's counts until it is not.
    held_bytes: Arc<AtomicUsize>,
    /// Owned by gw-settle on the other end. Unbounded, so that finishing never blocks.
    done: Sender<Settlement>,
}

impl ActiveJob {
    pub(crate) fn job(&self) -> &Job {
        &self.claim.job
    }

    /// Whether the job had a key when it was claimed: if the row has none now, it was superseded.
    pub(crate) fn keyed(&self) -> bool {
        self.claim.job.key.is_some()
    }

    pub(crate) fn held_for(&self) -> Duration {
        self.claimed_at.elapsed()
    }

    /// The handler may begin: false if the claim was voided or given back meanwhile.
    pub(crate) fn start(&self) -> bool {
        let started = self.advance(HELD, RUNNING);
        if started {
            self.inside.store(true, Ordering::SeqCst);
            let _ = self.started.set((Instant::now(), std::thread::current()));
        }
        started
    }

    /// Ends the job, once: the second to try is told `false`, and its outcome is dropped.
    pub(crate) fn finish(self: &Arc<Self>, outcome: Outcome) -> bool {
        let finished = self.advance(RUNNING, FINISHED);
        if finished {
            let _ = self.finished.set((Instant::now(), outcome.name()));
            let _ = self.ran.set(self.started.get().map(|(start, _)| start.elapsed()).unwrap_or_default());
            // The receiver is gone only after a stop that has given this job back.
            let _ = self.done.send((self.clone(), outcome));
        }
        finished
    }

    /// Gives back a job that no handler has seen: false if one has.
    pub(crate) fn give_back(self: &Arc<Self>, delay: Option<Duration>) -> bool {
        self.end_unseen(Outcome::GivenBack(delay))
    }

    /// Fails a job that no handler has seen: false if one has.
    pub(crate) fn refuse(self: &Arc<Self>, failure: Failure) -> bool {
        self.end_unseen(Outcome::Failed(failure))
    }

    fn end_unseen(self: &Arc<Self>, outcome: Outcome) -> bool {
        let ended = self.advance(HELD, FINISHED);
        if ended {
            let _ = self.finished.set((Instant::now(), outcome.name()));
            let _ = self.done.send((self.clone(), outcome));
        }
        ended
    }

    /// The claim is worth nothing any more: not started, or cancelled with its outcome dropped.
    pub(crate) fn void(&self) -> bool {
        self.cancel();
        self.advance(HELD, VOID) || self.advance(RUNNING, VOID)
    }

    pub(crate) fn cancel(&self) {
        if !self.cancelled.swap(true, Ordering::AcqRel) {
            self.when_cancelled.get().inspect(|tell| tell());
        }
    }

    /// Has `tell` called when the job is cancelled; at once if it is already, and twice if both happen together.
    pub(crate) fn when_cancelled(&self, tell: impl Fn() + Send + Sync + 'static) {
        let _ = self.when_cancelled.set(Box::new(tell));
        if self.is_cancelled() {
            self.when_cancelled.get().inspect(|tell| tell());
        }
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Cancels it because it took too long: false if that is known already.
    pub(crate) fn time_out(&self) -> bool {
        let first = !self.timed_out.swap(true, Ordering::AcqRel);
        self.cancel();
        first
    }

    pub(crate) fn is_timed_out(&self) -> bool {
        self.timed_out.load(Ordering::Acquire)
    }

    /// Whether it is news that its handler ignores the timeout.
    pub(crate) fn report_wedged(&self) -> bool {
        !self.stuck.swap(true, Ordering::AcqRel)
    }

    /// Run again after `delay` instead of being done, if the handler succeeds.
    pub(crate) fn wish_snooze(&self, delay: Duration) {
        self.wishes.lock().snooze = Some(delay);
    }

    /// Try it again after `delay`, if the handler fails, whatever its task's policy says.
    pub(crate) fn wish_delay(&self, delay: Duration) {
        self.wishes.lock().delay = Some(delay);
    }

    /// Only this payload is left to do, if the handler fails.
    pub(crate) fn wish_rest(&self, payload: String) {
        self.wishes.lock().rest = Some(payload);
    }

    pub(crate) fn take_snooze(&self) -> Option<Duration> {
        self.wishes.lock().snooze.take()
    }

    pub(crate) fn take_delay(&self) -> Option<Duration> {
        self.wishes.lock().delay.take()
    }

    pub(crate) fn take_rest(&self) -> Option<String> {
        self.wishes.lock().rest.take()
    }

    pub(crate) fn is_held(&self) -> bool {
        self.state.load(Ordering::Acquire) == HELD
    }

    pub(crate) fn is_running(&self) -> bool {
        self.state.load(Ordering::Acquire) == RUNNING
    }

    /// For how long its outcome has been waiting to be written; `None` if it has none, or it is.
    pub(crate) fn unsettled_for(&self) -> Option<Duration> {
        self.unsettled().map(|(since, _)| since.elapsed())
    }

    /// Its outcome and when it got it, until the outcome is written.
    pub(crate) fn unsettled(&self) -> Option<(Instant, &'static str)> {
        let waits = !self.settled.load(Ordering::SeqCst);
        self.finished.get().filter(|_| waits).copied()
    }

    /// Its outcome waits because the database does not take it.
    pub(crate) fn note_deferred(&self) {
        self.deferred.get_or_init(Instant::now);
    }

    /// For how long its outcome has been deferred; `None` if it is not.
    pub(crate) fn deferred_for(&self) -> Option<Duration> {
        self.deferred.get().map(Instant::elapsed)
    }

    pub(crate) fn leave_to_others(&self) {
        self.left_to_others.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_left_to_others(&self) -> bool {
        self.left_to_others.load(Ordering::Relaxed)
    }

    /// Since when, and on which thread, the handler runs.
    pub(crate) fn started(&self) -> Option<(Instant, &str)> {
        self.started.get().map(|(since, thread)| (*since, thread.name().unwrap_or_default()))
    }

    /// How long the handler took.
    pub(crate) fn ran(&self) -> Duration {
        self.ran.get().copied().unwrap_or_default()
    }

    /// The reply to the statement that writes its outcome was lost.
    pub(crate) fn note_in_doubt(&self) {
        self.in_doubt.store(true, Ordering::SeqCst);
    }

    /// Whether a later claim of its job may start. The database let the job be claimed again, so an outcome that was
    /// being written is: unless it may be written again, which could undo the later claim.
    fn has_let_go(&self) -> bool {
        let written = self.finished.get().is_some() && !self.in_doubt.load(Ordering::SeqCst);
        // One that is settled has finished by itself; its handler is on its way out.
        self.settled.load(Ordering::SeqCst) || (written && !self.inside.load(Ordering::SeqCst))
    }

    /// Settled (or void), and left by its handler.
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

/// Every claim that this worker has not let go of.
#[derive(Default)]
pub(crate) struct Ledger {
    entries: Mutex<Entries>,
    held_bytes: Arc<AtomicUsize>,
}

/// What became of the jobs of one claim.
#[derive(Default)]
pub(crate) struct Entered {
    pub(crate) startable: Vec<Arc<ActiveJob>>,
    /// Jobs whose older claim is still here.
    pub(crate) doubled: Vec<Arc<ActiveJob>>,
    /// Older claims that had no outcome yet, and will have none.
    pub(crate) voided: Vec<Arc<ActiveJob>>,
}

#[derive(Default)]
struct Entries {
    /// The latest claim of each job.
    latest: HashMap<i64, Arc<ActiveJob>>,
    /// Claims of jobs that came back while these were still here.
    older: Vec<Arc<ActiveJob>>,
    /// Jobs that are claimed and not entered yet: their payloads are still read.
    coming: HashSet<i64>,
    last: u64,
}

impl Ledger {
    /// Enters what a claim brought. A job whose older claim is still here voids that claim, and is
    /// itself given back while the older handler runs.
    pub(crate) fn enter(&self, jobs: impl IntoIterator<Item = Arrival>, done: &Sender<Settlement>) -> Entered {
        let Entered { mut startable, mut doubled, mut voided } = Entered::default();
        let mut entries = self.entries.lock();
        for Arrival { task, job, alone, recovered, .. } in jobs {
            entries.last += 1;
            let number = entries.last;
            let id = job.id;
            entries.coming.remove(&id);
            self.held_bytes.fetch_add(job.payload.len(), Ordering::AcqRel);
            let active = Arc::new(ActiveJob {
                claim: Claim { number, task, job: Arc::new(job), alone, recovered },
                state: AtomicU8::new(HELD),
                cancelled: AtomicBool::new(false),
                when_cancelled: OnceLock::new(),
                timed_out: AtomicBool::new(false),
                stuck: AtomicBool::new(false),
                wishes: Mutex::default(),
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

    /// The handler has returned. Answers whether the job was settled before, and is forgotten now.
    pub(crate) fn returned(&self, active: &Arc<ActiveJob>) -> bool {
        active.inside.store(false, Ordering::SeqCst);
        // Mostly it is not settled yet, and `settled` lets it go. The later of the two sees both marks.
        let over = active.is_over();
        if over {
            self.let_go(std::slice::from_ref(active));
        }
        over
    }

    /// The database knows the outcome, or there is none to tell.
    pub(crate) fn settled(&self, actives: &[Arc<ActiveJob>]) {
        for active in actives {
            active.settled.store(true, Ordering::SeqCst);
        }
        self.let_go(actives);
    }

    /// Forgets the claims that are over.
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

    /// The size of the payloads of all jobs that are held and not started.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes.load(Ordering::Acquire)
    }

    /// Notes jobs that are claimed, and entered later.
    pub(crate) fn expect(&self, jobs: impl IntoIterator<Item = i64>) {
        self.entries.lock().coming.extend(jobs);
    }

    /// Every job that is ours as far as we know, and has a claim in the ledger or will have one.
    pub(crate) fn known(&self) -> HashSet<i64> {
        let entries = self.entries.lock();
        let older = entries.older.iter().map(|active| active.claim.job.id);
        entries.latest.keys().copied().chain(older).chain(entries.coming.iter().copied()).collect()
    }

    /// Whether no later claim of its job has come.
    pub(crate) fn is_latest(&self, active: &Arc<ActiveJob>) -> bool {
        let entries = self.entries.lock();
        entries.latest.get(&active.claim.job.id).is_none_or(|latest| Arc::ptr_eq(latest, active))
    }

    /// Everything in the ledger, in the order of the claims.
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
        let job = Job {
            id,
            task_identifier: "t".into(),
            queue_id: None,
            payload: b"{}".to_vec(),
            priority: 0,
            run_at: chrono::DateTime::UNIX_EPOCH,
            attempts: 1,
            max_attempts: 25,
            created_at: chrono::DateTime::UNIX_EPOCH,
            key: None,
            revision: 0,
            flags: None,
        };
        Arrival { task: 0, job, alone: false, recovered: false, apart: None, unreadable: None }
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
    fn a_claim_of_a_job_still_held_voids_the_older_and_is_given_back() {
        let (ledger, older, done, settle) = claimed(1);
        older.start();
        let Entered { startable, doubled, voided } = ledger.enter([job(1), job(2)], &done);
        assert_eq!((startable.len(), doubled.len(), voided.len()), (1, 1, 1));
        assert!(older.is_cancelled());
        assert!(!older.finish(Outcome::Done), "its outcome is dropped");
        assert_eq!(settle.len(), 0);
    }

    #[test]
    fn the_bytes_of_a_payload_are_held_until_its_job_starts_goes_back_or_is_void() {
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
    fn a_job_that_was_given_back_can_be_claimed_before_that_is_known_here() {
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
    fn an_entry_lives_until_its_handler_has_returned() {
        let (ledger, active, _, _settle) = claimed(1);
        active.start();
        active.finish(Outcome::GivenBack(None));
        ledger.settled(std::slice::from_ref(&active));
        assert_eq!(ledger.len(), 1, "the handler is still inside");
        assert!(ledger.returned(&active), "it was settled before");
        assert_eq!(ledger.len(), 0);
    }

    #[test]
    fn an_entry_outlives_its_handler_until_it_is_settled() {
        let (ledger, active, _, _settle) = claimed(1);
        active.start();
        active.finish(Outcome::Done);
        assert!(!ledger.returned(&active), "its outcome is still to be written");
        assert_eq!(ledger.len(), 1);
        ledger.settled(std::slice::from_ref(&active));
        assert_eq!(ledger.len(), 0);
    }
}
