//! `complete`, `fail`, `reschedule`, `remove`: changes of jobs by hand.

use crate::cli::exit::{Exit, Failure};
use crate::cli::screen::{Screen, count, list, one_line};
use crate::cli::values::{self, Moment};
use clap::Args;
use graphile_worker::{ListedJob, RescheduleJobOptions, WorkerUtils};
use serde_json::json;

#[derive(Args)]
pub(crate) struct DryRun {
    /// Print what would happen, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

impl DryRun {
    pub(crate) fn on(&self, utils: WorkerUtils) -> WorkerUtils {
        if self.dry_run { utils.dry_run() } else { utils }
    }

    /// The verb for the change: done, or only simulated.
    pub(crate) fn word(&self, done: &str, would: &str) -> String {
        if self.dry_run { format!("would {would}") } else { done.to_owned() }
    }
}

#[derive(Args)]
pub(crate) struct Complete {
    /// The ids of the jobs.
    #[arg(required = true)]
    ids: Vec<i64>,
    #[command(flatten)]
    dry_run: DryRun,
}

impl Complete {
    pub(crate) fn run(&self, utils: WorkerUtils, screen: &Screen) -> Result<Exit, Failure> {
        let jobs = self.dry_run.on(utils).complete_jobs(&self.ids)?;
        changed(screen, &self.dry_run.word("completed", "complete"), &self.ids, &jobs)
    }
}

#[derive(Args)]
pub(crate) struct Fail {
    /// The ids of the jobs.
    #[arg(required = true)]
    ids: Vec<i64>,
    /// The reason, stored as the jobs' last_error.
    #[arg(short, long, value_name = "TEXT", default_value = "Manually marked as failed")]
    reason: String,
    #[command(flatten)]
    dry_run: DryRun,
}

impl Fail {
    pub(crate) fn run(&self, utils: WorkerUtils, screen: &Screen) -> Result<Exit, Failure> {
        let jobs = self.dry_run.on(utils).permanently_fail_jobs(&self.ids, &self.reason)?;
        changed(screen, &self.dry_run.word("failed", "fail"), &self.ids, &jobs)
    }
}

#[derive(Args)]
pub(crate) struct Reschedule {
    /// The ids of the jobs.
    #[arg(required = true)]
    ids: Vec<i64>,
    #[command(flatten)]
    to: Change,
    #[command(flatten)]
    dry_run: DryRun,
}

/// The fields to change; the others stay unchanged.
#[derive(Args)]
#[group(required = true, multiple = true)]
struct Change {
    /// Let the jobs start now, by the database's clock.
    #[arg(long, conflicts_with = "run_at")]
    now: bool,
    /// The earliest start: an RFC 3339 time, or now.
    #[arg(long, value_name = "TIME", value_parser = values::moment)]
    run_at: Option<Moment>,
    /// The priority, -32768 to 32767. Lower numbers run first.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    priority: Option<i32>,
    /// The number of used attempts, 0 to 32767. 0 makes a failed job available again.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    attempts: Option<i32>,
    /// The number of failed attempts after which the jobs fail permanently, 1 to 32767.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    max_attempts: Option<i32>,
}

impl Reschedule {
    pub(crate) fn run(&self, utils: WorkerUtils, screen: &Screen) -> Result<Exit, Failure> {
        let options = RescheduleJobOptions {
            now: self.to.now || self.to.run_at == Some(Moment::Now),
            run_at: match self.to.run_at {
                Some(Moment::At(time)) => Some(time),
                Some(Moment::Now) | None => None,
            },
            priority: self.to.priority,
            attempts: self.to.attempts,
            max_attempts: self.to.max_attempts,
        };
        let jobs = self.dry_run.on(utils).reschedule_jobs(&self.ids, options)?;
        changed(screen, &self.dry_run.word("rescheduled", "reschedule"), &self.ids, &jobs)
    }
}

/// Prints which jobs were changed, and fails if a named job was not.
fn changed(screen: &Screen, what: &str, ids: &[i64], jobs: &[ListedJob]) -> Result<Exit, Failure> {
    screen.print(&jobs, |jobs| match jobs {
        [] => format!("{what} no job"),
        jobs => format!("{what} {}: {}", count(jobs.len(), "job"), list(jobs.iter().map(|job| job.id))),
    })?;
    let mut left: Vec<i64> = ids.iter().copied().filter(|id| jobs.iter().all(|job| job.id != *id)).collect();
    left.sort_unstable();
    left.dedup();
    match left.is_empty() {
        true => Ok(Exit::Success),
        false => Err(Failure::not_found(format!("not found, or held by a worker: {}", list(left)))),
    }
}

#[derive(Args)]
pub(crate) struct Remove {
    /// The key of the job.
    key: String,
    #[command(flatten)]
    dry_run: DryRun,
}

impl Remove {
    pub(crate) fn run(&self, utils: WorkerUtils, screen: &Screen) -> Result<Exit, Failure> {
        if !self.dry_run.on(utils).remove_job(&self.key)? {
            return Err(Failure::not_found(format!("no job has the key {:?}", self.key)));
        }
        screen.print(&json!({ "removed_key": self.key, "dry_run": self.dry_run.dry_run }), |_| {
            format!("{} the job with key {}", self.dry_run.word("removed", "remove"), one_line(&self.key))
        })?;
        Ok(Exit::Success)
    }
}
