//! What will run, once every option was checked. Words only; `options.rs` writes it.

use crate::schema::Schema;
use crate::shutdown::ShutdownSignal;
use std::time::Duration;

/// The settings of one worker, all checked.
pub(crate) struct Config {
    pub(crate) schema: Schema,
    /// How many jobs run at once.
    pub(crate) concurrency: usize,
    /// How many claims can be under way at once, each on a session of its own.
    pub(crate) claimers: usize,
    pub(crate) poll_interval: Duration,
    /// Whether new jobs are heard of by notification, or by polling alone.
    pub(crate) notifications: bool,
    /// How long running jobs may go on after a stop.
    pub(crate) grace_period: Duration,
    /// How long a job that a stop interrupted waits for its next run.
    pub(crate) interrupted_delay: Duration,
    /// How long an outcome waits at least for others to be written with, by kind.
    pub(crate) complete_delay: Duration,
    pub(crate) fail_delay: Duration,
    /// What to hold ahead of the threads, where that is fixed.
    pub(crate) local_queue: Option<LocalQueue>,
    pub(crate) forbidden_flags: Vec<String>,
    pub(crate) accepted_flags: Vec<String>,
    /// Whether `run_at` is compared with this machine's clock instead of the database's.
    pub(crate) local_time: bool,
    pub(crate) listen_signals: bool,
    /// The caller's own signal to stop.
    pub(crate) shutdown: Option<ShutdownSignal>,
}

/// A local queue of fixed size, all checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LocalQueue {
    /// The most jobs that one claim asks for.
    pub(crate) size: usize,
    /// The most jobs that are held.
    pub(crate) capacity: usize,
    /// How long a job is held at most.
    pub(crate) ttl: Duration,
    pub(crate) refetch: Option<RefetchDelay>,
}

/// The pause after a claim that brought little.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RefetchDelay {
    pub(crate) duration: Duration,
    /// Claims with at most so many jobs are followed by a pause.
    pub(crate) threshold: usize,
    /// At most so many notifications end it early.
    pub(crate) max_abort: usize,
}
