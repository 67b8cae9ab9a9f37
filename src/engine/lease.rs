//! gw-lease: renews this worker's locks, sends heartbeats, reconciles, frees four-hour-old locks, keeps task ids
//! current, and detects breaking migrations. Runs in every worker; no database error ends it. Knows nothing of
//! handlers.

use super::{Shared, halves, signal};
use crate::backoff::{Backoff, random_unit};
use crate::client::sweep::metadata;
use crate::engine::stats::add;
use crate::engine::store::{Role, Store, TasksSeen};
use crate::error::{Error, ErrorKind, Result};
use crate::job::active::{ActiveJob, GIVEN_BACK};
use crossbeam_channel::{after, select};
use log::{error, info, warn};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The worker renews its locks before they get much older. Otherwise a sweep by lock age would consider it dead. Every
/// half of this time, it renews locks that are older than half of it.
const RENEW_AFTER: Duration = Duration::from_secs(60);
const TASKS_INTERVAL: Duration = Duration::from_secs(60);
/// The pause after a heartbeat that the database refused.
const BEAT_AGAIN: Duration = Duration::from_secs(1);
/// The pause between reconciles while jobs are claimed. While there is nothing to do, it is `IDLE_RECONCILE_INTERVAL`.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(10);
const IDLE_RECONCILE_INTERVAL: Duration = Duration::from_secs(60);
/// The pause between reconciles while the server may still carry out a call that a session gave up.
const LINGERING_INTERVAL: Duration = Duration::from_secs(1);

/// Runs until the worker has ended. At the end it gives back the jobs that settle did not write.
pub(crate) fn lease(shared: &Shared) {
    let mut lease = Lease::new(shared);
    let mut retry = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    let mut requested = false;
    loop {
        let pause = match lease.run_due(requested) {
            Ok(()) => {
                requested = false;
                retry.reset();
                lease.next_due().saturating_duration_since(Instant::now())
            }
            Err(error) if error.kind() == ErrorKind::Stopped => return,
            Err(error) => {
                shared.error_log.retried("keep the lease", &error);
                requested |= error.breaks_session();
                retry.next()
            }
        };
        select! {
            recv(shared.channels.reconcile.1) -> _ => requested = true,
            recv(after(pause)) -> _ => {}
            recv(shared.stop.settled.receiver()) -> _ => break,
        }
    }
    // A broken session must not leave jobs locked, so retry. If the database is away, give up.
    for _ in 0..3 {
        match lease.final_writes() {
            Err(error) if error.kind() != ErrorKind::Stopped => shared.error_log.retried("leave", &error),
            _ => return,
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// When each duty is due next.
struct Lease<'a> {
    shared: &'a Shared,
    store: Store,
    beat: Instant,
    renew: Instant,
    reconcile: Instant,
    tasks: Instant,
    reset: Instant,
    /// How many jobs had been claimed at the last reconcile. If the number is the same now, no claim can have been lost
    /// since.
    claimed: u64,
    /// The unknown tasks that have been logged.
    logged_tasks: HashSet<String>,
}

impl<'a> Lease<'a> {
    fn new(shared: &'a Shared) -> Self {
        let now = Instant::now();
        Self {
            shared,
            store: shared.store(Role::Lease),
            beat: now,
            renew: now + RENEW_AFTER / 2,
            reconcile: now + RECONCILE_INTERVAL,
            // Workers that are started together have published their tasks by then.
            tasks: now + Duration::from_secs(1),
            reset: now + Duration::from_secs(60).mul_f64(random_unit()),
            claimed: 0,
            logged_tasks: HashSet::new(),
        }
    }

    fn next_due(&self) -> Instant {
        let duties = [self.beat, self.renew, self.reconcile, self.tasks, self.reset];
        duties.into_iter().min().expect("five of them")
    }

    /// Does what is due. The heartbeat is first, so that sweeps consider this worker alive while it reconciles.
    fn run_due(&mut self, reconcile_requested: bool) -> Result<()> {
        // If the machine slept, the timers stood still, and other workers may have missed heartbeats. `is_silent`
        // notices that.
        if due(self.beat) || self.shared.health.is_silent(self.shared.config.recovery.doubt_after()) {
            self.beat()?;
        }
        if reconcile_requested || due(self.reconcile) {
            let start = Instant::now();
            self.look_at_the_schema()?;
            let certain = self.reconcile(reconcile_requested)?;
            let claimed = self.shared.stats.claimed.load(Ordering::Relaxed);
            let busy = claimed != self.claimed || reconcile_requested;
            // If the last outcome of a queue is on its way, a requested reconcile is too early to free the queue. So the
            // next one looks again.
            self.claimed = if reconcile_requested { u64::MAX } else { claimed };
            let interval = match (certain, busy) {
                (false, _) => LINGERING_INTERVAL,
                (true, true) => RECONCILE_INTERVAL,
                (true, false) => IDLE_RECONCILE_INTERVAL,
            };
            // A reconcile reads the table, so it takes at most a hundredth of the time.
            self.reconcile = Instant::now() + interval.max(start.elapsed() * 100);
        }
        if due(self.renew) {
            self.renew()?;
            self.renew = Instant::now() + RENEW_AFTER / 2;
        }
        if due(self.tasks) {
            self.look_at_tasks()?;
            self.tasks = Instant::now() + TASKS_INTERVAL;
        }
        if due(self.reset) {
            self.free_old_locks()?;
            self.forget_deleted_jobs()?;
            self.reset = Instant::now() + Duration::from_secs(480).mul_f64(1.0 + random_unit() / 4.0);
        }
        Ok(())
    }

    fn beat(&mut self) -> Result<()> {
        let (shared, config) = (self.shared, &self.shared.config.recovery);
        let metadata = metadata(config.beat_interval(), &shared.task_names());
        match self.store.beat(&shared.facts, &metadata, config.sweep_threshold) {
            Ok(true) => signal(&shared.channels.silent.0),
            Ok(false) => {}
            // The heartbeat table was dropped, or the role may not write it. The worker goes on; sweeps then never
            // consider it dead.
            Err(error)
                if error.kind() == ErrorKind::Database
                    && error.sqlstate().is_some_and(|state| state.starts_with("42")) =>
            {
                shared.error_log.retried("send the heartbeat", &error);
            }
            // Another session holds the entry, or a trigger refuses the heartbeat. The other duties do not wait for it.
            Err(error) if error.is_refusal() => {
                shared.error_log.retried("send the heartbeat", &error);
                self.beat = Instant::now() + BEAT_AGAIN;
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        shared.health.beat(config.sweep_threshold);
        self.beat = Instant::now() + config.beat_interval();
        if shared.stats.claims.load(Ordering::Relaxed) == 0 {
            // Nothing was claimed yet, so it is certain which jobs are this worker's.
            shared.end_doubt();
        }
        Ok(())
    }

    /// Deletes the recovery counts of deleted jobs. Nothing depends on it, so the worker goes on if the database
    /// refuses the statement.
    fn forget_deleted_jobs(&mut self) -> Result<()> {
        if !self.shared.facts.has_recovery {
            return Ok(());
        }
        match self.store.forget_deleted_jobs(None) {
            Err(error) if error.is_refusal() => {
                self.shared.error_log.retried("delete the count of recoveries", &error);
                Ok(())
            }
            result => result,
        }
    }

    /// Stops the worker after a breaking migration by a newer worker: this worker's statements may mean something else
    /// now. Runs before each reconcile, so also before a worker that lost its database goes on.
    fn look_at_the_schema(&mut self) -> Result<()> {
        let shared = self.shared;
        let refusal = match self.store.breaking(&shared.config.schema) {
            Err(error) if error.kind() == ErrorKind::Schema => Some(error),
            looked => looked?,
        };
        if let Some(refusal) = refusal {
            error!(worker_id = shared.worker_id.as_str(), error:% = refusal; "a newer worker has changed the schema, stopping");
            *shared.refusal.lock() = Some(refusal);
            shared.stop.begun.trigger();
        }
        Ok(())
    }

    /// Compares the jobs that are locked by this worker in the database with its ledger, and corrects both directions.
    /// Returns false if calls that sessions gave up may still change the result.
    fn reconcile(&mut self, requested: bool) -> Result<bool> {
        let shared = self.shared;
        // While the guard is held, no claim is in flight. A locked job that is not in the ledger now is never entered
        // later.
        let Some(claiming) = shared.gates.without_claims(Duration::from_secs(15)) else {
            return Err(Error::new(ErrorKind::Timeout, "a claim is still in flight"));
        };
        let certain = self.store.end_abandoned()?;
        let (before, known) = (shared.ledger.all(), shared.ledger.known());
        let held: HashMap<i64, i16> = self.store.held()?.into_iter().collect();
        let stranded: Vec<(i64, i16)> =
            held.iter().map(|(&id, &attempts)| (id, attempts)).filter(|(id, _)| !known.contains(id)).collect();
        // Also without a stranded job: a queue may be locked by this worker although none of its jobs is.
        let is_idle = stranded.is_empty() && held.is_empty() && known.is_empty() && !requested && !self.in_doubt();
        let (reclaimed, freed_queues) = if is_idle { Default::default() } else { self.reclaim(&stranded)? };
        let reclaimed = reclaimed.len();
        drop(claiming);

        for active in &before {
            // The job has not ended, so settle has not written it. Its row must still be locked by this worker.
            if !held.contains_key(&active.job().id) && (active.is_held() || active.is_running()) {
                self.lost(active);
            }
        }
        shared.end_doubt();
        if reclaimed > 0 {
            add(&shared.stats.reconciled, reclaimed);
            info!(worker_id = shared.worker_id.as_str(), jobs = reclaimed; "gave back jobs that were locked by this worker but unknown to it");
        }
        if reclaimed + freed_queues > 0 {
            shared.came_back();
        }
        Ok(certain)
    }

    fn in_doubt(&self) -> bool {
        self.claimed != self.shared.stats.claimed.load(Ordering::Relaxed) || self.shared.gates.doubt.is_closed()
    }

    /// Renews the locks of jobs that this worker has had for a while.
    fn renew(&mut self) -> Result<()> {
        let old = |active: &Arc<ActiveJob>| {
            let ours = active.is_held() || active.is_running() || active.unsettled().is_some();
            ours && active.held_for() >= RENEW_AFTER / 2
        };
        let jobs: Vec<_> = self.shared.ledger.all().into_iter().filter(old).collect();
        if jobs.is_empty() {
            return Ok(());
        }
        let mut kept = HashSet::new();
        let refused = halves::write(&jobs, &mut |part: &[Arc<ActiveJob>]| {
            kept.extend(self.store.renew(part)?);
            Ok(())
        })?;
        self.report("renew the lock of job", refused.iter().map(|(active, error)| (active.job().id, error)));
        kept.extend(refused.iter().map(|(active, _)| active.job().id));
        for active in jobs.iter().filter(|active| !kept.contains(&active.job().id)) {
            if active.is_held() || active.is_running() {
                self.lost(active);
            }
        }
        Ok(())
    }

    /// Gives back jobs that are locked by this worker but not in its ledger, and frees queues of which it holds no job.
    /// Returns the ids of the jobs that it gave back, and how many queues it freed.
    fn reclaim(&mut self, stranded: &[(i64, i16)]) -> Result<(HashSet<i64>, usize)> {
        let (mut reclaimed, mut freed_queues) = (HashSet::new(), 0);
        let refused = halves::write(stranded, &mut |part: &[(i64, i16)]| {
            let (jobs, queues) = self.store.reclaim(part)?;
            reclaimed.extend(jobs);
            freed_queues += queues;
            Ok(())
        })?;
        self.report("give back job", refused.iter().map(|((id, _), error)| (*id, error)));
        Ok((reclaimed, freed_queues))
    }

    /// Frees the jobs and queues that have been locked for four hours.
    fn free_old_locks(&mut self) -> Result<()> {
        let (jobs, queues) = self.store.old_locks()?;
        if jobs.is_empty() && queues.is_empty() {
            return Ok(());
        }
        let (mut freed_jobs, mut freed_queues) = (0, 0);
        let refused_jobs = halves::write(&jobs, &mut |part: &[i64]| {
            freed_jobs += self.store.reset(part, &[])?.0;
            Ok(())
        })?;
        let refused_queues = halves::write(&queues, &mut |part: &[i64]| {
            freed_queues += self.store.reset(&[], part)?.1;
            Ok(())
        })?;
        self.report("free the four-hour-old lock of job", refused_jobs.iter().map(|(id, error)| (*id, error)));
        self.report("free the four-hour-old lock of queue", refused_queues.iter().map(|(id, error)| (*id, error)));
        if freed_jobs + freed_queues > 0 {
            warn!(worker_id = self.shared.worker_id.as_str(), jobs = freed_jobs, queues = freed_queues;
                "freed locks that were four hours old");
            signal(&self.shared.channels.wake.0);
        }
        Ok(())
    }

    /// Logs the rows that the database refuses to write; other rows are not affected.
    fn report<'e>(&self, doing: &str, refused: impl Iterator<Item = (i64, &'e Error)>) {
        for (id, error) in refused {
            self.shared.error_log.refused(&format!("{doing} {id}"), error);
        }
    }

    /// Another session freed or took a job that this worker holds. The job does not start, or its handler is asked to
    /// end.
    fn lost(&self, active: &Arc<ActiveJob>) {
        let job = active.job();
        if active.void() {
            add(&self.shared.stats.lost, 1);
            warn!(worker_id = self.shared.worker_id.as_str(), job_id = job.id, task = &*job.task_identifier, attempt = job.attempts;
                "job was lost: this worker does not hold its lock any more");
            self.shared.tell_lost(active);
        }
    }

    /// Reads the ids of the tasks again. A cleanup may have deleted the row of a task without jobs; its next job then
    /// has a new id.
    fn refresh_tasks(&mut self) -> Result<()> {
        let shared = self.shared;
        let names = shared.task_names();
        let ids = self.store.tasks(&names)?;
        *shared.task_ids.write() = Arc::new(by_id(ids, &names));
        Ok(())
    }

    /// Enters this worker's tasks again if they were deleted. Logs a task once if it has due jobs and no worker of this
    /// library handles it. Otherwise the jobs of a misspelled name would wait unnoticed. Other implementations do not
    /// publish their tasks.
    fn look_at_tasks(&mut self) -> Result<()> {
        let shared = self.shared;
        let own: Vec<i32> = shared.task_ids.read().keys().copied().collect();
        let TasksSeen { mut unknown, own_deleted } = self.store.look_at_tasks(own)?;
        if own_deleted {
            self.refresh_tasks()?;
        }
        if shared.facts.has_heartbeats && !unknown.is_empty() {
            let published = self.store.published_tasks(shared.config.recovery.sweep_threshold)?;
            unknown.retain(|(task, _)| !published.contains(task));
        }
        for (task, jobs) in unknown {
            if self.logged_tasks.insert(task.clone()) {
                warn!(worker_id = shared.worker_id.as_str(), task = task.as_str(), jobs;
                    "due jobs of a task that no live worker of this library has");
            }
        }
        Ok(())
    }

    /// Gives back the jobs that were not settled, and deletes this worker's heartbeat entries.
    fn final_writes(&mut self) -> Result<()> {
        // After the last look at the locked jobs, the server must not carry out a claim that was given up.
        let mut pause = Backoff::new(Duration::from_millis(5), Duration::from_millis(40));
        for _ in 0..5 {
            if self.store.end_abandoned()? {
                break;
            }
            std::thread::sleep(pause.next());
        }
        let stranded = self.store.held()?;
        if !stranded.is_empty() || self.shared.stats.claimed.load(Ordering::Relaxed) > 0 {
            let (returned, _) = self.reclaim(&stranded)?;
            add(&self.shared.stats.reconciled, returned.len());
            // Jobs that were to be given back are given back now, so the stop does not report them.
            let is_back = |active: &Arc<ActiveJob>| {
                returned.contains(&active.job().id)
                    && active.unsettled().is_some_and(|(_, outcome)| outcome == GIVEN_BACK)
            };
            let back: Vec<_> = self.shared.ledger.all().into_iter().filter(is_back).collect();
            self.shared.ledger.settled(&back);
        }
        self.store.deregister(&self.shared.facts)
    }
}

/// Maps each task's id in the database to the task's place in `names`.
pub(crate) fn by_id(ids: Vec<(i32, String)>, names: &[String]) -> HashMap<i32, usize> {
    let place = |name: &String| names.iter().position(|known| known == name);
    ids.iter().filter_map(|(id, name)| place(name).map(|task| (*id, task))).collect()
}

fn due(at: Instant) -> bool {
    Instant::now() >= at
}
