//! What will run, once every option was checked. Words only; `options.rs` writes it.

pub(crate) mod local_queue;
pub(crate) mod retry;

use crate::db::schema::Schema;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::shutdown::ShutdownSignal;
use std::sync::Arc;
use std::time::Duration;

/// The settings of one worker, all checked.
pub(crate) struct Config {
    pub(crate) schema: Schema,
    /// How many jobs run at once.
    pub(crate) concurrency: usize,
    /// How many threads start them; as many as jobs, unless tasks end theirs elsewhere.
    pub(crate) threads: usize,
    /// Whether jobs are given to those who come for them, instead of being run on threads of ours.
    pub(crate) pull: Option<Pull>,
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
    pub(crate) local_queue: Option<LocalQueueSettings>,
    /// How many bytes of payloads may wait for a thread.
    pub(crate) held_bytes: usize,
    pub(crate) forbidden_flags: Vec<String>,
    pub(crate) accepted_flags: Vec<String>,
    /// Whether `run_at` is compared with this machine's clock instead of the database's.
    pub(crate) local_time: bool,
    pub(crate) recovery: WorkerRecoveryConfig,
    pub(crate) sweeps: Sweeps,
    pub(crate) listen_signals: bool,
    /// The caller's own signal to stop.
    pub(crate) shutdown: Option<ShutdownSignal>,
}

/// Whose jobs a worker recovers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sweeps {
    /// Nobody's.
    Off,
    /// Those of workers of this library: what a worker does without an option of recovery.
    Ours,
    /// Those of the async crate's workers, too.
    All,
}

/// How jobs are pulled.
#[derive(Clone)]
pub(crate) struct Pull {
    /// Called when there may be something to come for. Must not block.
    pub(crate) notify: Arc<dyn Fn() + Send + Sync>,
    /// Whether whoever comes is told of jobs that are cancelled, too.
    pub(crate) tells_cancelled: bool,
}

/// A local queue of fixed size, all checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LocalQueueSettings {
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

/// The longest pause between two heartbeats of a worker, whatever its `heartbeat_interval`: sweepers of other makes go by
/// thresholds of their own, made for this pause. Sweeps assume it of a worker that does not publish its interval.
pub(crate) const LONGEST_BEAT_INTERVAL: Duration = Duration::from_secs(30);

/// No sweep takes a worker's jobs before this many of that worker's own heartbeats are missing.
pub(crate) const MISSED_BEATS: u32 = 3;

/// A worker that paused for less need not suspect that its jobs were taken, unless its own threshold is shorter.
const SHORTEST_SUSPICION: Duration = Duration::from_secs(1);

/// How the jobs of dead workers are recovered. Source: the guide, Recovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerRecoveryConfig {
    /// How often a worker sends its heartbeat, which also publishes this interval. Defaults to 30 seconds; a longer one
    /// counts as 30 seconds.
    pub heartbeat_interval: Duration,
    /// How often a worker looks for dead ones. Defaults to 60 seconds.
    pub sweep_interval: Duration,
    /// A worker that has been silent for longer is dead. Defaults to 5 minutes. At least three times
    /// `heartbeat_interval`. A worker with a longer interval is dead after three of its own, and one that publishes none
    /// (the async crate's, and older versions of this library) after 90 seconds at the earliest.
    pub sweep_threshold: Duration,
    /// How long a recovered job waits before it runs again: doubled with each recovery of the same job,
    /// and spread by half, so that jobs which died together do not meet again. Defaults to 30 seconds.
    pub recovery_delay: Duration,
    /// A worker that holds a job with a resilient flag is dead only after so many thresholds. Defaults to 3.
    pub resilient_sweep_threshold_multiplier: u32,
    /// The flags of jobs whose workers may be silent for longer. Defaults to `infrastructure_resilient`.
    pub resilient_job_flags: Vec<String>,
    /// How often a job may be recovered. One that has been recovered three times runs alone in its worker;
    /// if it was alone when its worker died, and that was once too often, it fails for good. So a job that
    /// kills its workers ends, and those that happened to run beside it do not. Defaults to 5.
    pub max_recoveries: u32,
    /// Whether a worker recovers the jobs of all dead workers, the async crate's included. Defaults to false: a worker that
    /// is given such a configuration recovers no jobs. Each setter of `WorkerOptions` turns it on. A worker without any
    /// option of recovery recovers the jobs of dead workers of this library.
    pub enabled: bool,
}

impl Default for WorkerRecoveryConfig {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_secs(30),
            sweep_interval: Duration::from_secs(60),
            sweep_threshold: Duration::from_secs(300),
            recovery_delay: Duration::from_secs(30),
            resilient_sweep_threshold_multiplier: 3,
            resilient_job_flags: vec!["infrastructure_resilient".to_owned()],
            max_recoveries: 5,
            enabled: false,
        }
    }
}

/// Each setter changes one field; see there.
impl WorkerRecoveryConfig {
    /// Sets [`heartbeat_interval`](Self#structfield.heartbeat_interval).
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.heartbeat_interval = interval;
        self
    }

    /// Sets [`sweep_interval`](Self#structfield.sweep_interval).
    pub fn sweep_interval(mut self, interval: Duration) -> Self {
        self.sweep_interval = interval;
        self
    }

    /// Sets [`sweep_threshold`](Self#structfield.sweep_threshold).
    pub fn sweep_threshold(mut self, threshold: Duration) -> Self {
        self.sweep_threshold = threshold;
        self
    }

    /// Sets [`recovery_delay`](Self#structfield.recovery_delay).
    pub fn recovery_delay(mut self, delay: Duration) -> Self {
        self.recovery_delay = delay;
        self
    }

    /// Sets [`resilient_sweep_threshold_multiplier`](Self#structfield.resilient_sweep_threshold_multiplier).
    pub fn resilient_sweep_threshold_multiplier(mut self, multiplier: u32) -> Self {
        self.resilient_sweep_threshold_multiplier = multiplier;
        self
    }

    /// Sets [`resilient_job_flags`](Self#structfield.resilient_job_flags).
    pub fn resilient_job_flags(mut self, flags: Vec<String>) -> Self {
        self.resilient_job_flags = flags;
        self
    }

    /// Sets [`max_recoveries`](Self#structfield.max_recoveries).
    pub fn max_recoveries(mut self, recoveries: u32) -> Self {
        self.max_recoveries = recoveries;
        self
    }

    /// Sets [`enabled`](Self#structfield.enabled).
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// # Errors
    /// `Config` for times that would find living workers dead.
    pub(crate) fn check(&self) -> Result<()> {
        if self.heartbeat_interval < Duration::from_millis(10) || self.sweep_interval < Duration::from_millis(10) {
            return Err(Error::config("heartbeat_interval, sweep_interval: must be at least 10 ms"));
        }
        if self.sweep_threshold < self.heartbeat_interval.saturating_mul(MISSED_BEATS) {
            return Err(Error::config(format!(
                "sweep_threshold: {:?} is too short for a heartbeat_interval of {:?}; it must be at least \
                 {MISSED_BEATS} times as long, or living workers are taken for dead",
                self.sweep_threshold, self.heartbeat_interval
            )));
        }
        match (self.resilient_sweep_threshold_multiplier, self.max_recoveries) {
            (0, _) => Err(Error::config("resilient_sweep_threshold_multiplier: 0 is not at least 1")),
            (_, 0) => Err(Error::config("max_recoveries: 0 is not at least 1; one death shows nothing of a job")),
            _ => Ok(()),
        }
    }

    /// How often a worker with this configuration sends its heartbeat.
    pub(crate) fn beat_interval(&self) -> Duration {
        self.heartbeat_interval.min(LONGEST_BEAT_INTERVAL)
    }

    /// After how long a silence this worker must expect that its jobs were taken: a sweeper with a shorter threshold may
    /// take them after a few missed heartbeats.
    pub(crate) fn suspicion(&self) -> Duration {
        self.sweep_threshold.min((self.beat_interval() * MISSED_BEATS).max(SHORTEST_SUSPICION))
    }

    /// A job that was recovered so often runs alone in its worker.
    pub(crate) fn alone_from(&self) -> i32 {
        self.max_recoveries.min(3) as i32
    }

    pub(crate) fn is_resilient(&self, job: &Job) -> bool {
        job.flags().iter().any(|flag| self.resilient_job_flags.contains(flag))
    }
}
