//! The checked settings of a worker. `worker/options.rs` creates them from the caller's options. No IO.

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
    /// How many threads run handlers: as many as `concurrency`, or fewer if tasks end their jobs on other threads.
    pub(crate) threads: usize,
    /// Pull mode: the host takes jobs with `next`, and this worker has no threads for handlers.
    pub(crate) pull: Option<Pull>,
    /// How many claims can be in flight at once, each in its own session.
    pub(crate) claimers: usize,
    pub(crate) poll_interval: Duration,
    /// If true, notifications announce new jobs. If false, the worker only polls.
    pub(crate) notifications: bool,
    /// How long running jobs may continue after a stop was requested.
    pub(crate) grace_period: Duration,
    /// How long a job that a stop interrupted waits for its next run.
    pub(crate) interrupted_delay: Duration,
    /// How long a successful outcome waits, so that more of them are written together.
    pub(crate) complete_delay: Duration,
    /// The same for failures.
    /// The same for failures.
    pub(crate) fail_delay: Duration,
    /// The local queue of fixed size, if one is configured.
    pub(crate) local_queue: Option<LocalQueueSettings>,
    /// How many bytes of payloads the held jobs may have in total.
    pub(crate) held_bytes: usize,
    pub(crate) forbidden_flags: Vec<String>,
    pub(crate) accepted_flags: Vec<String>,
    /// If true, claims compare `run_at` with this machine's clock instead of the database's clock.
    pub(crate) local_time: bool,
    pub(crate) recovery: WorkerRecoveryConfig,
    pub(crate) sweeps: Sweeps,
    pub(crate) listen_signals: bool,
    /// A signal of the caller that stops the worker.
    pub(crate) shutdown: Option<ShutdownSignal>,
}

/// Whose jobs a worker recovers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sweeps {
    /// None.
    Off,
    /// The jobs of workers of this library. This is the default, if no recovery option is set.
    Ours,
    /// Also the jobs of the async crate's workers.
    All,
}

/// The settings of pull mode, in which the host takes jobs with `next`.
#[derive(Clone)]
pub(crate) struct Pull {
    /// Called when a job may be available. Must not block.
    pub(crate) notify: Arc<dyn Fn() + Send + Sync>,
    /// If true, `next` also returns notices of cancelled jobs.
    pub(crate) delivers_cancelled: bool,
}

/// A local queue of fixed size, all checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LocalQueueSettings {
    /// The maximum number of jobs in one claim.
    pub(crate) size: usize,
    /// The maximum number of held jobs.
    pub(crate) capacity: usize,
    /// The maximum time for which a job is held.
    pub(crate) ttl: Duration,
    pub(crate) refetch: Option<RefetchDelay>,
}

/// The pause after a claim that returned few jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RefetchDelay {
    pub(crate) duration: Duration,
    /// A pause follows a claim with at most this number of jobs.
    pub(crate) threshold: usize,
    /// The maximum of the random number of notifications that ends the pause early.
    pub(crate) max_abort: usize,
}

/// The longest time between two heartbeats of a worker, even if its `heartbeat_interval` is longer. The sweep
/// thresholds of other implementations are made for this interval. Sweeps assume it for a worker that does not publish
/// its interval.
pub(crate) const LONGEST_BEAT_INTERVAL: Duration = Duration::from_secs(30);

/// A sweep does not recover a worker's jobs before this number of that worker's own heartbeats is missing.
pub(crate) const MISSED_BEATS: u32 = 3;

/// After a shorter silence, the worker assumes that it still holds its jobs. A shorter threshold of its own has
/// precedence.
const SHORTEST_DOUBT_AFTER: Duration = Duration::from_secs(1);

/// How the jobs of dead workers are recovered. See the deployment guide, section Recovery
/// (docs/deployment-guide.async.md).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerRecoveryConfig {
    /// How often a worker sends its heartbeat. The heartbeat also publishes this interval. Defaults to 30 seconds. A
    /// longer interval counts as 30 seconds. Must be at least 10 ms.
    pub heartbeat_interval: Duration,
    /// How often a worker looks for dead workers. Defaults to 60 seconds. Must be at least 10 ms.
    pub sweep_interval: Duration,
    /// A worker that has sent no heartbeat for longer than this is dead. Defaults to 5 minutes. Must be at least three
    /// times `heartbeat_interval`. A worker is never dead before three of the intervals that it publishes have passed.
    /// A worker that publishes none (the async crate's, and older versions of this library) is dead after 90 seconds at
    /// the earliest.
    pub sweep_threshold: Duration,
    /// How long a recovered job waits before it runs again. Defaults to 30 seconds. The delay doubles with each
    /// recovery of the same job, up to ten times. Each delay is multiplied by a random factor of 0.5 to 1.5, so that
    /// jobs that were interrupted together do not run together again.
    pub recovery_delay: Duration,
    /// If a worker holds a job with a resilient flag, its threshold is multiplied by this number. Defaults to 3. Must
    /// be at least 1.
    pub resilient_sweep_threshold_multiplier: u32,
    /// The resilient flags: workers that hold a job with one of them may be silent for longer. Defaults to
    /// `infrastructure_resilient`.
    pub resilient_job_flags: Vec<String>,
    /// How often a job may be recovered. Defaults to 5. Must be at least 1. After three recoveries, or `max_recoveries`
    /// if that is fewer, the job runs alone in its worker. If its worker then dies and the recoveries exceed
    /// `max_recoveries`, the job fails permanently. So a job that kills its workers fails, and jobs that ran beside it
    /// do not.
    pub max_recoveries: u32,
    /// If true, a worker recovers the jobs of all dead workers, including the async crate's. Defaults to false: a
    /// worker with such a configuration recovers no jobs. Each recovery setter of `WorkerOptions` sets it to true. A
    /// worker without any recovery option recovers the jobs of dead workers of this library.
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

/// Each setter changes one field. Units, limits and defaults are documented at the field.
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
    /// `Config` if an option is outside its limit, or if live workers would count as dead.
    pub(crate) fn check(&self) -> Result<()> {
        if self.heartbeat_interval < Duration::from_millis(10) || self.sweep_interval < Duration::from_millis(10) {
            return Err(Error::config("heartbeat_interval, sweep_interval: must be at least 10 ms"));
        }
        if self.sweep_threshold < self.heartbeat_interval.saturating_mul(MISSED_BEATS) {
            return Err(Error::config(format!(
                "sweep_threshold: {:?} is too short for a heartbeat_interval of {:?}; it must be at least \
                 {MISSED_BEATS} times as long, or live workers count as dead",
                self.sweep_threshold, self.heartbeat_interval
            )));
        }
        match (self.resilient_sweep_threshold_multiplier, self.max_recoveries) {
            (0, _) => Err(Error::config("resilient_sweep_threshold_multiplier: 0 is fewer than 1")),
            (_, 0) => Err(Error::config(
                "max_recoveries: 0 is fewer than 1; one dead worker does not prove that the job killed it",
            )),
            _ => Ok(()),
        }
    }

    /// How often a worker with this configuration sends its heartbeat.
    pub(crate) fn beat_interval(&self) -> Duration {
        self.heartbeat_interval.min(LONGEST_BEAT_INTERVAL)
    }

    /// After how long without a heartbeat this worker must expect that its jobs were recovered. A sweeper with a
    /// shorter threshold may recover them after a few missed heartbeats.
    pub(crate) fn doubt_after(&self) -> Duration {
        self.sweep_threshold.min((self.beat_interval() * MISSED_BEATS).max(SHORTEST_DOUBT_AFTER))
    }

    /// After this number of recoveries a job runs alone in its worker.
    pub(crate) fn alone_from(&self) -> i32 {
        self.max_recoveries.min(3) as i32
    }

    pub(crate) fn is_resilient(&self, job: &Job) -> bool {
        job.flags().iter().any(|flag| self.resilient_job_flags.contains(flag))
    }
}
