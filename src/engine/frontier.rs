//! Decides where a claim looks for jobs. Knows no SQL.
//!
//! While a transaction elsewhere stays open, vacuum removes no dead row, and a claim from the head of the index reads all
//! dead entries again. So if such a look is slow, most claims start where earlier ones ended, or take jobs from a list
//! that was read ahead. They miss what is added before that place, so a look at everything follows after at most a poll
//! interval.

use chrono::{DateTime, TimeDelta, Utc};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

/// A claim of at least this many jobs is large: it is taken from a list, and waits for its turn.
pub(crate) const LARGE: usize = 100;

/// If more queues than this came free, a claim looks everywhere.
const MANY_QUEUES: usize = 1_000;

/// How many ids a list has.
const SHORTEST_LIST: usize = 2_000;
const LONGEST_LIST: usize = 100_000;

/// After a slow look at everything, the next one waits for this many times the excess time.
const PAUSE: u32 = 10;

/// A look at everything is slow if it takes this much longer than three times the usual time.
const NEGLIGIBLE: Duration = Duration::from_millis(5);

/// How long after its `run_at` a job may be committed and still be found by the next claim.
const LATE_COMMIT: TimeDelta = TimeDelta::seconds(1);

/// The fixed cost of a claim, in units of the cost of one job.
const FIXED_COST: f64 = 50.0;

/// Priorities in order, and for each the `run_at` before which all jobs have been looked at.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Bounds {
    pub(crate) priorities: Vec<i16>,
    pub(crate) since: Vec<DateTime<Utc>>,
}

/// Where a claim looks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Scope {
    Everywhere,
    From(Bounds),
    /// At these ids.
    Listed(Vec<i64>),
}

/// What to do for a claim.
#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    Claim(Scope),
    /// Read this many ids ahead, from these bounds, then ask again.
    Scout(usize, Bounds),
}

/// The place of a claimed job in the order of jobs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Position {
    pub(crate) id: i64,
    pub(crate) priority: i16,
    pub(crate) run_at: DateTime<Utc>,
}

/// What the fetch threads of a worker know of the order of jobs.
pub(crate) struct Frontier {
    poll_interval: Duration,
    state: Mutex<State>,
}

struct State {
    since: BTreeMap<i16, DateTime<Utc>>,
    listed: VecDeque<i64>,
    /// The length of the next list, and when the last one was read.
    length: usize,
    scouted: Option<Instant>,
    /// The last list was empty, and no claim has looked ahead since.
    nothing_ahead: bool,
    /// From this moment on, a claim looks everywhere.
    everywhere: Instant,
    /// Jobs may have become available before the bounds, so the next claim looks everywhere.
    is_behind: bool,
    /// Queues that came free since. Their first jobs may be before the bounds.
    freed: HashSet<i32>,
    /// Whether the last look at everything was slow.
    is_slow: bool,
    /// Seconds for each job of a claim that did not look everywhere; recent claims weigh more.
    cost: f64,
}

impl Frontier {
    pub(crate) fn new(poll_interval: Duration) -> Self {
        let state = State {
            since: BTreeMap::new(),
            listed: VecDeque::new(),
            length: SHORTEST_LIST,
            scouted: None,
            nothing_ahead: false,
            everywhere: Instant::now(),
            is_behind: true,
            freed: HashSet::new(),
            is_slow: false,
            cost: 20e-6,
        };
        Self { poll_interval, state: Mutex::new(state) }
    }

    /// Where the next claim looks.
    pub(crate) fn next(&self, limit: usize, now: Instant) -> Next {
        let mut state = self.state.lock();
        if std::mem::take(&mut state.is_behind) || now >= state.everywhere || state.since.is_empty() {
            if state.is_slow {
                // One fetch thread does it at a time.
                state.everywhere = now + self.poll_interval;
            }
            return Next::Claim(Scope::Everywhere);
        }
        if !state.listed.is_empty() && limit >= LARGE {
            let count = limit.min(state.listed.len());
            return Next::Claim(Scope::Listed(state.listed.drain(..count).collect()));
        }
        let bounds = Bounds {
            priorities: state.since.keys().copied().collect(),
            since: state.since.values().copied().collect(),
        };
        if limit >= LARGE && !std::mem::take(&mut state.nothing_ahead) {
            return Next::Scout(state.length, bounds);
        }
        Next::Claim(Scope::From(bounds))
    }

    /// The next claim looks everywhere: jobs may have become available before the bounds.
    pub(crate) fn look_everywhere(&self) {
        self.state.lock().is_behind = true;
    }

    /// Records queues that came free.
    pub(crate) fn freed(&self, queues: impl Iterator<Item = i32>) {
        let mut state = self.state.lock();
        state.freed.extend(queues);
        if state.freed.len() > MANY_QUEUES {
            // Looking at each of them costs more.
            state.is_behind = true;
        }
    }

    /// The queues that a claim with this scope must look at. If it looks everywhere, it sees them anyway.
    pub(crate) fn take_freed(&self, scope: &Scope) -> Vec<i32> {
        let freed = std::mem::take(&mut self.state.lock().freed);
        if *scope == Scope::Everywhere { Vec::new() } else { freed.into_iter().collect() }
    }

    /// Records the ids that were read ahead.
    pub(crate) fn scouted(&self, ids: Vec<i64>, start: Instant, now: Instant) {
        let mut state = self.state.lock();
        state.nothing_ahead = ids.is_empty();
        state.listed = ids.into();
        // Reading ahead takes at most a tenth of the time.
        let took = now - start;
        let since = state.scouted.replace(now).map_or(Duration::ZERO, |before| start - before);
        state.length = match took {
            _ if took * 10 > since => state.length * 8,
            _ if took * 50 < since => state.length / 2,
            _ => state.length,
        }
        .clamp(SHORTEST_LIST, LONGEST_LIST);
    }

    /// Records a claim that returned `all` jobs. It has seen all jobs up to `jobs`, in their order.
    pub(crate) fn claimed(
        &self,
        scope: &Scope,
        is_full: bool,
        all: usize,
        jobs: &[Position],
        took: Duration,
        now: Instant,
    ) {
        let mut state = self.state.lock();
        let work = all as f64 + FIXED_COST;
        match scope {
            Scope::Everywhere => {
                let usual = Duration::from_secs_f64(3.0 * state.cost * work) + NEGLIGIBLE;
                let (excess, most) = (took.saturating_sub(usual), self.poll_interval.max(2 * took));
                state.is_slow = !excess.is_zero();
                state.everywhere = now + (PAUSE * excess).min(most);
                if !state.listed.is_empty() {
                    let claimed: HashSet<i64> = jobs.iter().map(|job| job.id).collect();
                    while state.listed.front().is_some_and(|id| claimed.contains(id)) {
                        state.listed.pop_front();
                    }
                }
            }
            _ => state.cost = 0.8 * state.cost + 0.2 * took.as_secs_f64() / work,
        }
        // A claim that was not full has seen all jobs, but some may be committed later than others with a later run_at.
        let is_exact = is_full || matches!(scope, Scope::Listed(_));
        let Some(last) = jobs.last().map(|job| job.priority) else { return };
        for job in jobs {
            let since = if job.priority == last && is_exact { job.run_at } else { job.run_at - LATE_COMMIT };
            let bound = state.since.entry(job.priority).or_insert(since);
            *bound = since.max(*bound);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLL: Duration = Duration::from_secs(1);
    const FAST: Duration = Duration::from_millis(1);
    const SLOW: Duration = Duration::from_millis(500);

    fn time(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    fn jobs(jobs: &[(i64, i16, i64)]) -> Vec<Position> {
        jobs.iter().map(|&(id, priority, at)| Position { id, priority, run_at: time(at) }).collect()
    }

    fn bounds(bounds: &[(i16, i64)]) -> Bounds {
        Bounds {
            priorities: bounds.iter().map(|bound| bound.0).collect(),
            since: bounds.iter().map(|bound| time(bound.1)).collect(),
        }
    }

    /// A frontier after a claim that looked everywhere and returned the jobs 1 and 2, as many as it asked for.
    fn after(took: Duration) -> (Frontier, Instant) {
        let (frontier, now) = (Frontier::new(POLL), Instant::now());
        assert_eq!(frontier.next(2, now), Next::Claim(Scope::Everywhere), "nothing is known at first");
        frontier.claimed(&Scope::Everywhere, true, 2, &jobs(&[(1, 0, 100), (2, 5, 200)]), took, now);
        (frontier, now)
    }

    #[test]
    fn quick_claims_always_look_everywhere() {
        let (frontier, now) = after(FAST);
        assert_eq!(frontier.next(500, now), Next::Claim(Scope::Everywhere));
    }

    #[test]
    fn after_a_slow_claim_the_next_ones_look_ahead_for_a_poll_interval() {
        let (frontier, now) = after(SLOW);
        let ahead = Next::Claim(Scope::From(bounds(&[(0, 99), (5, 200)])));
        assert_eq!(frontier.next(10, now), ahead);
        assert_eq!(frontier.next(10, now + POLL * 9 / 10), ahead);
        frontier.look_everywhere();
        assert_eq!(frontier.next(10, now), Next::Claim(Scope::Everywhere), "jobs came back");
        assert_eq!(frontier.next(10, now), ahead);
        let (frontier, now) = after(SLOW);
        assert_eq!(frontier.next(10, now + POLL), Next::Claim(Scope::Everywhere));
        assert_eq!(frontier.next(10, now + POLL), ahead, "one fetch thread is enough");
    }

    #[test]
    fn a_claim_that_does_not_look_everywhere_looks_at_queues_that_came_free() {
        let (frontier, _) = after(SLOW);
        let from = Scope::From(Bounds::default());
        frontier.freed([7].into_iter());
        assert_eq!(frontier.take_freed(&from), [7]);
        assert!(frontier.take_freed(&from).is_empty());
        frontier.freed([7].into_iter());
        assert!(frontier.take_freed(&Scope::Everywhere).is_empty());
        assert!(frontier.take_freed(&from).is_empty(), "the claim has seen them");
    }

    #[test]
    fn bounds_move_on_with_full_claims_and_leave_time_for_late_commits_after_short_ones() {
        let (frontier, now) = after(SLOW);
        let from = Scope::From(Bounds::default());
        frontier.claimed(&from, true, 2, &jobs(&[(3, 5, 300), (4, 5, 310)]), FAST, now);
        assert_eq!(frontier.next(10, now), Next::Claim(Scope::From(bounds(&[(0, 99), (5, 310)]))));
        frontier.claimed(&from, false, 1, &jobs(&[(5, 5, 320)]), FAST, now);
        assert_eq!(frontier.next(10, now), Next::Claim(Scope::From(bounds(&[(0, 99), (5, 319)]))));
        frontier.claimed(&Scope::Everywhere, true, 1, &jobs(&[(6, 5, 50)]), SLOW, now);
        assert_eq!(frontier.next(10, now), Next::Claim(Scope::From(bounds(&[(0, 99), (5, 319)]))), "never back");
    }

    #[test]
    fn large_claims_take_the_jobs_of_a_list_in_turn() {
        let (frontier, now) = after(SLOW);
        let Next::Scout(SHORTEST_LIST, from) = frontier.next(LARGE, now) else { panic!("no list yet") };
        assert_eq!(from, bounds(&[(0, 99), (5, 200)]));
        frontier.scouted((1..=250).collect(), now, now + FAST);
        let listed = |ids: std::ops::RangeInclusive<i64>| Next::Claim(Scope::Listed(ids.collect()));
        assert_eq!(frontier.next(LARGE, now), listed(1..=100));
        assert_eq!(frontier.next(10, now), Next::Claim(Scope::From(from.clone())), "a small claim leaves the list");
        // Jobs that were claimed otherwise are not looked for again.
        frontier.claimed(&Scope::Everywhere, true, 2, &jobs(&[(101, 5, 200), (102, 5, 200)]), SLOW, now);
        assert_eq!(frontier.next(LARGE, now), listed(103..=202));
        assert_eq!(frontier.next(LARGE, now), listed(203..=250));
        assert!(matches!(frontier.next(LARGE, now), Next::Scout(..)));
        frontier.scouted(Vec::new(), now, now + FAST);
        assert_eq!(frontier.next(LARGE, now), Next::Claim(Scope::From(from)), "nothing to list");
    }

    #[test]
    fn a_list_grows_while_reading_it_takes_long() {
        let (frontier, now) = after(SLOW);
        let length = |frontier: &Frontier| match frontier.next(LARGE, now) {
            Next::Scout(length, _) => length,
            next => panic!("{next:?}"),
        };
        frontier.scouted(vec![1], now, now + SLOW);
        let _ = frontier.next(LARGE, now);
        assert_eq!(length(&frontier), 8 * SHORTEST_LIST);
        frontier.scouted(vec![1], now + 100 * SLOW, now + 100 * SLOW + FAST);
        let _ = frontier.next(LARGE, now);
        assert_eq!(length(&frontier), 4 * SHORTEST_LIST);
    }
}
