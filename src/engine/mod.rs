//! What the threads of one worker share. One thread is one file beside this one.

pub(crate) mod avoid;
pub(crate) mod claim_plan;
pub(crate) mod dispatch;
pub(crate) mod error_log;
pub(crate) mod fetch;
pub(crate) mod frontier;
pub(crate) mod gates;
pub(crate) mod halves;
pub(crate) mod held;
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
pub(crate) mod stop_signals;
pub(crate) mod store;
pub(crate) mod timeouts;

use crate::backoff::random_bits;
use crate::config::Config;
use crate::db::Database;
use crate::db::migrate::Facts;
use crate::engine::stats::{Health, Stats};
use crate::engine::store::{Role, Store};
use crate::error::{Error, ErrorKind};
use crate::hooks::observers::Events;
use crate::hooks::{HookRegistry, JobLost, JobLostContext};
use crate::job::active::{ActiveJob, Ledger, Settlement};
use crate::tasks::{StartedJob, Task, WorkerContext};
use avoid::Avoided;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use error_log::ErrorLog;
use fetch::{Fetched, Order};
use frontier::Frontier;
use gates::Gates;
use held::HeldJobs;
use parking_lot::{Mutex, RwLock};
use slot::Slots;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use stop_signals::StopSignals;

/// How often a statement is retried after a transient error. A user's trigger can raise such an error for one row each
/// time, so after that the error counts as a refusal.
const TRANSIENT_TRIES: usize = 3;

/// What the threads of one started worker share. Each thread is handed a reference to it.
pub(crate) struct Shared {
    /// A random name for each start: two starts never settle each other's jobs.
    pub(crate) worker_id: String,
    pub(crate) config: Arc<Config>,
    pub(crate) tasks: Arc<Vec<Task>>,
    pub(crate) database: Database,
    pub(crate) facts: Facts,
    /// Each task's id in the database, and its place in `tasks`. Written by gw-lease.
    pub(crate) task_ids: RwLock<Arc<HashMap<i32, usize>>>,
    pub(crate) ledger: Ledger,
    pub(crate) held: HeldJobs,
    pub(crate) slots: Slots,
    pub(crate) gates: Gates,
    /// The jobs whose claim the database refuses.
    pub(crate) avoided: Avoided,
    /// Where the next claim looks for jobs.
    pub(crate) frontier: Frontier,
    /// How many outcomes are deferred because the database does not write them now. Written by gw-settle.
    pub(crate) deferred: AtomicUsize,
    /// Why the worker stops by itself: a newer worker has changed the schema. `run` returns it.
    pub(crate) refusal: Mutex<Option<Error>>,
    pub(crate) stop: StopSignals,
    pub(crate) channels: Channels,
    pub(crate) stats: Arc<Stats>,
    pub(crate) health: Arc<Health>,
    pub(crate) error_log: ErrorLog,
    /// To the observers, on gw-events.
    pub(crate) events: Arc<Events>,
}

/// The channels between the threads. Those of `()` are signals with room for one.
pub(crate) struct Channels {
    /// listen -> dispatch: there may be new jobs.
    pub(crate) wake: (Sender<()>, Receiver<()>),
    /// run, settle -> dispatch: few jobs are left for the threads, or a job has ended.
    pub(crate) low: (Sender<()>, Receiver<()>),
    /// settle, lease -> dispatch: a queue came free, or jobs went back.
    pub(crate) freed: (Sender<()>, Receiver<()>),
    /// Any thread -> lease: find out what this worker holds.
    pub(crate) reconcile: (Sender<()>, Receiver<()>),
    /// lease -> recovery: another worker of this library may be dead.
    pub(crate) silent: (Sender<()>, Receiver<()>),
    /// dispatch -> fetch, one for each.
    pub(crate) orders: Vec<(Sender<Order>, Receiver<Order>)>,
    /// fetch -> dispatch.
    pub(crate) fetched: (Sender<Fetched>, Receiver<Fetched>),
    /// gw-alone -> the caller of `next`: an exclusive job that has started.
    pub(crate) alone: (Sender<StartedJob>, Receiver<StartedJob>),
    /// stop, watch, lease -> the caller of `next`: a job that was handed out is cancelled.
    pub(crate) notices: (Sender<WorkerContext>, Receiver<WorkerContext>),
    /// run, fetch, dispatch -> settle.
    pub(crate) done: (Sender<Settlement>, Receiver<Settlement>),
}

impl Channels {
    fn new(claimers: usize) -> Self {
        Self {
            alone: unbounded(),
            notices: unbounded(),
            wake: bounded(1),
            low: bounded(1),
            freed: bounded(1),
            reconcile: bounded(1),
            silent: bounded(1),
            orders: (0..claimers).map(|_| bounded(1)).collect(),
            fetched: unbounded(),
            done: unbounded(),
        }
    }
}

/// Sends a signal. If an earlier one was not received yet, that one is enough.
pub(crate) fn signal(channel: &Sender<()>) {
    let _ = channel.try_send(());
}

impl Shared {
    pub(crate) fn new(
        config: Arc<Config>,
        tasks: Arc<Vec<Task>>,
        task_ids: HashMap<i32, usize>,
        database: Database,
        facts: Facts,
        hooks: Arc<HookRegistry>,
    ) -> Self {
        let worker_id = new_worker_id();
        let channels = Channels::new(config.claimers);
        let (stats, health) = (Arc::new(Stats::default()), Arc::new(Health::new()));
        Self {
            events: Arc::new(Events::new(hooks, &worker_id)),
            error_log: ErrorLog::new(&worker_id, stats.clone(), health.clone()),
            gates: Gates::new(health.clone(), config.recovery.doubt_after(), channels.reconcile.0.clone()),
            held: HeldJobs::new(channels.low.0.clone()),
            slots: Slots::new(config.concurrency),
            frontier: Frontier::new(config.poll_interval),
            worker_id,
            config,
            tasks,
            database,
            facts,
            task_ids: RwLock::new(Arc::new(task_ids)),
            ledger: Ledger::default(),
            avoided: Avoided::default(),
            deferred: AtomicUsize::new(0),
            refusal: Mutex::new(None),
            stop: StopSignals::new(),
            channels,
            stats,
            health,
        }
    }

    /// The statements of one thread, on a session of its own.
    pub(crate) fn store(&self, role: Role) -> Store {
        Store::new(&self.database, &self.config.schema, &self.worker_id, role, &self.stop.interrupt)
    }

    /// The names of the tasks that this worker has.
    pub(crate) fn task_names(&self) -> Vec<String> {
        self.tasks.iter().map(|task| task.name.to_string()).collect()
    }

    /// Logs an error that leaves open what the database did, and requests a reconcile. If the error breaks the session,
    /// no held job starts until gw-lease has reconciled.
    pub(crate) fn in_doubt(&self, doing: &str, error: &Error) {
        if error.kind() == ErrorKind::Stopped {
            return;
        }
        self.error_log.retried(doing, error);
        if error.breaks_session() {
            self.gates.doubt.close();
        }
        signal(&self.channels.reconcile.0);
    }

    /// Jobs of this worker have become available again. They may be before all that the last claims looked at.
    pub(crate) fn came_back(&self) {
        self.frontier.look_everywhere();
        signal(&self.channels.freed.0);
    }

    /// Ends the doubt: it is known again which jobs are this worker's.
    pub(crate) fn end_doubt(&self) {
        self.gates.doubt.open();
        self.notify_puller();
    }

    /// Lets other jobs start again, because the exclusive job has ended or does not start.
    pub(crate) fn let_others_run(&self) {
        self.gates.exclusive.open();
        self.came_back();
        self.notify_puller();
    }

    /// Notifies the observers of a job that is not this worker's any more, and gw-lease if the job may have been the one
    /// whose outcome was to free its queue.
    pub(crate) fn tell_lost(&self, active: &ActiveJob) {
        if active.claim.series.is_some() {
            signal(&self.channels.reconcile.0);
        }
        self.events
            .send(JobLost, || JobLostContext { job: active.claim.job.clone(), worker_id: self.worker_id.clone() });
    }

    /// Gives back the jobs that no thread has started, for other workers to run; returns how many jobs that were.
    pub(crate) fn take_back(&self) -> usize {
        let back = |active: &Arc<ActiveJob>| {
            let back = active.give_back(None);
            if !back {
                // It was lost while it waited, and no other thread will see it.
                self.leave(active);
            }
            back
        };
        self.held.drain().filter(back).count()
    }

    /// No handler has the job any more, or none ever had it.
    pub(crate) fn leave(&self, active: &Arc<ActiveJob>) {
        if self.ledger.returned(active) {
            // It was settled while a handler still had it. This, and not settling, may be the last thing that a run
            // until empty waits for.
            signal(&self.channels.low.0);
        }
    }

    /// Frees a slot, and wakes up the thread or the host that waits for one.
    pub(crate) fn free_slot(&self, number: usize) {
        self.slots.free(number, &self.stop.begun);
        if self.stop.begun.is_triggered() || self.held.len() > 0 {
            self.notify_puller();
        } else if self.config.pull.is_some() {
            // No thread waits for a job in pull mode, so none signals dispatch, which counts free slots.
            signal(&self.channels.low.0);
        }
    }

    /// How many further jobs could start now.
    pub(crate) fn idle(&self) -> usize {
        match self.config.pull {
            Some(_) => self.slots.count_free(),
            None => self.held.idle(),
        }
    }

    /// Notifies the caller of `next`, in pull mode: there may be a job now, or the worker stops.
    pub(crate) fn notify_puller(&self) {
        if let Some(pull) = &self.config.pull {
            (pull.notify)();
        }
    }

    /// The jobs whose handlers run.
    pub(crate) fn running(&self) -> Vec<Arc<ActiveJob>> {
        self.ledger.all().into_iter().filter(|active| active.is_running()).collect()
    }
}

/// A new name for one start of a worker. Never a host's or a process's name, which may be used again.
fn new_worker_id() -> String {
    let digits = format!("{:016x}{:016x}", random_bits(), random_bits());
    format!("graphile_worker_{}", &digits[..18])
}
