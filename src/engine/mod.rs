//! What the threads of one worker share. One thread is one file beside this one.

pub(crate) mod avoid;
pub(crate) mod core;
pub(crate) mod dispatch;
pub(crate) mod fetch;
pub(crate) mod halves;
pub(crate) mod intake;
pub(crate) mod lease;
pub(crate) mod listen;
pub(crate) mod local_queue_events;
pub(crate) mod pull;
pub(crate) mod recovery;
pub(crate) mod run;
pub(crate) mod scheduler;
pub(crate) mod settle;
pub(crate) mod slot;
pub(crate) mod stats;
pub(crate) mod store;
pub(crate) mod timeouts;

use crate::config::Config;
use crate::db::Database;
use crate::db::migrate::Facts;
use crate::db::session::Interrupt;
use crate::engine::stats::{Health, Stats, add};
use crate::engine::store::Store;
use crate::error::{Error, ErrorKind};
use crate::hooks::events::Events;
use crate::hooks::{JobLost, JobLostContext};
use crate::job::active::{ActiveJob, Ledger, Settlement};
use crate::lock::held;
use crate::shutdown::ShutdownSignal;
use crate::tasks::{StartedJob, Task, WorkerContext};
use avoid::Avoided;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use fetch::{Fetched, Order};
use log::warn;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How often a statement is tried again after an error that may pass. A trigger of the user's can raise such an error for
/// one row each time, so after that the error counts as a refusal.
const TRANSIENT_TRIES: usize = 3;

/// What every thread of one started worker can reach.
pub(crate) struct Shared {
    /// One random name per start: two starts never settle each other's jobs.
    pub(crate) worker_id: String,
    pub(crate) config: Arc<Config>,
    pub(crate) tasks: Arc<Vec<Task>>,
    pub(crate) database: Database,
    pub(crate) facts: Facts,
    pub(crate) ledger: Ledger,
    pub(crate) stats: Stats,
    /// The database's id of each task, and which of our tasks it is. Renewed by gw-lease.
    pub(crate) task_ids: RwLock<Arc<HashMap<i32, usize>>>,
    /// The jobs that the database refuses to let us claim.
    pub(crate) avoided: Avoided,
    /// Read from before a claim is sent until the ledger has its jobs: who holds it for writing sees no
    /// claim in flight.
    pub(crate) claiming: RwLock<()>,
    /// Closed while nobody can say which held jobs are still ours, and before the first beat.
    pub(crate) gate: Gate,
    /// Closed while one job is to run alone: all others wait.
    pub(crate) others: Gate,
    /// What runs, by its slot.
    pub(crate) now_running: Vec<Mutex<Option<Arc<ActiveJob>>>>,
    /// How many outcomes wait because the database does not take them.
    pub(crate) deferred: AtomicUsize,
    /// How many threads wait for a job.
    pub(crate) idle: AtomicUsize,
    /// How many jobs threads have taken, ever: no change means no thread came free.
    pub(crate) taken: AtomicUsize,
    /// Below this many waiting jobs a thread that takes one asks dispatch for more.
    pub(crate) low_water: AtomicUsize,
    /// Why the worker stops by itself: a newer worker has changed the schema. `run` returns it.
    pub(crate) refusal: Mutex<Option<Error>>,
    /// Ends claiming: the first step of a stop.
    pub(crate) stop: ShutdownSignal,
    /// Running jobs are not waited for any longer.
    pub(crate) cancel: ShutdownSignal,
    /// No more outcomes will come: settle writes what it has, listen ends.
    pub(crate) over: ShutdownSignal,
    /// All outcomes are written: lease looks a last time.
    pub(crate) left: ShutdownSignal,
    /// Ends whatever the database keeps waiting: the last step.
    pub(crate) interrupt: Interrupt,
    pub(crate) channels: Channels,
    pub(crate) error_log: ErrorLog,
    pub(crate) health: Arc<Health>,
    /// To the observers, on gw-events.
    pub(crate) events: Arc<Events>,
}

/// The channels between the threads. All wakes have room for one: a storm costs nothing.
pub(crate) struct Channels {
    /// listen -> dispatch: there may be new jobs.
    pub(crate) wake: (Sender<()>, Receiver<()>),
    /// run -> dispatch: few jobs are left for the threads.
    pub(crate) low: (Sender<()>, Receiver<()>),
    /// settle, lease -> dispatch: a queue came free, or jobs went back.
    pub(crate) freed: (Sender<()>, Receiver<()>),
    /// anybody -> lease: find out what we really hold.
    pub(crate) reconcile: (Sender<()>, Receiver<()>),
    /// lease -> recovery: another worker of ours may be dead.
    pub(crate) silent: (Sender<()>, Receiver<()>),
    /// dispatch -> fetch, one for each.
    pub(crate) orders: Vec<(Sender<Order>, Receiver<Order>)>,
    /// fetch -> dispatch.
    pub(crate) fetched: (Sender<Fetched>, Receiver<Fetched>),
    /// fetch -> run, or whoever pulls.
    pub(crate) jobs: (Sender<Arc<ActiveJob>>, Receiver<Arc<ActiveJob>>),
    /// The free slots: whoever takes one may start a job.
    pub(crate) slots: (Sender<usize>, Receiver<usize>),
    /// run -> the stop: a slot came free.
    pub(crate) slot_freed: (Sender<()>, Receiver<()>),
    /// gw-alone -> whoever pulls: a job that had to wait until it was alone.
    pub(crate) alone: (Sender<StartedJob>, Receiver<StartedJob>),
    /// stop, watch, lease -> whoever pulls: a job that was given out is cancelled.
    pub(crate) notices: (Sender<WorkerContext>, Receiver<WorkerContext>),
    /// run, fetch, dispatch -> settle.
    pub(crate) done: (Sender<Settlement>, Receiver<Settlement>),
}

impl Channels {
    pub(crate) fn new(claimers: usize, concurrency: usize) -> Self {
        let slots = bounded(concurrency);
        (0..concurrency).for_each(|number| slots.0.send(number).expect("room for all"));
        Self {
            slots,
            slot_freed: bounded(1),
            alone: unbounded(),
            notices: unbounded(),
            wake: bounded(1),
            low: bounded(1),
            freed: bounded(1),
            reconcile: bounded(1),
            silent: bounded(1),
            orders: (0..claimers).map(|_| bounded(1)).collect(),
            fetched: unbounded(),
            jobs: unbounded(),
            done: unbounded(),
        }
    }
}

/// Raises a wake; one that is still waiting to be seen is enough.
pub(crate) fn raise(wire: &(Sender<()>, Receiver<()>)) {
    let _ = wire.0.try_send(());
}

impl Shared {
    /// The statements of one thread, on a session of its own.
    pub(crate) fn store(&self, role: &'static str) -> Store {
        Store::new(&self.database, &self.config.schema, &self.worker_id, role, &self.interrupt)
    }

    /// The names of the tasks that this worker has.
    pub(crate) fn task_names(&self) -> Vec<String> {
        self.tasks.iter().map(|task| task.name.to_string()).collect()
    }

    /// Notes a database error that will be tried again, in the log at most twice a second.
    pub(crate) fn complain(&self, doing: &str, error: &Error) {
        self.health.failed();
        self.error_log.count(&self.stats);
        let worker_id = self.worker_id.as_str();
        self.error_log.say(|left_out| {
            warn!(worker_id, doing, error:% = error, left_out; "the database failed, trying again");
        });
    }

    /// Notes that the database refused to write a row. It is not the database's fault, and no sweep waits for it.
    pub(crate) fn report(&self, doing: &str, error: &Error) {
        let worker_id = self.worker_id.as_str();
        self.error_log.count(&self.stats);
        self.error_log.say(|left_out| {
            warn!(worker_id, doing, error:% = error, left_out; "the database refused a row, others were not affected");
        });
    }

    /// The same as `complain` for an error that leaves open what the database did: until lease has found out, no
    /// held job starts.
    pub(crate) fn in_doubt(&self, doing: &str, error: &Error) {
        if error.kind() == ErrorKind::Stopped {
            return;
        }
        self.complain(doing, error);
        if error.breaks_session() {
            self.gate.close();
        }
        raise(&self.channels.reconcile);
    }

    /// Holds the caller back while nobody can say what is ours. Before every claim and every start: a
    /// worker that was silent for some beats may have been taken for dead, and its jobs with it.
    pub(crate) fn pass_gate(&self) {
        self.look_for_silence();
        self.gate.pass();
    }

    /// The same for those who must not wait: whether they are held back.
    pub(crate) fn is_held_up(&self) -> bool {
        self.is_in_doubt() || self.others.holds()
    }

    /// Whether nobody can say what is ours.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.look_for_silence();
        self.gate.holds()
    }

    fn look_for_silence(&self) {
        if self.health.is_silent(self.config.recovery.suspicion()) {
            self.gate.close();
            raise(&self.channels.reconcile);
        }
    }

    /// It is known again what is ours.
    pub(crate) fn open_gate(&self) {
        self.gate.open();
        self.notify_puller();
    }

    /// Waits until a claim may be sent; until the answer is dropped, nobody sees one not in flight.
    /// `None` at a stop.
    pub(crate) fn may_claim(&self) -> Option<RwLockReadGuard<'_, ()>> {
        loop {
            self.others.pass();
            self.pass_gate();
            let claiming = self.claiming.read();
            if self.stop.is_triggered() {
                return None;
            }
            if !self.others.is_closed() && !self.gate.is_closed() {
                return Some(claiming);
            }
        }
    }

    /// Tells the observers of a job that is no longer ours.
    pub(crate) fn tell_lost(&self, active: &ActiveJob) {
        self.events
            .send(JobLost, || JobLostContext { job: active.claim.job.clone(), worker_id: self.worker_id.clone() });
    }

    /// Gives back what no thread has begun, for others to run; answers how many jobs that were.
    pub(crate) fn take_back(&self) -> usize {
        let back = |active: &Arc<ActiveJob>| {
            let back = active.give_back(None);
            if !back {
                // It was lost while it waited, and nobody else comes across it.
                self.leave(active);
            }
            back
        };
        self.channels.jobs.1.try_iter().filter(back).count()
    }

    /// For how long the oldest handler of this task has been running. Jobs that it left to others keep no thread busy.
    pub(crate) fn oldest_running(&self, task: usize) -> Duration {
        let age = |running: &Mutex<Option<Arc<ActiveJob>>>| {
            let running = running.lock();
            let active = running.as_ref().filter(|active| active.claim.task == task && !active.is_left_to_others())?;
            active.started().map(|(since, _)| since.elapsed())
        };
        self.now_running.iter().filter_map(age).max().unwrap_or_default()
    }

    /// What the threads run now, stuck and voided jobs included.
    pub(crate) fn at_work(&self) -> Vec<Arc<ActiveJob>> {
        self.now_running.iter().filter_map(|running| running.lock().clone()).collect()
    }

    /// The jobs whose handlers run.
    pub(crate) fn running(&self) -> Vec<Arc<ActiveJob>> {
        self.ledger.all().into_iter().filter(|active| active.is_running()).collect()
    }
}

/// Holds started threads back while it is closed.
#[derive(Default)]
pub(crate) struct Gate {
    closed: AtomicBool,
    /// The worker stops: nobody is held back any more.
    released: AtomicBool,
    /// Threads wait here for long: see `lock.rs`.
    lock: std::sync::Mutex<()>,
    opened: std::sync::Condvar,
}

impl Gate {
    pub(crate) fn closed() -> Self {
        Self { closed: AtomicBool::new(true), ..Self::default() }
    }

    /// Answers whether it was open.
    pub(crate) fn close(&self) -> bool {
        !self.closed.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn open(&self) {
        self.closed.store(false, Ordering::Release);
        let _held = self.lock.lock();
        self.opened.notify_all();
    }

    /// Opens it for good.
    pub(crate) fn release(&self) {
        self.released.store(true, Ordering::Release);
        self.open();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether it is closed, and somebody would be held back.
    pub(crate) fn holds(&self) -> bool {
        self.closed.load(Ordering::Acquire) && !self.released.load(Ordering::Acquire)
    }

    pub(crate) fn pass(&self) {
        if !self.closed.load(Ordering::Acquire) {
            return;
        }
        drop(self.opened.wait_while(held(self.lock.lock()), |()| self.holds()));
    }
}

/// Keeps warnings of database errors from flooding the log: two lines a second, and how many were left out.
pub(crate) struct ErrorLog(Mutex<Quota>);

/// What was said in the second that began at `since`.
struct Quota {
    since: Instant,
    said: u32,
    left_out: u64,
}

impl ErrorLog {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Quota { since: Instant::now(), said: 0, left_out: 0 }))
    }

    /// Counts an error whose line somebody else has written.
    pub(crate) fn count(&self, stats: &Stats) {
        add(&stats.database_errors, 1);
    }

    /// Calls `write` with how many lines were left out before this one, unless this one is left out.
    pub(crate) fn say(&self, write: impl FnOnce(u64)) {
        let quota = self.0.lock().take(Instant::now());
        if let Some(left_out) = quota {
            write(left_out);
        }
    }
}

impl Quota {
    /// Whether one more line may be written now; answers how many were left out before it.
    fn take(&mut self, now: Instant) -> Option<u64> {
        const PER_SECOND: u32 = 2;
        if now.duration_since(self.since) >= Duration::from_secs(1) {
            (self.since, self.said) = (now, 0);
        }
        if self.said == PER_SECOND {
            self.left_out += 1;
            return None;
        }
        self.said += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_complaints_a_second_are_written_and_the_next_says_how_many_were_not() {
        let start = Instant::now();
        let mut quota = Quota { since: start, said: 0, left_out: 0 };
        let mut at = |millis| quota.take(start + Duration::from_millis(millis));
        assert_eq!([at(0), at(1), at(2), at(999)], [Some(0), Some(0), None, None]);
        assert_eq!([at(1000), at(1001), at(1002)], [Some(2), Some(0), None]);
        assert_eq!(at(5000), Some(1));
    }
}
