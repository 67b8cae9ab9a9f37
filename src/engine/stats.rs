//! The counters of one worker, and the health of its database. Knows nothing of the threads that count.

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
            /// How many jobs each claim returned, without empty claims.
            pub claim_sizes: Histogram,
            /// How many outcomes each statement wrote.
            pub settle_sizes: Histogram,
            /// How long handlers took, in microseconds, including the hooks around them.
            pub handler_times: Histogram,
            /// Events that were dropped because the observers could not keep up.
            pub events_dropped: u64,
            /// How many sessions of the database are open now, by their role: `fetch`, `lease`, `listen` and `settle`.
            /// Also `cron` and `recovery` if they are used, and `handler` for those of the pool, if the pool reports
            /// them.
            pub sessions: BTreeMap<&'static str, u64>,
        }

        impl Stats {
            /// The counters. The caller fills in the rest.
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
    /// Attempts that failed, including those that failed permanently.
    failed,
    /// Attempts that failed and are retried.
    retried,
    /// Jobs that failed permanently.
    permanently_failed,
    /// Jobs given back before they started, or interrupted by a stop.
    returned,
    /// Jobs that their handlers snoozed: they run again later, and the attempt does not count.
    snoozed,
    /// Handlers that were cancelled because they ran longer than their task's timeout.
    timed_out,
    /// Handlers that ran on for longer than the grace period after that.
    stuck,
    /// Jobs that another session freed or took while this worker held or ran them. Their outcomes are not written.
    lost,
    /// Jobs that were locked by this worker but unknown to it, and were given back.
    reconciled,
    /// Database calls that failed and were retried.
    database_errors,
    /// Claims sent.
    claims,
    /// Statements that were sent to write outcomes.
    settlements,
    /// Wakeups by notification.
    notifications,
}

/// Whether a worker's database is healthy, by the worker's heartbeats and by every error.
pub(crate) struct Health(Mutex<Pulse>);

struct Pulse {
    healthy_since: Instant,
    /// The last heartbeat, by two clocks: the first stands still while the machine sleeps, the second can be set.
    /// `None` before the first heartbeat.
    beat: Option<(Instant, SystemTime)>,
}

impl Health {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Pulse { healthy_since: Instant::now(), beat: None }))
    }

    /// Records that a call to the database failed.
    pub(crate) fn failed(&self) {
        self.0.lock().healthy_since = Instant::now();
    }

    /// Records that the database has stored a heartbeat. After a pause of more than `longest`, the healthy period
    /// starts anew.
    pub(crate) fn beat(&self, longest: Duration) {
        let now = Instant::now();
        let mut pulse = self.0.lock();
        if pulse.silence().is_none_or(|silence| silence > longest) {
            pulse.healthy_since = now;
        }
        pulse.beat = Some((now, SystemTime::now()));
    }

    /// Whether the last heartbeat is longer ago than `longest`: other workers may consider this one dead.
    pub(crate) fn is_silent(&self, longest: Duration) -> bool {
        self.0.lock().silence().is_some_and(|silence| silence > longest)
    }

    /// For how long every call has succeeded and no pause between heartbeats was longer than `longest`. Zero before the
    /// first heartbeat.
    pub(crate) fn healthy_for(&self, longest: Duration) -> Duration {
        let pulse = self.0.lock();
        match pulse.silence() {
            Some(silence) if silence <= longest => pulse.healthy_since.elapsed(),
            _ => Duration::ZERO,
        }
    }
}

impl Pulse {
    /// The time since the last heartbeat, by the clock that shows more. After a clock change the worker may reconcile
    /// once more.
    fn silence(&self) -> Option<Duration> {
        self.beat.map(|(at, wall)| at.elapsed().max(wall.elapsed().unwrap_or_default()))
    }
}

pub(crate) fn add(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}

/// How a worker is notified of new jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListenerState {
    /// It does not listen, and polls: notifications are switched off, or the worker runs until empty.
    #[default]
    Off,
    /// It is not certain yet that notifications arrive.
    Connecting,
    /// Notifications arrive.
    Listening,
    /// Notifications do not arrive. The worker polls until they do.
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

/// The number of ranges into which values are sorted: 0, 1, 2 to 3, 4 to 7, and so on. The last range has no end.
const RANGES: usize = 32;

/// Records whole numbers. The threads that record them do not wait for each other.
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

/// How often values of each size occurred. Ranges are bounded by powers of two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; RANGES],
    sum: u64,
    most: u64,
}

impl Histogram {
    /// The number of values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The exact sum of the values.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The exact greatest value; 0 if there is none.
    pub fn max(&self) -> u64 {
        self.most
    }

    /// The value that the given share of the values does not exceed (0.5: the median). It is the end of a range, so it
    /// is at most twice the exact value. 0 if there are no values. A share below 0 counts as 0, one above 1 as 1.
    pub fn quantile(&self, share: f64) -> u64 {
        let rank = (self.count() as f64 * share.clamp(0.0, 1.0)).ceil().max(1.0) as u64;
        let mut seen = 0;
        let within = self.buckets().find(|(_, count)| {
            seen += count;
            seen >= rank
        });
        within.map_or(0, |(end, _)| end.min(self.most))
    }

    /// The greatest value that each range can hold, and how many values it has. The last range has no end: `u64::MAX`.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let end = |at: usize| if at == RANGES - 1 { u64::MAX } else { (1 << at) - 1 };
        self.counts.iter().enumerate().map(move |(at, &count)| (end(at), count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_counted_in_its_range() {
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
    fn an_error_or_a_late_heartbeat_restarts_the_healthy_period() {
        let (short, long) = (Duration::from_millis(20), Duration::from_secs(60));
        let health = Health::new();
        assert_eq!(health.healthy_for(long), Duration::ZERO, "no heartbeat yet");
        health.beat(long);
        std::thread::sleep(short);
        assert!(health.healthy_for(long) >= short);
        assert!(health.is_silent(short / 2));
        assert_eq!(health.healthy_for(short / 2), Duration::ZERO, "silent for too long");
        health.beat(short / 2);
        assert!(health.healthy_for(long) < short, "the heartbeat was late");
        std::thread::sleep(short);
        health.failed();
        assert!(health.healthy_for(long) < short, "a call failed");
    }

    #[test]
    fn a_quantile_is_at_most_twice_the_exact_value() {
        let gauge = Gauge::default();
        (1..=1000).for_each(|value| gauge.note(value));
        let read = gauge.read();
        assert_eq!((read.quantile(0.5), read.quantile(1.0), read.quantile(0.0)), (511, 1000, 1));
        assert_eq!(Histogram::default().quantile(0.9), 0);
    }
}
