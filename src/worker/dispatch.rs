//! gw-dispatch: claims jobs and hands them to the threads. Knows nothing of handlers.

use super::Shared;
use super::core::{CEILING, Core, Event, Seen, Step};
use crate::backoff::Backoff;
use crate::claim::ActiveJob;
use crate::error::Result;
use crate::hooks::{JobFetch, JobFetchContext};
use crate::job::Job;
use crate::stats::add;
use crate::store::{Filter, Store};
use chrono::Utc;
use crossbeam_channel::{after, never, select};
use log::warn;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// No more is held than the threads are expected to start within this time.
const HORIZON: Duration = Duration::from_millis(20);

/// Held jobs go back when no thread came free for this long.
const PATIENCE: Duration = Duration::from_millis(100);

/// A job that came back while its older handler still runs here is left alone for so long.
const DOUBLED_DELAY: Duration = Duration::from_secs(5);

/// Runs until a stop, or until the queue is empty if so asked; takes back what no thread has begun.
pub(crate) fn dispatch(shared: &Shared, until_empty: bool) {
    let wires = &shared.wires;
    let mut shell = Shell {
        shared,
        store: shared.store("dispatch"),
        filter: Filter {
            forbidden: some(&shared.config.forbidden_flags),
            accepted: some(&shared.config.accepted_flags),
            queue_index: shared.facts.has_queue_index,
        },
        mix: HashMap::new(),
    };
    let mut core = Core::new(shared.config.concurrency, until_empty);
    let mut retry = Backoff::new(Duration::from_millis(50), Duration::from_secs(10));
    let mut next_poll = Instant::now() + shared.config.poll_interval;
    let mut rested_at = None;
    let mut watch = Watch::default();
    loop {
        let seen = shell.look();
        shared.low_water.store(core.low_water(seen), Ordering::Relaxed);
        match core.step(seen) {
            Step::Claim(asked) => {
                next_poll = Instant::now() + shared.config.poll_interval;
                match shell.claim(asked) {
                    Ok(got) => {
                        retry.reset();
                        core.on(Event::Claimed { asked, got, entries: seen.entries });
                    }
                    Err(error) => {
                        // The reply may be lost although the claim was committed.
                        shared.in_doubt("claim", &error);
                        core.on(Event::ClaimFailed);
                        if shared.stop.wait_timeout(retry.next()) {
                            core.on(Event::Stop);
                        }
                    }
                }
            }
            Step::Wait => {
                let now = Instant::now();
                if watch.patience_is_over(now, seen.queued, shared.taken.load(Ordering::Relaxed)) {
                    shell.take_back();
                    core.on(Event::GaveBack);
                    rested_at = Some(now + shared.config.poll_interval);
                    continue;
                }
                let poll = if until_empty && seen.entries > 0 {
                    never()
                } else {
                    after(next_poll.saturating_duration_since(now))
                };
                let look_again = if seen.queued > 0 { after(PATIENCE / 2) } else { never() };
                select! {
                    recv(wires.wake.1) -> _ => core.on(Event::Wake),
                    recv(wires.freed.1) -> _ => core.on(Event::Freed),
                    recv(wires.low.1) -> _ => {}
                    recv(poll) -> _ => core.on(Event::Wake),
                    recv(look_again) -> _ => {}
                    recv(shared.stop.receiver()) -> _ => core.on(Event::Stop),
                }
                if rested_at.is_some_and(|at| Instant::now() >= at) {
                    rested_at = None;
                    core.on(Event::Rested);
                }
            }
            Step::Empty | Step::Stopped => break,
        }
        if shared.stop.is_triggered() {
            core.on(Event::Stop);
        }
    }
    shell.take_back();
}

fn some(flags: &[String]) -> Option<Vec<String>> {
    (!flags.is_empty()).then(|| flags.to_vec())
}

/// Sees that no thread takes what waits for one.
#[derive(Default)]
struct Watch {
    taken: usize,
    since: Option<Instant>,
}

impl Watch {
    fn patience_is_over(&mut self, now: Instant, queued: usize, taken: usize) -> bool {
        if queued == 0 || taken != self.taken || self.since.is_none() {
            self.taken = taken;
            self.since = (queued > 0).then_some(now);
            return false;
        }
        let over = self.since.is_some_and(|since| now - since >= PATIENCE);
        if over {
            self.since = None;
        }
        over
    }
}

/// What surrounds the decisions: channels, clock, database.
struct Shell<'a> {
    shared: &'a Shared,
    store: Store,
    filter: Filter,
    /// Which tasks the jobs claimed lately belong to; older claims weigh less.
    mix: HashMap<usize, f64>,
}

impl Shell<'_> {
    fn look(&self) -> Seen {
        let queued = self.shared.wires.jobs.1.len();
        Seen {
            idle: self.shared.idle.load(Ordering::Acquire),
            queued,
            entries: self.shared.ledger.len(),
            pace: self.pace(),
        }
    }

    /// How many jobs of the usual mix all threads together start within the horizon.
    fn pace(&self) -> usize {
        let weight: f64 = self.mix.values().sum();
        if weight == 0.0 {
            return 0;
        }
        let mut mean = 0.0;
        for (&task, share) in &self.mix {
            // A task that we have not seen end counts as slow.
            let Some(average) = self.shared.tasks[task].pace.average() else { return 0 };
            // A handler that has been running for longer tells us that the average is history.
            let expected = average.max(self.shared.oldest_running(task));
            mean += expected.as_secs_f64() * share / weight;
        }
        let threads = self.shared.config.concurrency as f64;
        (threads * HORIZON.as_secs_f64() / mean.max(1e-6)).min(CEILING as f64) as usize
    }

    /// Claims and hands out; answers how many jobs came.
    fn claim(&mut self, asked: usize) -> Result<usize> {
        let shared = self.shared;
        let ids = shared.task_ids.read().clone();
        let now = shared.config.local_time.then(Utc::now);
        let tasks: Vec<i32> = ids.keys().copied().collect();
        add(&shared.stats.claims, 1);

        let claiming = shared.claiming.lock();
        let rows = self.store.claim(asked, &tasks, &self.filter, now)?;
        let mut jobs = Vec::with_capacity(rows.len());
        for row in &rows {
            let task = ids[&row.get::<_, i32>("task_id")];
            match Job::from_row(row, shared.tasks[task].name.shared()) {
                Ok(job) => jobs.push((task, job)),
                // Its row stays locked by us and in no ledger, which is what reconcile gives back.
                Err(error) => {
                    shared.in_doubt("read a claimed job", &error);
                }
            }
        }
        // A crash of the server may forget a claim, and the job then runs again: not so where jobs must
        // not overlap, nor where there is only one attempt.
        if jobs.iter().any(|(_, job)| job.queue_id.is_some() || job.max_attempts == 1) {
            self.store.harden()?;
        }
        let (startable, doubled, voided) = shared.ledger.enter(jobs, &shared.wires.done.0);
        drop(claiming);

        let got = rows.len();
        add(&shared.stats.claimed, got);
        if got > 0 {
            shared.stats.claim_sizes.note(got as u64);
        }
        add(&shared.stats.lost, voided.len());
        voided.iter().for_each(|active| shared.tell_lost(active));
        self.remember(&startable);
        for active in startable {
            shared.events.send(JobFetch, || JobFetchContext {
                job: active.claim.job.clone(),
                worker_id: shared.worker_id.clone(),
            });
            shared.wires.jobs.0.send(active).expect("we hold the other end too");
        }
        for active in doubled {
            let job = active.job();
            warn!(worker_id = shared.worker_id.as_str(), job_id = job.id, task = &*job.task_identifier, attempt = job.attempts;
                "a job came back while we still had it; it waits until its older handler is gone");
            active.give_back(Some(DOUBLED_DELAY));
        }
        Ok(got)
    }

    fn remember(&mut self, claimed: &[Arc<ActiveJob>]) {
        if claimed.is_empty() {
            return;
        }
        self.mix.retain(|_, weight| {
            *weight /= 2.0;
            *weight > 0.01
        });
        for active in claimed {
            *self.mix.entry(active.claim.task).or_default() += 1.0;
        }
    }

    /// Takes back what no thread has begun, for others to run.
    fn take_back(&self) {
        for active in self.shared.wires.jobs.1.try_iter() {
            active.give_back(None);
        }
    }
}
