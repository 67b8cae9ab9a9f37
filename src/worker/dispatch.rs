//! gw-dispatch: decides when to claim, and how many. Knows neither handlers nor the database.

use super::Shared;
use super::core::{CEILING, Core, Event, Seen, Step};
use super::fetch::{Fetched, Order};
use crossbeam_channel::{after, never, select};
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// No more is held than the threads are expected to start within this time.
const HORIZON: Duration = Duration::from_millis(20);

/// Held jobs go back when no thread came free for this long.
const PATIENCE: Duration = Duration::from_millis(100);

/// Runs until a stop, or until the queue is empty if so asked; takes back what no thread has begun.
pub(crate) fn dispatch(shared: &Shared, until_empty: bool) {
    let wires = &shared.wires;
    let claimers = wires.orders.len();
    let mut shell = Shell { shared, mix: HashMap::new(), free: (0..claimers).rev().collect() };
    let mut core = Core::new(shared.config.concurrency, claimers, until_empty);
    let mut next_poll = Instant::now() + shared.config.poll_interval;
    let mut rested_at = None;
    let mut watch = Watch::default();
    loop {
        let seen = shell.look();
        shared.low_water.store(core.low_water(seen), Ordering::Relaxed);
        match core.step(seen) {
            Step::Claim(asked) => {
                next_poll = Instant::now() + shared.config.poll_interval;
                shell.order(asked, seen.entries);
                core.on(Event::Asked(asked));
            }
            Step::Wait => {
                let now = Instant::now();
                if watch.patience_is_over(now, seen.queued, shared.taken.load(Ordering::Relaxed)) {
                    shared.take_back();
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
                    recv(wires.fetched.1) -> fetched => {
                        core.on(shell.fetched(fetched.expect("we hold the other end too")));
                    }
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
    shared.take_back();
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

/// What surrounds the decisions: channels and clock.
struct Shell<'a> {
    shared: &'a Shared,
    /// Which tasks the jobs claimed lately belong to; older claims weigh less.
    mix: HashMap<usize, f64>,
    /// Claimers without an order; the first of them is asked before the others.
    free: Vec<usize>,
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

    fn order(&mut self, jobs: usize, entries: usize) {
        let claimer = self.free.pop().expect("the core counts the claims under way");
        let order = Order { jobs, entries };
        self.shared.wires.orders[claimer].0.send(order).expect("we hold the other end too");
    }

    fn fetched(&mut self, fetched: Fetched) -> Event {
        self.free.push(fetched.claimer);
        self.free.sort_unstable_by(|a, b| b.cmp(a));
        let Order { jobs: asked, entries } = fetched.order;
        match fetched.jobs {
            Some(jobs) => {
                let got = jobs.values().sum();
                self.remember(&jobs);
                Event::Claimed { asked, got, entries }
            }
            None => Event::ClaimFailed { asked },
        }
    }

    fn remember(&mut self, claimed: &HashMap<usize, usize>) {
        if claimed.is_empty() {
            return;
        }
        self.mix.retain(|_, weight| {
            *weight /= 2.0;
            *weight > 0.01
        });
        for (&task, &jobs) in claimed {
            *self.mix.entry(task).or_default() += jobs as f64;
        }
    }
}
