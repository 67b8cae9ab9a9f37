//! gw-lease: keeps what is ours ours. Renews locks, beats, reconciles, frees four-hour-old locks,
//! keeps task ids fresh, watches for breaking migrations. Always on; no database fault ends it. Knows nothing of handlers.

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

/// Locks older than this are renewed, so that sweepers that go by age see a live worker.
const RENEW_AFTER: Duration = Duration::from_secs(60);
const TASKS_INTERVAL: Duration = Duration::from_secs(60);
/// After a beat that the database refused.
const BEAT_AGAIN: Duration = Duration::from_secs(1);
/// While jobs are claimed; once a minute while there is nothing to do.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(10);
const IDLE_RECONCILE_INTERVAL: Duration = Duration::from_secs(60);
/// While a call that we gave up may still be carried out.
const LINGERING_INTERVAL: Duration = Duration::from_secs(1);

/// Runs until the worker is over; its last act is to give back what nobody settled.
pub(crate) fn lease(shared: &Shared) {
    let mut lease = Lease::new(shared);
    let mut retry = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    let mut requested = false;
    loop {
        let pause = match lease.tend(requested) {
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
    // A session that broke is no reason to leave jobs locked; a database that is away is.
    for _ in 0..3 {
        match lease.farewell() {
            Err(error) if error.kind() != ErrorKind::Stopped => shared.error_log.retried("leave", &error),
            _ => return,
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What is due when.
struct Lease<'a> {
    shared: &'a Shared,
    store: Store,
    beat: Instant,
    renew: Instant,
    reconcile: Instant,
    tasks: Instant,
    reset: Instant,
    /// How many jobs had been claimed at the last reconcile: no change means nothing to find.
    claimed: u64,
    /// The unknown tasks that the log has heard of.
    told: HashSet<String>,
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
            // Workers that are started together have told each other by then.
            tasks: now + Duration::from_secs(1),
            reset: now + Duration::from_secs(60).mul_f64(random_unit()),
            claimed: 0,
            told: HashSet::new(),
        }
    }

    fn next_due(&self) -> Instant {
        let duties = [self.beat, self.renew, self.reconcile, self.tasks, self.reset];
        duties.into_iter().min().expect("five of them")
    }

    /// Does what is due. Beats first: whoever reconciles is alive for the sweepers.
    fn tend(&mut self, reconcile_requested: bool) -> Result<()> {
        // While the machine slept our clock stood still; the others' did not.
        if due(self.beat) || self.shared.health.is_silent(self.shared.config.recovery.suspicion()) {
            self.beat()?;
        }
        if reconcile_requested || due(self.reconcile) {
            let start = Instant::now();
            self.look_at_the_schema()?;
            let certain = self.reconcile()?;
            let claimed = self.shared.stats.claimed.load(Ordering::Relaxed);
            let busy = claimed != self.claimed || reconcile_requested;
            self.claimed = claimed;
            let interval = match (certain, busy) {
                (false, _) => LINGERING_INTERVAL,
                (true, true) => RECONCILE_INTERVAL,
                (true, false) => IDLE_RECONCILE_INTERVAL,
            };
            // It reads the table: at most one part in a hundred of the time.
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
            // The list was dropped, or is not ours to write: sweeps never find a worker dead that is not on it.
            Err(error)
                if error.kind() == ErrorKind::Database
                    && error.sqlstate().is_some_and(|state| state.starts_with("42")) =>
            {
                shared.error_log.retried("say that this worker lives", &error);
            }
            // Another session holds the entry, or a trigger refuses the beat: our other duties do not wait for it.
            Err(error) if error.is_refusal() => {
                shared.error_log.retried("say that this worker lives", &error);
                self.beat = Instant::now() + BEAT_AGAIN;
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        shared.health.beat(config.sweep_threshold);
        self.beat = Instant::now() + config.beat_interval();
        if shared.stats.claims.load(Ordering::Relaxed) == 0 {
            // Nothing was ever claimed, so there is nothing to be in doubt about.
            shared.end_doubt();
        }
        Ok(())
    }

    /// Deletes what was counted of the recoveries of jobs that are gone. Nothing depends on it, so the worker goes on if
    /// the database refuses the statement.
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

    /// Stops the worker after a breaking migration of a newer one: our statements may mean something else now.
    /// Runs before each reconcile, so also before a worker that was cut off goes on.
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

    /// Compares what the database says we hold with what we know, and mends both directions.
    /// Answers false if calls that were given up may still change it.
    fn reconcile(&mut self) -> Result<bool> {
        let shared = self.shared;
        // No claim is in flight while we look: a job that we do not know is one that we will never know.
        let Some(claiming) = shared.gates.without_claims(Duration::from_secs(15)) else {
            return Err(Error::new(ErrorKind::Timeout, "a claim is still in flight"));
        };
        let certain = self.store.end_abandoned()?;
        let (before, known) = (shared.ledger.all(), shared.ledger.known());
        let held: HashMap<i64, i16> = self.store.held()?.into_iter().collect();
        let stranded: Vec<(i64, i16)> =
            held.iter().map(|(&id, &attempts)| (id, attempts)).filter(|(id, _)| !known.contains(id)).collect();
        // Also without a stranded job: a queue may be ours without one.
        let reclaimed = if stranded.is_empty() && held.is_empty() && known.is_empty() && !self.in_doubt() {
            0
        } else {
            self.reclaim(&stranded)?.len()
        };
        drop(claiming);

        for active in &before {
            // Not yet finished, so nobody has settled it: its row must say that it is ours.
            if !held.contains_key(&active.job().id) && (active.is_held() || active.is_running()) {
                self.lost(active);
            }
        }
        shared.end_doubt();
        if reclaimed > 0 {
            add(&shared.stats.reconciled, reclaimed);
            info!(worker_id = shared.worker_id.as_str(), jobs = reclaimed; "gave back jobs that the database held for us without our knowing");
            signal(&shared.channels.freed.0);
        }
        Ok(certain)
    }

    fn in_doubt(&self) -> bool {
        self.claimed != self.shared.stats.claimed.load(Ordering::Relaxed) || self.shared.gates.doubt.is_closed()
    }

    /// Renews the locks of jobs that are held for long.
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

    /// Gives back jobs that the database holds for us; returns which it took.
    fn reclaim(&mut self, stranded: &[(i64, i16)]) -> Result<HashSet<i64>> {
        let mut reclaimed = HashSet::new();
        let refused = halves::write(stranded, &mut |part: &[(i64, i16)]| {
            reclaimed.extend(self.store.reclaim(part)?);
            Ok(())
        })?;
        self.report("give back job", refused.iter().map(|((id, _), error)| (*id, error)));
        Ok(reclaimed)
    }

    /// Frees what has been locked for four hours.
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

    /// Warns of rows that the database refuses to write; others were not affected.
    fn report<'e>(&self, doing: &str, refused: impl Iterator<Item = (i64, &'e Error)>) {
        for (id, error) in refused {
            self.shared.error_log.refused(&format!("{doing} {id}"), error);
        }
    }

    /// Somebody else freed or took a job that we hold: it does not start, or is asked to end.
    fn lost(&self, active: &Arc<ActiveJob>) {
        let job = active.job();
        if active.void() {
            add(&self.shared.stats.lost, 1);
            warn!(worker_id = self.shared.worker_id.as_str(), job_id = job.id, task = &*job.task_identifier, attempt = job.attempts;
                "job was lost: its lock is no longer ours");
            self.shared.tell_lost(active);
        }
    }

    /// A cleanup may have deleted a task's row while it had no jobs; its next job has a new id.
    fn refresh_tasks(&mut self) -> Result<()> {
        let shared = self.shared;
        let names = shared.task_names();
        let ids = self.store.tasks(&names)?;
        *shared.task_ids.write() = Arc::new(by_id(ids, &names));
        Ok(())
    }

    /// Enters tasks of ours again that were deleted. Tells once of each task whose jobs are due, and that no worker of this
    /// library has: a misspelled name would wait without a word. Workers of other makes do not say which tasks they have.
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
            if self.told.insert(task.clone()) {
                warn!(worker_id = shared.worker_id.as_str(), task = task.as_str(), jobs;
                    "due jobs of a task that no live worker of this library has");
            }
        }
        Ok(())
    }

    /// Gives back what nobody settled, and takes our name off the list.
    fn farewell(&mut self) -> Result<()> {
        // A claim that was given up must not come through after our last look.
        let mut patience = Backoff::new(Duration::from_millis(5), Duration::from_millis(40));
        for _ in 0..5 {
            if self.store.end_abandoned()? {
                break;
            }
            std::thread::sleep(patience.next());
        }
        let stranded = self.store.held()?;
        if !stranded.is_empty() || self.shared.stats.claimed.load(Ordering::Relaxed) > 0 {
            let returned = self.reclaim(&stranded)?;
            add(&self.shared.stats.reconciled, returned.len());
            // What was to be given back is: the stop has nothing to report of it.
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

/// Which of our tasks each id of the database stands for.
pub(crate) fn by_id(ids: Vec<(i32, String)>, names: &[String]) -> HashMap<i32, usize> {
    let place = |name: &String| names.iter().position(|known| known == name);
    ids.iter().filter_map(|(id, name)| place(name).map(|task| (*id, task))).collect()
}

fn due(at: Instant) -> bool {
    Instant::now() >= at
}
