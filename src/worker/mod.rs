//! Starts all threads of a worker, waits for a stop, and ends the threads in order, each with a deadline.
//! The only file that uses all modules of the engine.

pub(crate) mod options;
mod signals;

use crate::client::WorkerUtils;
use crate::config::{Config, Sweeps};
use crate::cron::crontab::Cron;
use crate::db::migrate::Facts;
use crate::db::{Database, refuse_async_context};
use crate::engine::pull::JobSource;
use crate::engine::slot::Waited;
use crate::engine::stats::WorkerStats;
use crate::engine::{Shared, dispatch, fetch, lease, listen, recovery, run, scheduler, settle, timeouts};
use crate::error::{Error, ErrorKind, Result};
use crate::extensions::{Extensions, ReadOnlyExtensions};
use crate::hooks::{ShutdownReason, WorkerShutdownContext, WorkerStart, WorkerStartContext};
use crate::job::active::{ActiveJob, Outcome};
use crate::shutdown::ShutdownSignal;
use crate::tasks::{Task, WorkerEnv};
use crossbeam_channel::{Receiver, bounded, select};
use log::{error, info, warn};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long cancelled jobs have to end before they are given back.
const CANCEL_TIME: Duration = Duration::from_millis(500);

/// How long after the grace period a stop may take at most.
const STOP_TIME: Duration = Duration::from_secs(1);

/// The least time limit of a database call during a stop. The limit is half of the grace period if that is longer.
const LEAST_STOP_LIMIT: Duration = Duration::from_millis(200);

/// A worker, ready to run. Returned by [`WorkerOptions::init`](crate::WorkerOptions::init).
///
/// Threads may share it: one calls [`run`](Self::run), any other [`request_shutdown`](Self::request_shutdown) or
/// [`stats`](Self::stats).
pub struct Worker {
    config: Arc<Config>,
    database: Database,
    facts: Facts,
    tasks: Arc<Vec<Task>>,
    task_ids: HashMap<i32, usize>,
    utils: WorkerUtils,
    extensions: Arc<Extensions>,
    crons: Arc<Vec<Cron>>,
    /// The start that runs now, or ran last.
    current: Mutex<Option<Arc<Shared>>>,
    /// Held while the worker runs.
    running: Mutex<()>,
    stop: ShutdownSignal,
}

impl Worker {
    pub(crate) fn new(
        config: Config,
        database: Database,
        facts: Facts,
        tasks: Vec<Task>,
        task_ids: HashMap<i32, usize>,
        utils: WorkerUtils,
        extensions: Extensions,
    ) -> Self {
        Self {
            config: Arc::new(config),
            database,
            facts,
            tasks: Arc::new(tasks),
            task_ids,
            utils,
            extensions: Arc::new(extensions),
            crons: Arc::default(),
            current: Mutex::new(None),
            running: Mutex::new(()),
            stop: ShutdownSignal::new(),
        }
    }

    /// Also adds the jobs of these crontab entries while the worker runs.
    pub(crate) fn with_crons(self, crons: Vec<Cron>) -> Self {
        Self { crons: Arc::new(crons), ..self }
    }

    /// Runs jobs on the worker's own threads, and blocks the caller until a stop:
    /// [`request_shutdown`](Self::request_shutdown), the caller's shutdown signal, or a signal of the operating system.
    /// Returns at most one second after the end of the grace period. No database error ends it.
    ///
    /// # Errors
    /// - `Stopped`, with job, task and thread, if handlers did not return in time. Their jobs were given back; their
    ///   threads go on.
    /// - `Stopped`, with job, task and outcome, if outcomes could not be written. The database was away or refused
    ///   them, or another session held their rows. These jobs may run again.
    /// - `Schema` if a newer worker makes a breaking migration meanwhile: the worker then stops by itself, as Node's
    ///   does.
    /// - `Misuse` if the worker runs already, or if the calling thread belongs to an async runtime.
    ///
    /// See the deployment guide, section Worker Process (docs/deployment-guide.async.md).
    pub fn run(&self) -> Result<()> {
        self.live(false, |_| (), || ())
    }

    /// Runs jobs until none is due, then returns. Jobs that become due meanwhile run too. A job that fails waits for
    /// its next attempt, and the call does not wait for it. If the database does not write an outcome, the call waits
    /// for it at most the grace period.
    ///
    /// It adds no jobs of crontab entries, including those that `fill` would add later, and recovers no jobs of dead
    /// workers. Workers that [`run`](Self::run) do both. Node's `runOnce` and the async crate's `run_once` do the same.
    ///
    /// # Errors
    /// As [`run`](Self::run). `Stopped` also names the jobs whose claim the database refuses.
    pub fn run_once(&self) -> Result<()> {
        self.live(true, |_| (), || ())
    }

    /// Requests a stop, and returns at once. May be called from any thread, also from a handler. If it is called before
    /// [`run`](Self::run), `run` returns at once.
    pub fn request_shutdown(&self) {
        self.stop.trigger();
    }

    /// Requests a stop without the grace period: running jobs are cancelled at once. May also follow
    /// [`request_shutdown`](Self::request_shutdown), as a second signal does.
    pub fn abort(&self) {
        self.stop.trigger();
        self.current.lock().as_ref().inspect(|shared| shared.stop.cancelled.trigger());
    }

    /// Whether every outcome that was set by now is in the database.
    pub(crate) fn is_settled(&self) -> bool {
        let shared = self.current.lock().clone();
        shared.is_none_or(|shared| shared.ledger.all().iter().all(|active| active.unsettled_for().is_none()))
    }

    /// Returns utilities that add and manage jobs on the worker's own connections.
    pub fn create_utils(&self) -> WorkerUtils {
        self.utils.clone()
    }

    /// The id with which the worker locks jobs: new at each start, `None` before the first.
    pub fn worker_id(&self) -> Option<String> {
        self.current.lock().as_ref().map(|shared| shared.worker_id.clone())
    }

    /// What the worker has done since its last start. All values are zero or empty before the first start.
    pub fn stats(&self) -> WorkerStats {
        let Some(shared) = self.current.lock().clone() else { return WorkerStats::default() };
        let all = shared.ledger.all();
        let count = |is: fn(&ActiveJob) -> bool| all.iter().filter(|active| is(active)).count() as u64;
        let (held, running) = (count(ActiveJob::is_held), count(ActiveJob::is_running));
        let unsettled: Vec<Duration> = all.iter().filter_map(|active| active.unsettled_for()).collect();
        WorkerStats {
            held,
            running,
            in_flight: held + running + unsettled.len() as u64,
            settle_lag: unsettled.into_iter().max().unwrap_or_default(),
            events_dropped: shared.events.dropped(),
            sessions: shared.database.sessions(),
            ..shared.stats.snapshot()
        }
    }

    /// Runs the worker. `begins` receives the job source before the first job, `started` is called when all threads
    /// run.
    pub(crate) fn live(
        &self,
        until_empty: bool,
        begins: impl FnOnce(&JobSource),
        started: impl FnOnce(),
    ) -> Result<()> {
        refuse_async_context()?;
        let Some(_running) = self.running.try_lock() else {
            return Err(Error::new(ErrorKind::Misuse, "the worker runs already; make another one with init()"));
        };
        let shared = Arc::new(self.start());
        *self.current.lock() = Some(shared.clone());
        let _signals = self.config.listen_signals.then(|| signals::listen(&shared.stop.begun, &shared.stop.cancelled));
        info!(worker_id = shared.worker_id.as_str(), schema = self.config.schema.name(), concurrency = self.config.concurrency,
            tasks = self.tasks.len(); "worker started");

        if until_empty && !self.crons.is_empty() {
            warn!(worker_id = shared.worker_id.as_str(), entries = self.crons.len();
                "a run until no job is due adds no jobs of crontab entries; a worker that runs until it is stopped does");
        }

        let env = Arc::new(WorkerEnv {
            worker_id: shared.worker_id.clone(),
            utils: self.utils.clone(),
            extensions: self.extensions.clone(),
        });
        let source = JobSource { shared: shared.clone(), env };
        begins(&source);
        let threads = Threads::start(&source, &self.crons, until_empty)?;
        started();
        shared.events.send(WorkerStart, || WorkerStartContext {
            utils: self.utils.clone(),
            worker_id: shared.worker_id.clone(),
            extensions: ReadOnlyExtensions(self.extensions.clone()),
        });
        let never = crossbeam_channel::never();
        let callers = self.config.shutdown.as_ref().map_or(&never, ShutdownSignal::receiver);
        let reason = select! {
            recv(self.stop.receiver()) -> _ => ShutdownReason::Graceful,
            recv(shared.stop.begun.receiver()) -> _ => match *shared.refusal.lock() {
                Some(_) => ShutdownReason::Error,
                None => ShutdownReason::Signal,
            },
            recv(callers) -> _ => ShutdownReason::Graceful,
            // Only a run until empty ends by itself.
            recv(threads.dispatch.finished) -> _ => ShutdownReason::Graceful,
        };
        let stopped = threads.stop(&shared, &self.utils, reason, until_empty);
        match (shared.refusal.lock().take(), stopped) {
            (None, stopped) => stopped,
            (Some(refusal), Ok(())) => Err(refusal),
            (Some(refusal), Err(error)) => Err(Error::new(refusal.kind(), format!("{refusal}; {error}"))),
        }
    }

    fn start(&self) -> Shared {
        Shared::new(
            self.config.clone(),
            self.tasks.clone(),
            self.task_ids.clone(),
            self.database.clone(),
            self.facts.clone(),
            self.utils.hooks().clone(),
        )
    }
}

/// A thread, and a channel that closes when it ends.
struct ThreadHandle {
    name: String,
    finished: Receiver<Infallible>,
    thread: JoinHandle<()>,
}

impl ThreadHandle {
    fn start(name: String, shared: &Arc<Shared>, work: impl FnOnce(&Shared) + Send + 'static) -> Result<Self> {
        let (ends_with_the_thread, finished) = bounded(0);
        let shared = shared.clone();
        let thread = thread::Builder::new()
            .name(name.clone())
            .spawn(move || {
                let _ends = ends_with_the_thread;
                work(&shared);
            })
            .map_err(|e| Error::new(ErrorKind::Misuse, format!("cannot start thread {name}: {e}")).caused_by(e))?;
        Ok(Self { name, finished, thread })
    }

    /// Waits for the thread until `deadline`, then leaves it behind. Returns whether it ended.
    fn join(self, deadline: Instant) -> bool {
        let ended = self.ended_by(deadline);
        if ended && self.thread.join().is_err() {
            error!(thread = self.name.as_str(); "a thread of the worker panicked; please report this");
        }
        ended
    }

    fn ended_by(&self, deadline: Instant) -> bool {
        self.finished.recv_deadline(deadline) == Err(crossbeam_channel::RecvTimeoutError::Disconnected)
    }
}

/// All threads of one start.
struct Threads {
    settle: ThreadHandle,
    lease: ThreadHandle,
    run: Vec<ThreadHandle>,
    listen: Option<ThreadHandle>,
    watch: Option<ThreadHandle>,
    fetch: Vec<ThreadHandle>,
    dispatch: ThreadHandle,
    /// `None` if recovery is switched off or has no connection.
    recovery: Option<ThreadHandle>,
    /// `None` without crontab entries.
    cron: Option<ThreadHandle>,
    /// `None` without observers.
    events: Option<ThreadHandle>,
}

impl Threads {
    /// Starts every thread. Threads on which others depend start first.
    fn start(source: &JobSource, crons: &Arc<Vec<Cron>>, until_empty: bool) -> Result<Self> {
        let shared = &source.shared;
        let start = || -> Result<Self> {
            let observed = shared.events.are_observed();
            let events =
                observed.then(|| ThreadHandle::start("gw-events".into(), shared, |shared| shared.events.observe()));
            let events = events.transpose()?;
            let settle = ThreadHandle::start("gw-settle".into(), shared, settle::settle)?;
            let lease = ThreadHandle::start("gw-lease".into(), shared, lease::lease)?;
            let threads = if shared.config.pull.is_some() { 0 } else { shared.config.threads };
            let run = (0..threads).map(|place| {
                let JobSource { shared: own, env } = source.clone();
                ThreadHandle::start(format!("gw-run-{place}"), shared, move |_| run::run(&own, &env))
            });
            let run = run.collect::<Result<Vec<_>>>()?;
            let listens = shared.config.notifications && !until_empty;
            let listen =
                listens.then(|| ThreadHandle::start("gw-listen".into(), shared, listen::listen)).transpose()?;
            let watches = shared.tasks.iter().any(|task| task.timeout.is_some());
            let watch = watches.then(|| ThreadHandle::start("gw-watch".into(), shared, timeouts::watch)).transpose()?;
            let fetch = (0..shared.config.claimers).map(|claimer| {
                ThreadHandle::start(format!("gw-fetch-{claimer}"), shared, move |shared| fetch::fetch(shared, claimer))
            });
            let fetch = fetch.collect::<Result<Vec<_>>>()?;
            let sweeps = shared.config.sweeps != Sweeps::Off && !until_empty;
            let recovery =
                sweeps.then(|| ThreadHandle::start("gw-recovery".into(), shared, recovery::recover)).transpose()?;
            let dispatch = ThreadHandle::start("gw-dispatch".into(), shared, move |shared| {
                dispatch::dispatch(shared, until_empty)
            })?;
            let crons = (!crons.is_empty() && !until_empty).then(|| crons.clone());
            let cron = crons.map(|crons| {
                ThreadHandle::start("gw-cron".into(), shared, move |shared| scheduler::schedule(shared, &crons))
            });
            let cron = cron.transpose()?;
            Ok(Self { settle, lease, run, listen, watch, fetch, recovery, cron, dispatch, events })
        };
        // If a thread cannot be started, those that did start must end.
        start().inspect_err(|_| {
            shared.stop.trigger_all();
            shared.gates.release();
            shared.events.abandon();
        })
    }

    /// Ends the worker, step by step, within the grace period and a second.
    fn stop(self, shared: &Shared, utils: &WorkerUtils, reason: ShutdownReason, until_empty: bool) -> Result<()> {
        let worker_id = shared.worker_id.as_str();
        let start = Instant::now();
        let grace_ends = start + shared.config.grace_period;
        let mut must_end = grace_ends + STOP_TIME - Duration::from_millis(150);
        info!(worker_id; "worker stopping");
        // A database that does not reply must be detected while there is time to call it again.
        shared.stop.interrupt.limit((shared.config.grace_period / 2).max(LEAST_STOP_LIMIT));

        // 1. Claims end, and jobs that no thread has started are given back. A gate that an error closes now must not
        // make threads wait.
        shared.stop.begun.trigger();
        shared.gates.release();
        shared.notify_puller();

        // 2. Running jobs have the grace period, unless the caller aborts.
        if shared.slots.wait_until_free(grace_ends, &shared.stop.cancelled) == Waited::Cancelled {
            must_end = must_end.min(Instant::now() + STOP_TIME);
        }

        // 3. Jobs that still run are asked to end, and have half a second more.
        for active in shared.running() {
            let job = active.job();
            warn!(worker_id, job_id = job.id, task = &*job.task_identifier; "job cancelled by the stop");
            active.cancel();
        }
        let cancel_ends = (Instant::now() + CANCEL_TIME).min(must_end);
        shared.slots.wait_until_free(cancel_ends, &ShutdownSignal::new());

        // 4. Jobs that ignore it are given back; their threads are left behind.
        let stuck: Vec<String> = shared.running().iter().filter_map(|active| give_up(shared, active)).collect();

        // 5. Once no more outcomes can follow, settle writes what it has.
        for handle in self.fetch {
            handle.join(must_end);
        }
        self.dispatch.join(must_end);
        // If a job of a series ended in the grace period, the next one may wait for a thread, and no thread takes it.
        shared.take_back();
        shared.stop.drained.trigger();
        self.settle.join(must_end);

        if let Some(recovery) = self.recovery {
            recovery.join(must_end);
        }

        // 6. Lease gives back the jobs that are left. Then calls that still wait for the database are interrupted.
        shared.stop.settled.trigger();
        self.lease.join(must_end);
        shared.stop.interrupt.raise();
        let last = must_end + Duration::from_millis(100);
        for handle in self.cron.into_iter().chain(self.listen).chain(self.watch) {
            handle.join(last);
        }
        for handle in self.run {
            if handle.ended_by(Instant::now()) {
                handle.join(last);
            }
        }

        shared.channels.alone.1.try_iter().for_each(drop);

        // 7. Observers are notified of the end, if they have handled all earlier events by then.
        if let Some(events) = self.events {
            shared.events.end(last, || WorkerShutdownContext {
                utils: utils.clone(),
                worker_id: worker_id.to_owned(),
                reason: if stuck.is_empty() { reason } else { ShutdownReason::Error },
            });
            if !events.join(last) {
                shared.events.abandon();
            }
        }
        info!(worker_id, duration_ms = start.elapsed().as_millis() as u64; "worker stopped");
        report_leftovers(shared, &stuck, until_empty.then_some(start))
    }
}

/// The error of a stop that left something undone: handlers that run, outcomes that are not written, and, in a run until
/// empty, jobs that were not claimed. `until_empty_since` is when the stop of such a run began.
fn report_leftovers(shared: &Shared, stuck: &[String], until_empty_since: Option<Instant>) -> Result<()> {
    let mut left = Vec::new();
    if !stuck.is_empty() {
        let (count, list) = (stuck.len(), named(stuck));
        left.push(format!("{count} handler(s) did not return in time; their jobs were given back: {list}"));
    }
    let unwritten: Vec<String> = shared.ledger.all().iter().filter_map(unwritten).collect();
    if !unwritten.is_empty() {
        let (count, list) = (unwritten.len(), named(&unwritten));
        left.push(format!("{count} outcome(s) could not be written, so these jobs may run again: {list}"));
    }
    if let Some(avoided) = until_empty_since.and_then(|start| shared.avoided.at(start)) {
        let (count, list) = (avoided.len(), named(&avoided.iter().map(|id| format!("job {id}")).collect::<Vec<_>>()));
        left.push(format!("the database refuses the claim of {count} job(s): {list}"));
    }
    if left.is_empty() { Ok(()) } else { Err(Error::new(ErrorKind::Stopped, left.join("; "))) }
}

/// A list for an error's text: the first twenty items, and how many more there are.
fn named(all: &[String]) -> String {
    const MOST: usize = 20;
    let list = all[..all.len().min(MOST)].join(", ");
    if all.len() > MOST { format!("{list} and {} more", all.len() - MOST) } else { list }
}

/// Describes a job whose outcome is not in the database, for an error's text. `None` if the outcome is there.
fn unwritten(active: &Arc<ActiveJob>) -> Option<String> {
    let (_, outcome) = active.unsettled()?;
    let job = active.job();
    Some(format!("job {} (task {}, {outcome})", job.id, job.task_identifier))
}

/// Gives back a job whose handler does not return, and describes it for an error's text. `None` if it has ended.
fn give_up(shared: &Shared, active: &Arc<ActiveJob>) -> Option<String> {
    let (started, thread) = active.started()?;
    if !active.finish(Outcome::GivenBack(Some(shared.config.interrupted_delay))) {
        return None;
    }
    let (job, seconds) = (active.job(), started.elapsed().as_secs());
    error!(worker_id = shared.worker_id.as_str(), job_id = job.id, task = &*job.task_identifier, thread, seconds;
        "a handler ignores the stop; its job was given back, and its thread keeps running");
    // A host's thread that took the job may have no name.
    let place = if thread.is_empty() { String::new() } else { format!(" on thread {thread}") };
    Some(format!("job {} (task {}){place} after {seconds} s", job.id, job.task_identifier))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::WorkerRecoveryConfig;
    use crate::devdb::{DevDb, Options};
    use crate::tasks::WorkerContext;
    use crate::worker::options::WorkerOptions;
    use postgres::{Client, NoTls};

    const SOON: Duration = Duration::from_secs(10);

    fn options(db: &DevDb) -> WorkerOptions {
        let options = WorkerOptions::default().database_url(&db.url()).concurrency(4);
        options.listen_os_shutdown_signals(false).define_raw_job("t", |_: WorkerContext| ())
    }

    fn number(client: &mut Client, sql: &str) -> i64 {
        client.query_one(sql, &[]).unwrap().get(0)
    }

    fn eventually(client: &mut Client, sql: &str, expected: i64) {
        let start = Instant::now();
        while number(client, sql) != expected {
            assert!(start.elapsed() < SOON, "{sql}: is not {expected}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn the_options_decide_whose_jobs_a_worker_recovers() {
        let db = DevDb::start(Options { fsync: false, ..Options::default() }).unwrap();
        let options = || options(&db);
        let sweeps = |options: WorkerOptions| options.init().unwrap().config.sweeps;
        assert_eq!(sweeps(options()), Sweeps::Ours);
        assert_eq!(sweeps(options().worker_recovery(WorkerRecoveryConfig::default())), Sweeps::Off);
        assert_eq!(sweeps(options().worker_recovery(WorkerRecoveryConfig::default().enabled(true))), Sweeps::All);
        assert_eq!(sweeps(options().sweep_interval(Duration::from_secs(60))), Sweeps::All);
        let off = |options: WorkerOptions| {
            options.sweep_interval(Duration::from_secs(9)).worker_recovery(WorkerRecoveryConfig::default())
        };
        assert_eq!(sweeps(off(options())), Sweeps::Off);
        // By default it leaves two connections for handlers.
        let with_cron = |connections| options().max_pg_conn(connections).with_cron("0 0 1 1 * t").unwrap();
        assert_eq!(
            [5, 6, 7].map(|connections| sweeps(options().max_pg_conn(connections))),
            [Sweeps::Off, Sweeps::Off, Sweeps::Ours]
        );
        assert_eq!([7, 8].map(|connections| sweeps(with_cron(connections))), [Sweeps::Off, Sweeps::Ours]);
        // Where the tables are missing, only recovery that was asked for is an error.
        let mut client = Client::connect(&db.url(), NoTls).unwrap();
        client.batch_execute("drop table graphile_worker._native_recoveries").unwrap();
        assert_eq!(sweeps(options()), Sweeps::Off);
        let error = options().sweep_interval(Duration::from_secs(60)).init().err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Schema);
    }

    #[test]
    fn default_recovery_returns_only_jobs_of_this_library() {
        let db = DevDb::start(Options { fsync: false, ..Options::default() }).unwrap();
        options(&db).init().unwrap();
        let mut client = Client::connect(&db.url(), NoTls).unwrap();
        // What the async crate's schema has.
        client
            .batch_execute(
                "create table graphile_worker._private_workers (id text primary key, last_heartbeat_at timestamptz not null,
                   started_at timestamptz not null default now(), metadata jsonb);
                 create function graphile_worker.worker_heartbeat(worker_id text, metadata json default null)
                   returns void language sql as $$
                     insert into graphile_worker._private_workers values (worker_id, now(), now(), metadata::jsonb)
                     on conflict (id) do update set last_heartbeat_at = now() $$;
                 create function graphile_worker.worker_deregister(worker_id text) returns void language sql as $$
                   delete from graphile_worker._private_workers where id = worker_id $$",
            )
            .unwrap();
        let mut worker = options(&db).init().unwrap();
        let config = Arc::get_mut(&mut worker.config).unwrap();
        assert_eq!(config.sweeps, Sweeps::Ours);
        config.recovery = WorkerRecoveryConfig::default()
            .heartbeat_interval(Duration::from_millis(100))
            .sweep_interval(Duration::from_millis(50))
            .sweep_threshold(Duration::from_millis(500))
            .recovery_delay(Duration::ZERO);
        let worker = Arc::new(worker);
        let runs = worker.clone();
        let thread = thread::spawn(move || runs.run());
        let lists = "select (select count(*) from graphile_worker._native_workers)
                          + (select count(*) from graphile_worker._private_workers)";
        eventually(&mut client, lists, 2);

        let dead = "insert into graphile_worker._native_workers (id, last_heartbeat_at)
                      values ('dead', now() - interval '6 minutes')";
        client
            .batch_execute(&format!(
                "{dead};
                 insert into graphile_worker._private_workers values ('foreign', now() - interval '6 minutes');
                 begin;
                 select graphile_worker.add_job('t', queue_name => 'q' || n) from generate_series(1, 10) n;
                 select graphile_worker.add_job('t', queue_name => holder) from unnest(array['foreign', 'node']) holder;
                 update graphile_worker._private_job_queues
                    set locked_by = case when queue_name ~ '^q' then 'dead' else queue_name end, locked_at = now();
                 update graphile_worker._private_jobs j set locked_by = q.locked_by, locked_at = now(), attempts = 1
                   from graphile_worker._private_job_queues q where q.id = j.job_queue_id;
                 commit"
            ))
            .unwrap();
        let jobs = "select count(*) from graphile_worker._private_jobs";
        eventually(&mut client, jobs, 2);
        let dead_are_listed = "select count(*) from graphile_worker._native_workers where id = 'dead'";
        eventually(&mut client, dead_are_listed, 0);
        client.batch_execute(dead).unwrap();
        eventually(&mut client, dead_are_listed, 0);
        let theirs = "select count(*) from graphile_worker._private_jobs j
                        join graphile_worker._private_job_queues q on q.id = j.job_queue_id
                       where j.locked_by = q.queue_name and q.locked_by = q.queue_name and j.attempts = 1";
        assert_eq!((number(&mut client, theirs), number(&mut client, jobs)), (2, 2));
        assert_eq!(
            number(&mut client, "select count(*) from graphile_worker._private_workers where id = 'foreign'"),
            1
        );
        worker.request_shutdown();
        thread.join().unwrap().unwrap();
    }
}
