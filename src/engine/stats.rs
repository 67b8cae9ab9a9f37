//! Counters of one worker's life. Knows nothing of who counts.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Declares a counter once: the atomic that threads add to, and the number that callers read.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        #[derive(Default)]
        pub(crate) struct Stats {
            $(pub(crate) $name: AtomicU64,)*
            pub(crate) claim_sizes: Gauge,
            pub(crate) settle_sizes: Gauge,
            /// In microseconds.
            pub(crate) handler_times: Gauge,
            pub(crate) listener: ListenerCell,
        }

        /// What a worker has done since it started, and what it is doing now.
        ///
        /// ```no_run
        /// # fn look(worker: &graphile_worker::Worker) {
        /// let stats = worker.stats();
        /// println!("{} done, {} in flight", stats.completed, stats.in_flight);
        /// println!("99 % of the handlers took at most {} us", stats.handler_times.quantile(0.99));
        /// println!("{:?} sessions", stats.sessions);
        /// # }
        /// ```
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct WorkerStats {
            $($(#[$doc])* pub $name: u64,)*
            /// Jobs claimed and waiting for a thread, now.
            pub held: u64,
            /// Jobs whose handler runs, now.
            pub running: u64,
            /// Jobs claimed and not settled, now: held, running, or waiting to be settled.
            pub in_flight: u64,
            /// For how long the oldest outcome has been waiting to be written, now; zero if none is.
            pub settle_lag: Duration,
            /// Whether notifications arrive.
            pub listener: ListenerState,
            /// How many jobs each claim brought, empty ones left out.
            pub claim_sizes: Histogram,
            /// How many outcomes each statement wrote.
            pub settle_sizes: Histogram,
            /// How long handlers took, in microseconds, hooks around them included.
            pub handler_times: Histogram,
            /// Events that no observer was told of, because they could not keep up.
            pub events_dropped: u64,
            /// How many sessions of the database are open now, by their role: `fetch`, `lease`, `listen`,
            /// `settle`, and `handler` for those of the pool, where the pool can tell.
            pub sessions: BTreeMap<&'static str, u64>,
        }

        impl Stats {
            /// What was counted; the rest is the caller's to fill in.
            pub(crate) fn snapshot(&self) -> WorkerStats {
                WorkerStats {
                    $($name: self.$name.load(Ordering::Relaxed),)*
                    claim_sizes: self.claim_sizes.read(),
                    settle_sizes: self.settle_sizes.read(),
                    handler_times: self.handler_times.read(),
                    listener: self.listener.get(),
                    ..WorkerStats::default()
                }
            }
        }
    };
}

counters! {
    /// Jobs claimed.
    claimed,
    /// Jobs that succeeded, and whose row is gone.
    completed,
    /// Attempts that failed, the last ones included.
    failed,
    /// Attempts that failed and are tried again.
    retried,
    /// Jobs that failed for good.
    permanently_failed,
    /// Jobs given back before they started, or interrupted by a stop.
    returned,
    /// Jobs whose handlers asked to be run again later, without using an attempt.
    snoozed,
    /// Handlers that were cancelled because they took longer than their task may.
    timed_out,
    /// Handlers that went on for longer than the grace period after that.
    stuck,
    /// Outcomes that the database refused, because the job was no longer ours.
    lost,
    /// Jobs that the database held for us without our knowing, given back.
    reconciled,
    /// Database calls that failed and were tried again.
    database_errors,
    /// Claims sent.
    claims,
    /// Statements that wrote outcomes.
    settlements,
    /// Wake-ups by notification.
    notifications,
}

/// How a worker fares with its database, by its own beats and by every error.
pub(crate) struct Health(Mutex<Pulse>);

struct Pulse {
    well_since: Instant,
    /// The last beat, by two clocks: the first stands still while the machine sleeps, the second can
    /// be set. None before the first beat.
    beat: Option<(Instant, SystemTime)>,
}

impl Health {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Pulse { well_since: Instant::now(), beat: None }))
    }

    /// A call to the database failed.
    pub(crate) fn failed(&self) {
        self.0.lock().well_since = Instant::now();
    }

    /// The database has noted a beat. A pause beyond `longest` before it starts everything anew.
    pub(crate) fn beat(&self, longest: Duration) {
        let now = Instant::now();
        let mut pulse = self.0.lock();
        if pulse.silence().is_none_or(|silence| silence > longest) {
            pulse.well_since = now;
        }
        pulse.beat = Some((now, SystemTime::now()));
    }

    /// Whether the last beat was longer ago: others may think us dead.
    pub(crate) fn is_silent(&self, longest: Duration) -> bool {
        self.0.lock().silence().is_some_and(|silence| silence > longest)
    }

    /// For how long every call has succeeded and no pause between beats was beyond `longest`.
    pub(crate) fn well_for(&self, longest: Duration) -> Duration {
        let pulse = self.0.lock();
        match pulse.silence() {
            Some(silence) if silence <= longest => pulse.well_since.elapsed(),
            _ => Duration::ZERO,
        }
    }
}

impl Pulse {
    /// Since the last beat, by the clock that says longer. A clock that was set costs a look too many.
    fn silence(&self) -> Option<Duration> {
        self.beat.map(|(at, wall)| at.elapsed().max(wall.elapsed().unwrap_or_default()))
    }
}

pub(crate) fn add(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}

/// How a worker hears of new jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListenerState {
    /// Not at all: it polls, as it was told to.
    #[default]
    Off,
    /// It is not sure yet that notifications arrive.
    Connecting,
    /// By notification: one to itself has arrived.
    Listening,
    /// Notifications do not arrive: it polls until they do.
    Degraded,
}

/// The listener's state, set by gw-listen.
#[derive(Default)]
pub(crate) struct ListenerCell(AtomicU8);

impl ListenerCell {
    pub(crate) fn set(&self, state: ListenerState) {
        self.0.store(state as u8, Ordering::Relaxed);
    }

    fn get(&self) -> ListenerState {
        use ListenerState::{Connecting, Degraded, Listening, Off};
        [Off, Connecting, Listening, Degraded][usize::from(self.0.load(Ordering::Relaxed))]
    }
}

/// Into how many ranges values are sorted: 0, 1, 2 to 3, 4 to 7, and so on; the last has no end.
const RANGES: usize = 32;

/// Whole numbers as they are noted, by threads that do not wait for each other.
#[derive(Default)]
pub(crate) struct Gauge {
    counts: [AtomicU64; RANGES],
    sum: AtomicU64,
    most: AtomicU64,
}

impl Gauge {
    pub(crate) fn note(&self, value: u64) {
        self.counts[range(value)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
        self.most.fetch_max(value, Ordering::Relaxed);
    }

    fn read(&self) -> Histogram {
        Histogram {
            counts: std::array::from_fn(|at| self.counts[at].load(Ordering::Relaxed)),
            sum: self.sum.load(Ordering::Relaxed),
            most: self.most.load(Ordering::Relaxed),
        }
    }
}

fn range(value: u64) -> usize {
    (u64::BITS - value.leading_zeros()).min(RANGES as u32 - 1) as usize
}

/// How often values of each size occurred. Sizes are told apart by powers of two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; RANGES],
    sum: u64,
    most: u64,
}

impl Histogram {
    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum, exact.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The greatest of them, exact; 0 if there were none.
    pub fn max(&self) -> u64 {
        self.most
    }

    /// At most which value the given share of the values had (0.5: the median): the end of a range, so at
    /// most twice too much. 0 if there were none.
    pub fn quantile(&self, share: f64) -> u64 {
        let rank = (self.count() as f64 * share.clamp(0.0, 1.0)).ceil().max(1.0) as u64;
        let mut seen = 0;
        let within = self.buckets().find(|(_, count)| {
            seen += count;
            seen >= rank
        });
        within.map_or(0, |(end, _)| end.min(self.most))
    }

    /// The greatest value of each range, and how many values it has; the last range has no end.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let end = |at: usize| if at == RANGES - 1 { u64::MAX } else { (1 << at) - 1 };
        self.counts.iter().enumerate().map(move |(at, &count)| (end(at), count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_within_its_range() {
        for value in [0, 1, 2, 3, 4, 1000, 1 << 29, 1 << 31, u64::MAX] {
            let gauge = Gauge::default();
            gauge.note(value);
            let read = gauge.read();
            let (end, _) = read.buckets().find(|(_, count)| *count == 1).unwrap();
            assert!(value <= end && (end == u64::MAX || value >= end.div_ceil(2)), "{value} in the range up to {end}");
            assert_eq!((read.count(), read.sum(), read.max(), read.quantile(0.5)), (1, value, value, value));
        }
    }

    #[test]
    fn a_worker_is_well_since_its_last_error_or_late_beat_and_never_without_a_beat() {
        let (short, long) = (Duration::from_millis(20), Duration::from_secs(60));
        let health = Health::new();
        assert_eq!(health.well_for(long), Duration::ZERO, "it has never beaten");
        health.beat(long);
        std::thread::sleep(short);
        assert!(health.well_for(long) >= short);
        assert!(health.is_silent(short / 2));
        assert_eq!(health.well_for(short / 2), Duration::ZERO, "silent for too long");
        health.beat(short / 2);
        assert!(health.well_for(long) < short, "the beat was late");
        std::thread::sleep(short);
        health.failed();
        assert!(health.well_for(long) < short, "a call failed");
    }

    #[test]
    fn a_quantile_is_at_most_twice_too_much() {
        let gauge = Gauge::default();
        (1..=1000).for_each(|value| gauge.note(value));
        let read = gauge.read();
        assert_eq!((read.quantile(0.5), read.quantile(1.0), read.quantile(0.0)), (511, 1000, 1));
        assert_eq!(Histogram::default().quantile(0.9), 0);
    }
}
