//! `migrate`, `cleanup`, `force-unlock`, `sweep-stale-workers`: maintenance of the queue.

use crate::cli::change::DryRun;
use crate::cli::exit::{Exit, Failure};
use crate::cli::screen::{Screen, count, list, one_line};
use crate::cli::values;
use clap::{Args, ValueEnum};
use graphile_worker::{CleanupTask, SweepStaleWorkersOptions, WorkerUtils};
use serde_json::json;
use std::time::Duration;

pub(crate) fn migrate(utils: WorkerUtils, schema: &str, screen: &Screen) -> Result<Exit, Failure> {
    utils.migrate()?;
    screen
        .print(&json!({ "migrated": true, "schema": schema }), |_| format!("schema {} is ready", one_line(schema)))?;
    Ok(Exit::Success)
}

#[derive(Args)]
pub(crate) struct Cleanup {
    /// What to delete. Without a name: everything.
    #[arg(value_enum)]
    tasks: Vec<Rows>,
    /// A task to keep although it has no job. May be repeated.
    #[arg(long = "keep-task", value_name = "TASK")]
    keep_tasks: Vec<String>,
    #[command(flatten)]
    dry_run: DryRun,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rows {
    /// Jobs that have failed permanently
    DeletePermanentlyFailedJobs,
    /// Tasks that have no job. First stop the Node and async crate workers that have these tasks
    GcTaskIdentifiers,
    /// Named queues that have no job and that no worker holds
    GcJobQueues,
}

impl Rows {
    fn of_the_library(self) -> CleanupTask {
        match self {
            Self::DeletePermanentlyFailedJobs => CleanupTask::DeletePermanentlyFailedJobs,
            Self::GcTaskIdentifiers => CleanupTask::GcTaskIdentifiers,
            Self::GcJobQueues => CleanupTask::GcJobQueues,
        }
    }

    fn name(self) -> String {
        self.to_possible_value().expect("none is skipped").get_name().to_owned()
    }
}

impl Cleanup {
    pub(crate) fn run(&self, utils: WorkerUtils, screen: &Screen) -> Result<Exit, Failure> {
        let named = |rows: &Rows| self.tasks.is_empty() || self.tasks.contains(rows);
        let rows: Vec<Rows> = Rows::value_variants().iter().copied().filter(named).collect();
        let tasks: Vec<CleanupTask> = rows.iter().map(|rows| rows.of_the_library()).collect();
        let utils = self.dry_run.on(utils).keeping_tasks(self.keep_tasks.iter().cloned());
        let deleted = utils.cleanup(&tasks)?;
        let answer = json!({
            "cleanup_tasks": rows.iter().map(|rows| rows.name()).collect::<Vec<_>>(),
            "dry_run": self.dry_run.dry_run,
            "jobs": deleted.jobs,
            "tasks": deleted.tasks,
            "queues": deleted.queues,
        });
        screen.print(&answer, |_| {
            let rows = rows.iter().map(|rows| match rows {
                Rows::DeletePermanentlyFailedJobs => count(deleted.jobs, "failed job"),
                Rows::GcTaskIdentifiers => count(deleted.tasks, "unused task"),
                Rows::GcJobQueues => count(deleted.queues, "unused queue"),
            });
            format!("{} {}", self.dry_run.word("deleted", "delete"), list(rows))
        })?;
        Ok(Exit::Success)
    }
}

#[derive(Args)]
pub(crate) struct ForceUnlock {
    /// The ids of the workers, as `workers` prints them.
    #[arg(required = true)]
    worker_ids: Vec<String>,
    #[command(flatten)]
    dry_run: DryRun,
}

impl ForceUnlock {
    pub(crate) fn run(&self, utils: WorkerUtils, screen: &Screen) -> Result<Exit, Failure> {
        let holders: Vec<String> = utils.locked_workers()?.into_iter().map(|worker| worker.worker_id).collect();
        let unlocked = self.dry_run.on(utils).force_unlock_workers(&self.worker_ids)?;
        let answer = json!({
            "unlocked_workers": self.worker_ids,
            "dry_run": self.dry_run.dry_run,
            "jobs": unlocked.jobs,
            "queues": unlocked.queues,
        });
        screen.print(&answer, |_| {
            let (jobs, queues) = (count(unlocked.jobs, "job"), count(unlocked.queues, "queue"));
            format!("{} {jobs} and {queues}", self.dry_run.word("unlocked", "unlock"))
        })?;
        let idle: Vec<&String> = self.worker_ids.iter().filter(|id| !holders.contains(id)).collect();
        match idle.is_empty() {
            true => Ok(Exit::Success),
            false => Err(Failure::not_found(format!("held no job and no queue: {}", list(idle)))),
        }
    }
}

#[derive(Args)]
pub(crate) struct SweepStaleWorkers {
    /// How long a dead worker has sent no heartbeat: 300, 30s, 5m, 2h. Defaults to 5m. Raised to three heartbeats of a
    /// worker that sends them less often
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    sweep_threshold: Option<Duration>,
    /// How long recovered jobs wait before they run again. Defaults to 30s.
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    recovery_delay: Option<Duration>,
    #[command(flatten)]
    dry_run: DryRun,
}

impl SweepStaleWorkers {
    pub(crate) fn run(&self, utils: WorkerUtils, screen: &Screen) -> Result<Exit, Failure> {
        let swept = utils.sweep_stale_workers(SweepStaleWorkersOptions {
            sweep_threshold: self.sweep_threshold,
            recovery_delay: self.recovery_delay,
            dry_run: self.dry_run.dry_run,
        })?;
        let mut answer = json!(swept);
        answer["dry_run"] = self.dry_run.dry_run.into();
        screen.print(&answer, |_| {
            let found = match swept.worker_ids.as_slice() {
                [] => "no stale worker".to_owned(),
                workers if self.dry_run.dry_run => {
                    format!("would recover the jobs of {}: {}", count(workers.len(), "worker"), list(workers))
                }
                workers => {
                    let (jobs, dead) = (count(swept.recovered_count, "job"), count(workers.len(), "worker"));
                    format!("recovered {jobs} of {dead}: {}", list(workers))
                }
            };
            let raised =
                swept.raised_thresholds.iter().map(|raised| one_line(&format!("threshold too short: {raised}")));
            [found].into_iter().chain(raised).collect::<Vec<_>>().join("\n")
        })?;
        Ok(Exit::Success)
    }
}
