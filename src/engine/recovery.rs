//! gw-recovery: decides when this worker sweeps, and notifies observers of the result. What a sweep does is in
//! `client/sweep.rs`. Knows nothing of handlers.
//!
//! Without an option of recovery it sweeps only workers of this library. It then sweeps only after a heartbeat of this
//! worker has found a silent one. While all workers are alive, it sends no statement.

use super::Shared;
use crate::backoff::random_unit;
use crate::client::sweep::{RaisedThreshold, Recovered, Sweep, SweepStaleWorkersOptions, SweepStaleWorkersResult};
use crate::config::{MISSED_BEATS, Sweeps, WorkerRecoveryConfig};
use crate::db::session::Setup;
use crate::error::{ErrorKind, Result};
use crate::hooks::{FailureReason, JobInterrupted, JobInterruptedContext, WorkerRecovered, WorkerRecoveredContext};
use crossbeam_channel::{after, select};
use log::{Level, log, warn};

/// Sweeps until a stop. No database fault ends it.
pub(crate) fn recover(shared: &Shared) {
    Recovery { shared, config: &shared.config.recovery, only_ours: shared.config.sweeps == Sweeps::Ours }.run();
}

struct Recovery<'a> {
    shared: &'a Shared,
    config: &'a WorkerRecoveryConfig,
    /// Whether only workers of this library are swept.
    only_ours: bool,
}

impl Recovery<'_> {
    fn run(&self) {
        let Shared { health, stop, channels, .. } = self.shared;
        // Spread, so that workers that were started together do not all sweep at the same moment.
        let mut pause = self.config.sweep_interval.mul_f64(random_unit());
        let mut has_warned = false;
        let mut last_error = String::new();
        loop {
            select! {
                recv(after(pause)) -> _ => {}
                recv(stop.begun.receiver()) -> _ => return,
            }
            pause = self.config.sweep_interval;
            // After an outage, or a pause of this worker, all other workers seem dead. So this worker must have been
            // healthy for a whole threshold before it sweeps.
            let threshold = self.config.sweep_threshold;
            let healthy_in = threshold.saturating_sub(health.healthy_for(threshold));
            if !healthy_in.is_zero() {
                pause = pause.min(healthy_in);
                continue;
            }
            if self.only_ours && channels.silent.1.try_recv().is_err() {
                continue;
            }
            match self.sweep() {
                Ok((result, recovered)) => {
                    last_error.clear();
                    has_warned = has_warned || self.warn_of_short_threshold(&result.raised_thresholds);
                    self.send_events(result, recovered);
                }
                Err(error) if error.kind() == ErrorKind::Stopped => return,
                Err(error) => {
                    health.failed();
                    let text = error.to_string();
                    // An error such as a missing right repeats at each sweep, so only the first one is a warning.
                    let level = if text == last_error { Level::Debug } else { Level::Warn };
                    log!(level, worker_id = self.shared.worker_id.as_str(), doing = "sweep dead workers", error:% = text;
                        "the database failed, trying again");
                    last_error = text;
                }
            }
        }
    }

    fn sweep(&self) -> Result<(SweepStaleWorkersResult, Vec<Recovered>)> {
        let shared = self.shared;
        let mut sweep = Sweep {
            session: shared.database.session("recovery", &shared.stop.interrupt, &Setup::default())?,
            schema: &shared.config.schema,
            facts: &shared.facts,
            hooks: &shared.events.hooks,
            worker_id: &shared.worker_id,
            only_ours: self.only_ours,
            healthy_for: shared.health.healthy_for(self.config.sweep_threshold),
        };
        sweep.sweep(self.config, &SweepStaleWorkersOptions::default())
    }

    /// Warns that this worker's threshold is too short for the heartbeat interval of another worker. Returns whether it
    /// did; the caller then does not call it again.
    fn warn_of_short_threshold(&self, raised: &[RaisedThreshold]) -> bool {
        let Some(slowest) = raised.first() else { return false };
        let (worker_id, threshold) = (self.shared.worker_id.as_str(), self.config.sweep_threshold);
        warn!(worker_id, other_worker_id = slowest.worker_id.as_str(), workers = raised.len();
            "sweep_threshold of worker {worker_id} is {threshold:?}, but {slowest}; set sweep_threshold to at least {:?}, \
             or heartbeat_interval of the other worker to at most {:?}",
            slowest.sweep_threshold, threshold / MISSED_BEATS);
        true
    }

    fn send_events(&self, result: SweepStaleWorkersResult, recovered: Vec<Recovered>) {
        if result.worker_ids.is_empty() {
            return;
        }
        let jobs_recovered = recovered.len();
        for Recovered { job, .. } in recovered {
            let worker_id = self.shared.worker_id.clone();
            self.shared.events.send(JobInterrupted, || JobInterruptedContext {
                job,
                worker_id,
                reason: FailureReason::WorkerCrashed,
            });
        }
        self.shared.events.send(WorkerRecovered, || WorkerRecoveredContext {
            worker_id: self.shared.worker_id.clone(),
            dead_worker_ids: result.worker_ids,
            jobs_recovered,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::db::Database;
    use crate::db::migrate::Facts;
    use crate::hooks::HookRegistry;
    use crate::worker::options::WorkerOptions;
    use std::collections::HashMap;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    #[test]
    fn default_recovery_opens_a_session_only_for_a_silent_worker() {
        let long = Duration::from_secs(60);
        // No server listens there: a sweep fails, and the worker is not healthy from then on.
        let database = Database::open("postgres://127.0.0.1:1/none", 1, Duration::from_secs(1)).unwrap();
        let (config, _) = WorkerOptions::default().check().unwrap();
        let recovery = WorkerRecoveryConfig::default()
            .sweep_interval(Duration::from_millis(10))
            .sweep_threshold(Duration::from_millis(100));
        let facts = Facts {
            server_version: 150_000,
            max_id: 18,
            has_queue_index: true,
            has_crontabs: true,
            has_recovery: true,
            no_recovery: None,
            has_heartbeats: true,
            hidden_heartbeats: None,
            has_private_workers: false,
            has_job_retirements: false,
        };
        let config = Config { recovery, sweeps: Sweeps::Ours, ..config };
        let shared =
            Shared::new(config.into(), Arc::default(), HashMap::new(), database, facts, HookRegistry::default().into());
        let health = &shared.health;
        health.beat(long);
        let start = Instant::now();
        // Sends heartbeats until the time is up. Returns whether a sweep was tried meanwhile.
        let swept_within = |limit: Duration| {
            let end = Instant::now() + limit;
            while Instant::now() < end {
                health.beat(long);
                let since_start = start.elapsed();
                if health.healthy_for(long) < since_start {
                    return true;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            false
        };
        std::thread::scope(|scope| {
            scope.spawn(|| recover(&shared));
            let early = swept_within(Duration::from_millis(500));
            shared.channels.silent.0.send(()).unwrap();
            let late = swept_within(Duration::from_secs(20));
            shared.stop.begun.trigger();
            assert_eq!((early, late), (false, true));
        });
    }
}
