//! Counters of one worker's life. Knows nothing of who counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Declares a counter once: the atomic that threads add to, and the number that callers read.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        #[derive(Default)]
        pub(crate) struct Stats { $(pub(crate) $name: AtomicU64,)* }

        /// What a worker has done since it started.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct WorkerStats {
            $($(#[$doc])* pub $name: u64,)*
            /// Jobs claimed and waiting for a thread, now.
            pub held: u64,
            /// Jobs whose handler runs, now.
            pub running: u64,
        }

        impl Stats {
            pub(crate) fn snapshot(&self, held: u64, running: u64) -> WorkerStats {
                WorkerStats { $($name: self.$name.load(Ordering::Relaxed),)* held, running }
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
    /// Jobs that failed for good.
    permanently_failed,
    /// Jobs given back before they started, or interrupted by a stop.
    returned,
    /// Jobs whose handlers asked to be run again later, without using an attempt.
    snoozed,
    /// Handlers that were cancelled because they took longer than their task may.
    timed_out,
    /// Handlers that went on for longer than the grace period after that.
    wedged,
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

pub(crate) fn add(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}
