//! gw-recovery: sweeps dead workers, again and again. Started only if asked for. Knows no handlers.

use crate::backoff::random_unit;
use crate::config::WorkerRecoveryConfig;
use crate::db::Database;
use crate::db::session::{Interrupt, Setup};
use crate::error::{ErrorKind, Result};
use crate::hooks::events::Events;
use crate::hooks::{FailureReason, JobInterrupted, JobInterruptedContext, WorkerRecovered, WorkerRecoveredContext};
use crate::migrate::Facts;
use crate::schema::Schema;
use crate::shutdown::ShutdownSignal;
use crate::stats::Health;
use crate::sweep::{Recovered, Sweep, SweepStaleWorkersOptions, SweepStaleWorkersResult};
use crossbeam_channel::{after, select};
use log::warn;
use std::sync::Arc;

/// What gw-recovery needs of its worker.
pub(crate) struct Recovery {
    pub(crate) worker_id: String,
    pub(crate) config: WorkerRecoveryConfig,
    pub(crate) database: Database,
    pub(crate) schema: Schema,
    pub(crate) facts: Facts,
    pub(crate) events: Arc<Events>,
    /// How the whole worker fares with its database.
    pub(crate) health: Arc<Health>,
    pub(crate) stop: ShutdownSignal,
    pub(crate) interrupt: Interrupt,
}

impl Recovery {
    /// Sweeps until a stop. No database fault ends it.
    pub(crate) fn run(&self) {
        // Spread, so that workers that were started together do not all sweep at the same moment.
        let mut pause = self.config.sweep_interval.mul_f64(random_unit());
        loop {
            select! {
                recv(after(pause)) -> _ => {}
                recv(self.stop.receiver()) -> _ => return,
            }
            pause = self.config.sweep_interval;
            // After an outage, or a pause of our own, everybody seems dead: whoever has not been well for a
            // whole threshold cannot tell.
            let threshold = self.config.sweep_threshold;
            let well_in = threshold.saturating_sub(self.health.well_for(threshold));
            if !well_in.is_zero() {
                pause = pause.min(well_in);
                continue;
            }
            match self.sweep() {
                Ok((result, recovered)) => self.tell(result, recovered),
                Err(error) if error.kind() == ErrorKind::Stopped => return,
                Err(error) => {
                    self.health.failed();
                    warn!(worker_id = self.worker_id.as_str(), doing = "sweep dead workers", error:% = error;
                        "the database failed, trying again");
                }
            }
        }
    }

    fn sweep(&self) -> Result<(SweepStaleWorkersResult, Vec<Recovered>)> {
        let mut sweep = Sweep {
            session: self.database.session("recovery", &self.interrupt, &Setup::default())?,
            schema: &self.schema,
            facts: &self.facts,
            hooks: &self.events.hooks,
            worker_id: &self.worker_id,
        };
        sweep.sweep(&self.config, &SweepStaleWorkersOptions::default())
    }

    fn tell(&self, result: SweepStaleWorkersResult, recovered: Vec<Recovered>) {
        if result.worker_ids.is_empty() {
            return;
        }
        let jobs_recovered = recovered.len();
        for Recovered { job, .. } in recovered {
            let worker_id = self.worker_id.clone();
            self.events.send(JobInterrupted, || JobInterruptedContext {
                job,
                worker_id,
                reason: FailureReason::WorkerCrashed,
            });
        }
        self.events.send(WorkerRecovered, || WorkerRecoveredContext {
            worker_id: self.worker_id.clone(),
            dead_worker_ids: result.worker_ids,
            jobs_recovered,
        });
    }
}
