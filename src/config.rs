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
    pub(crate) forbidden_flags: Vec<String>,
    pub(crate) accepted_flags: Vec<String>,
    /// Whether `run_at` is compared with this machine's clock instead of the database's.
    pub(crate) local_time: bool,
    pub(crate) listen_signals: bool,
    /// The caller's own signal to stop.
    pub(crate) shutdown: Option<ShutdownSignal>,
}
