//! gw-dispatch: decides when to claim, and how many. Knows neither handlers nor the database.

use super::Shared;
use super::claim_plan::{Brought, CEILING, ClaimPlan, Event, Seen, Step};
use super::fetch::{Fetched, Order, Reply};
use super::frontier::Scope;
use super::local_queue_events::{LocalQueueEvents, Pause};
use crate::backoff::random_unit;
use crate::config::RefetchDelay;
use crate::job::active::ActiveJob;
use crossbeam_channel::{after, at, never, select};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The worker holds at most the jobs that its threads are expected to start within this time.
const PREFETCH_HORIZON: Duration = Duration::from_millis(20);

/// Held jobs are given back if no thread becomes free for this long.
const IDLE_RETURN_TIMEOUT: Duration = Duration::from_millis(100);

/// Runs until a stop or, with `until_empty`, until the queue is empty. Then gives back the jobs that no thread has
/// started.
pub(crate) fn dispatch(shared: &Shared, until_empty: bool) {
    let mut dispatcher = Dispatcher::new(shared, until_empty);
    while dispatcher.advance() {}
    dispatcher.events.released(shared.take_back());
}

/// Carries out what the plan decides.
struct Dispatcher<'a> {
    shared: &'a Shared,
    until_empty: bool,
    plan: ClaimPlan,
    timers: Timers,
    refetch: Refetch,
    watch: Watch,
    events: LocalQueueEvents<'a>,
    /// How many of the recently claimed jobs belong to each task. Older claims weigh less.
    mix: HashMap<usize, f64>,
    /// The numbers of fetch threads that carry out no claim. The last one gets the next claim.
    free: Vec<usize>,
}

/// When the dispatcher acts without an event.
struct Timers {
    poll_interval: Duration,
    poll: Instant,
    /// The end of the pause after jobs were given back because no thread became free.
    rested: Option<Instant>,
    /// Before this moment, no held job is older than the TTL of the fixed local queue.
    ttl: Instant,
}

impl Timers {
    fn poll_again(&mut self) {
        self.poll = Instant::now() + self.poll_interval;
    }

    fn takes_rest(&mut self, now: Instant) {
        self.rested = Some(now + self.poll_interval);
    }

    /// Whether the rest has ended since the last call.
    fn has_rested(&mut self) -> bool {
        let over = self.rested.is_some_and(|at| Instant::now() >= at);
        if over {
            self.rested = None;
        }
        over
    }
}

impl<'a> Dispatcher<'a> {
    fn new(shared: &'a Shared, until_empty: bool) -> Self {
        let (config, claimers) = (&shared.config, shared.channels.orders.len());
        let mut plan = ClaimPlan::new(config.threads, claimers, until_empty)
            .with_slots(config.concurrency)
            .with_budget(config.held_bytes);
        if let Some(queue) = config.local_queue {
            plan = plan.with_fixed(queue.capacity, queue.size);
        }
        let (now, poll_interval) = (Instant::now(), config.poll_interval);
        Self {
            shared,
            until_empty,
            plan,
            timers: Timers { poll_interval, poll: now + poll_interval, rested: None, ttl: now },
            refetch: Refetch::new(config.local_queue.and_then(|queue| queue.refetch).filter(|_| !until_empty)),
            watch: Watch::default(),
            events: LocalQueueEvents::new(shared),
            mix: HashMap::new(),
            free: (0..claimers).rev().collect(),
        }
    }

    /// Takes one step. Returns false after the last one.
    fn advance(&mut self) -> bool {
        let seen = self.look();
        self.events.holds(seen.queued);
        self.shared.held.set_low_water(self.plan.low_water(seen));
        match self.plan.step(seen) {
            Step::Claim(asked) => {
                self.events.claim_sent();
                self.order(asked, seen);
                self.plan.on(Event::Asked(asked));
            }
            Step::Wait if self.interrupts_series(seen.successors) => {}
            Step::Wait if self.is_held_for_too_long(seen.queued) => {
                self.events.expired(self.shared.take_back());
                self.plan.on(Event::GaveBack);
                self.shared.frontier.look_everywhere();
                self.timers.takes_rest(Instant::now());
            }
            Step::Wait => self.wait(seen),
            Step::Empty | Step::Stopped => return false,
        }
        if self.shared.stop.begun.is_triggered() {
            self.plan.on(Event::Stop);
        }
        true
    }

    /// Waits until there may be something to do.
    fn wait(&mut self, seen: Seen) {
        let channels = &self.shared.channels;
        // A run until empty waits for the outcomes of its jobs. It polls only if it has no jobs, or while outcomes are
        // deferred.
        let polls = !self.until_empty || seen.entries == 0 || self.shared.deferred.load(Ordering::Relaxed) > 0;
        let poll = if polls { at(self.timers.poll) } else { never() };
        let look_again = match (seen.queued + seen.successors, self.shared.config.local_queue) {
            (0, _) => never(),
            (_, Some(_)) => at(self.timers.ttl),
            (_, None) => after(IDLE_RETURN_TIMEOUT / 2),
        };
        select! {
            recv(channels.fetched.1) -> fetched => {
                self.fetched(fetched.expect("the sender is in the same struct"));
            }
            recv(channels.wake.1) -> _ => self.refetch.wanted = true,
            recv(channels.freed.1) -> _ => self.plan.on(Event::Freed),
            recv(channels.low.1) -> _ => {}
            recv(poll) -> _ => {
                self.timers.poll_again();
                self.refetch.wanted = true;
                self.shared.frontier.look_everywhere();
            }
            recv(self.refetch.until.map_or_else(never, at)) -> _ => {}
            recv(look_again) -> _ => {}
            recv(self.shared.stop.begun.receiver()) -> _ => self.plan.on(Event::Stop),
        }
        let ended = self.refetch.look(Instant::now(), self.notifications());
        self.events.refetch(ended);
        if self.refetch.may_claim() {
            self.plan.on(Event::Wake);
        }
        if self.timers.has_rested() {
            self.plan.on(Event::Rested);
        }
    }

    /// Whether held jobs must be given back, because no thread becomes free for them.
    fn is_held_for_too_long(&mut self, queued: usize) -> bool {
        let now = Instant::now();
        match self.shared.config.local_queue {
            Some(queue) => self.ttl_is_over(now, queue.ttl, queued),
            None => self.watch.patience_is_over(now, queued, self.shared.held.taken()),
        }
    }

    /// Gives back the jobs of series that take long, whether by one job or by many. Returns whether there were any.
    fn interrupts_series(&self, successors: usize) -> bool {
        if successors == 0 {
            return false;
        }
        let is_slow = |active: &&Arc<ActiveJob>| active.held_for() >= IDLE_RETURN_TIMEOUT;
        let jobs = self.shared.slots.jobs();
        let slow = jobs.iter().filter(is_slow).filter_map(|active| active.claim.series.as_ref());
        slow.filter(|series| series.has_successors()).inspect(|series| series.interrupt()).count() > 0
    }

    fn look(&self) -> Seen {
        let queued = self.shared.held.len();
        let bytes = self.shared.ledger.held_bytes();
        let (entries, successors) = (self.entries(), self.shared.ledger.successors());
        Seen { idle: self.shared.idle(), queued, successors, bytes, entries, pace: self.pace() }
    }

    /// How many claims the ledger has. A run until empty waits at most the grace period for a deferred outcome, and
    /// does not count it after that.
    fn entries(&self) -> usize {
        if !self.until_empty || self.shared.deferred.load(Ordering::Relaxed) == 0 {
            return self.shared.ledger.len();
        }
        let grace = self.shared.config.grace_period;
        let is_left = |active: &&Arc<ActiveJob>| active.deferred_for().is_some_and(|waited| waited >= grace);
        let all = self.shared.ledger.all();
        all.len() - all.iter().filter(is_left).count()
    }

    /// How many jobs of the recent mix of tasks all threads together start within the horizon.
    fn pace(&self) -> usize {
        let weight: f64 = self.mix.values().sum();
        if weight == 0.0 {
            return 0;
        }
        let mut mean = 0.0;
        for (&task, share) in &self.mix {
            // A task of which no job has ended yet counts as slow.
            let Some(average) = self.shared.tasks[task].pace.average() else { return 0 };
            // If a handler has been running for longer than the average, the average is outdated.
            let expected = average.max(self.shared.slots.oldest_running(task));
            mean += expected.as_secs_f64() * share / weight;
        }
        let threads = self.shared.config.threads as f64;
        (threads * PREFETCH_HORIZON.as_secs_f64() / mean.max(1e-6)).min(CEILING as f64) as usize
    }

    /// Whether a job has been held for longer than the TTL of the fixed local queue.
    fn ttl_is_over(&mut self, now: Instant, ttl: Duration, queued: usize) -> bool {
        if queued == 0 || now < self.timers.ttl {
            return false;
        }
        let all = self.shared.ledger.all();
        let oldest = all.iter().find(|active| active.is_held()).map(|active| active.held_for()).unwrap_or_default();
        self.timers.ttl = now + ttl.saturating_sub(oldest).max(Duration::from_millis(1));
        oldest >= ttl
    }

    fn notifications(&self) -> u64 {
        self.shared.stats.notifications.load(Ordering::Relaxed)
    }

    fn order(&mut self, jobs: usize, seen: Seen) {
        let claimer = self.free.pop().expect("the plan counts the claims in flight");
        let (along, expected) = (self.plan.along(seen, jobs), self.plan.expected(jobs));
        let order = Order { jobs, entries: seen.entries, along, expected };
        self.shared.channels.orders[claimer].0.send(order).expect("the receiver is in `shared`");
    }

    /// Passes the result of a claim to the plan.
    fn fetched(&mut self, fetched: Fetched) {
        self.free.push(fetched.claimer);
        self.free.sort_unstable_by(|a, b| b.cmp(a));
        let Order { jobs: asked, entries, .. } = fetched.order;
        let Some(Reply { taken, scope, is_full, along }) = fetched.reply else {
            return self.plan.on(Event::ClaimFailed { asked });
        };
        self.remember(&taken.jobs);
        let got = taken.jobs.values().sum();
        self.events.fetched(got);
        let is_short = !is_full && taken.cut.is_none();
        if scope == Scope::Everywhere {
            self.timers.poll_again();
        }
        // Before it ends, a run until empty looks at all jobs. Jobs that were given back are before the others.
        let ahead_only = matches!(scope, Scope::From(_)) && is_short && self.until_empty;
        if ahead_only || taken.cut.is_some() {
            self.shared.frontier.look_everywhere();
        }
        // A cut claim does not show how many jobs there are, nor does a list.
        let more = ahead_only || matches!(scope, Scope::Listed(_));
        let found = if more || !is_short { asked } else { got };
        let pause = self.refetch.claimed(Instant::now(), asked, found, self.notifications());
        self.events.refetch(pause);
        let full = is_full && taken.cut.is_none();
        let brought =
            Brought { asked, got, along, entries, bytes: taken.bytes, late: fetched.late, cut: taken.cut, more, full };
        self.plan.on(Event::Claimed(brought));
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

/// Delays the next claim after one that returned few jobs, unless notifications announce many jobs.
struct Refetch {
    config: Option<RefetchDelay>,
    /// Whether a wakeup or a poll has requested a claim since the last one.
    wanted: bool,
    /// The end of the pause.
    until: Option<Instant>,
    /// How many notifications there were when the pause began.
    heard: u64,
    /// The pause ends after this many further notifications. `None` if notifications do not end it.
    abort_after: Option<u64>,
}

impl Refetch {
    fn new(config: Option<RefetchDelay>) -> Self {
        Self { config, wanted: false, until: None, heard: 0, abort_after: None }
    }

    /// Records the result of a claim. If it returned few jobs, a pause begins, and its event is returned.
    fn claimed(&mut self, now: Instant, asked: usize, got: usize, notifications: u64) -> Option<Pause> {
        let config = self.config.filter(|config| got <= config.threshold && got < asked)?;
        let duration = config.duration.mul_f64(0.5 + 0.5 * random_unit());
        let pulses = (config.max_abort as f64 * random_unit()) as u64;
        self.until = Some(now + duration);
        self.heard = notifications;
        self.abort_after = (config.max_abort < usize::MAX).then(|| pulses.max(1));
        Some(Pause::Begins { duration, threshold: config.threshold, abort_after: self.abort_after })
    }

    /// Ends the pause if its time is over or enough notifications have arrived. Returns the event.
    fn look(&mut self, now: Instant, notifications: u64) -> Option<Pause> {
        let until = self.until?;
        let announced = notifications - self.heard;
        let aborted = self.abort_after.filter(|&after| announced >= after);
        let ends = match aborted {
            Some(abort_after) => Pause::Aborted { announced, abort_after },
            None if now >= until => Pause::Expires,
            None => return None,
        };
        self.until = None;
        Some(ends)
    }

    /// Whether a claim is requested and no pause is in effect. Clears the request.
    fn may_claim(&mut self) -> bool {
        self.until.is_none() && std::mem::take(&mut self.wanted)
    }
}

/// Detects that no thread takes a waiting job.
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
        let over = self.since.is_some_and(|since| now - since >= IDLE_RETURN_TIMEOUT);
        if over {
            self.since = None;
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_after_a_short_claim_ends_by_time_or_notifications() {
        let config = RefetchDelay { duration: Duration::from_millis(100), threshold: 3, max_abort: 1 };
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let after = |config, got| {
            let mut refetch = Refetch::new(config);
            refetch.claimed(start, 5, got, 70);
            refetch.wanted = true;
            refetch
        };
        let may_claim = |mut refetch: Refetch, now, notifications| {
            refetch.look(now, notifications);
            refetch.may_claim()
        };
        assert!(may_claim(after(None, 0), start, 70), "no pause is asked for");
        assert!(may_claim(after(Some(config), 4), start, 70), "above the threshold");
        let full = RefetchDelay { threshold: 5, ..config };
        assert!(may_claim(after(Some(full), 5), start, 70), "a full claim");
        assert!(!may_claim(after(Some(config), 3), at(49), 70));
        assert!(may_claim(after(Some(config), 3), at(100), 70));
        assert!(may_claim(after(Some(config), 3), start, 71), "a notification ends it");
        let deaf = RefetchDelay { max_abort: usize::MAX, ..config };
        assert!(!may_claim(after(Some(deaf), 3), start, 1_000_000));
        let mut idle = after(Some(config), 3);
        idle.wanted = false;
        assert!(!may_claim(idle, at(100), 70), "no claim is requested");
    }
}
