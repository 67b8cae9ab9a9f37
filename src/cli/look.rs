//! `list`, `show`, `stats`, `queues`, `workers`: commands that only read.

use crate::cli::exit::{Exit, Failure};
use crate::cli::screen::{Screen, lines, one_line, or_dash, table, time};
use crate::cli::values;
use chrono::{DateTime, Utc};
use clap::{Args, ValueEnum};
use graphile_worker::{JobState, ListJobsOptions, ListedJob, WorkerUtils};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Args)]
pub(crate) struct List {
    /// Only jobs of this task.
    #[arg(long, value_name = "TASK")]
    identifier: Option<String>,
    /// Only jobs of this named queue.
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// Only jobs in this state.
    #[arg(long, value_enum, value_name = "STATE", default_value_t = State::All)]
    state: State,
    /// The most jobs to list.
    #[arg(long, value_name = "NUMBER", default_value_t = 50, allow_negative_numbers = true)]
    limit: i64,
    /// The number of jobs to skip.
    #[arg(long, value_name = "NUMBER", default_value_t = 0, allow_negative_numbers = true)]
    offset: i64,
}

#[derive(Clone, Copy, ValueEnum)]
enum State {
    /// Jobs in any state
    All,
    /// Waits, and may start now
    Ready,
    /// Waits for its time
    Scheduled,
    /// Held by a worker
    Locked,
    /// Has no attempts left
    Failed,
}

impl State {
    fn of_the_library(self) -> Option<JobState> {
        match self {
            Self::All => None,
            Self::Ready => Some(JobState::Ready),
            Self::Scheduled => Some(JobState::Scheduled),
            Self::Locked => Some(JobState::Locked),
            Self::Failed => Some(JobState::Failed),
        }
    }
}

impl List {
    pub(crate) fn run(&self, utils: WorkerUtils, screen: &Screen) -> Result<Exit, Failure> {
        let jobs = utils.list_jobs(&ListJobsOptions {
            identifier: self.identifier.clone(),
            queue: self.queue.clone(),
            state: self.state.of_the_library(),
            limit: self.limit,
            offset: self.offset,
        })?;
        let header = ["id", "task", "queue", "state", "run_at", "attempts", "priority", "key", "locked_by"];
        screen.print(&jobs, |jobs| table(header, jobs.iter().map(row)))?;
        Ok(Exit::Success)
    }
}

fn row(job: &ListedJob) -> [String; 9] {
    [
        job.id.to_string(),
        job.task_identifier.clone(),
        or_dash(job.queue_name.as_ref()),
        job.state.to_string(),
        time(job.run_at),
        format!("{}/{}", job.attempts, job.max_attempts),
        job.priority.to_string(),
        or_dash(job.key.as_ref()),
        or_dash(job.locked_by.as_ref()),
    ]
}

#[derive(Args)]
pub(crate) struct Show {
    /// The id of the job.
    id: i64,
}

impl Show {
    pub(crate) fn run(&self, utils: WorkerUtils, screen: &Screen) -> Result<Exit, Failure> {
        let Some(job) = utils.job(self.id)? else {
            return Err(Failure::not_found(format!(
                "there is no job {}: it succeeded, was removed, or never existed",
                self.id
            )));
        };
        screen.print(&job, details)?;
        Ok(Exit::Success)
    }
}

fn details(job: &ListedJob) -> String {
    let line = |name: &str, value: String| format!("{name:<11} {}\n", one_line(&value));
    [
        line("id", job.id.to_string()),
        line("task", job.task_identifier.clone()),
        line("queue", or_dash(job.queue_name.as_ref())),
        line("state", job.state.to_string()),
        line("run_at", time(job.run_at)),
        line("attempts", format!("{}/{}", job.attempts, job.max_attempts)),
        line("priority", job.priority.to_string()),
        line("key", or_dash(job.key.as_ref())),
        line("revision", job.revision.to_string()),
        line("flags", or_dash((!job.flags.is_empty()).then(|| job.flags.join(", ")))),
        line("created_at", time(job.created_at)),
        line("updated_at", time(job.updated_at)),
        line("locked_by", or_dash(job.locked_by.as_ref())),
        line("locked_at", or_dash(job.locked_at.map(time))),
        format!("{:<11} {}\n", "last_error", lines(job.last_error.as_deref().unwrap_or("-"))),
        format!("{:<11} {}\n", "payload", lines(&job.payload)),
    ]
    .concat()
}

pub(crate) fn stats(utils: WorkerUtils, screen: &Screen) -> Result<Exit, Failure> {
    screen.print(&utils.stats()?, |stats| {
        let counts = [stats.total, stats.ready, stats.scheduled, stats.locked, stats.failed];
        table(["total", "ready", "scheduled", "locked", "failed"], [counts.map(|count| count.to_string())])
    })?;
    Ok(Exit::Success)
}

pub(crate) fn queues(utils: WorkerUtils, screen: &Screen) -> Result<Exit, Failure> {
    screen.print(&utils.queues()?, |queues| {
        let rows = queues.iter().map(|queue| {
            [
                queue.id.to_string(),
                queue.queue_name.clone(),
                queue.job_count.to_string(),
                queue.ready_count.to_string(),
                or_dash(queue.locked_by.as_ref()),
                or_dash(queue.locked_at.map(time)),
            ]
        });
        table(["id", "queue", "jobs", "ready", "locked_by", "locked_at"], rows)
    })?;
    Ok(Exit::Success)
}

#[derive(Args)]
pub(crate) struct Workers {
    /// How long a stale worker has sent no heartbeat: 300, 30s, 5m, 2h.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = values::duration)]
    sweep_threshold: Duration,
}

/// A worker with a heartbeat, or one that holds jobs or queues.
#[derive(Default, Serialize)]
struct WorkerRow {
    worker_id: String,
    locked_jobs: i64,
    locked_queues: i64,
    /// `None` if the worker sends no heartbeat; Node's workers send none.
    last_heartbeat_at: Option<DateTime<Utc>>,
    started_at: Option<DateTime<Utc>>,
    is_stale: Option<bool>,
    metadata: Option<serde_json::Value>,
}

impl Workers {
    pub(crate) fn run(&self, utils: WorkerUtils, screen: &Screen) -> Result<Exit, Failure> {
        let mut workers: BTreeMap<String, WorkerRow> = BTreeMap::new();
        for beat in utils.list_active_workers(self.sweep_threshold)? {
            let worker = workers.entry(beat.worker_id).or_default();
            worker.last_heartbeat_at = Some(beat.last_heartbeat_at);
            worker.started_at = Some(beat.started_at);
            worker.is_stale = Some(beat.is_stale);
            worker.metadata = beat.metadata;
        }
        for holder in utils.locked_workers()? {
            let worker = workers.entry(holder.worker_id).or_default();
            worker.locked_jobs = holder.locked_jobs;
            worker.locked_queues = holder.locked_queues;
        }
        let named = |(worker_id, worker)| WorkerRow { worker_id, ..worker };
        let workers: Vec<WorkerRow> = workers.into_iter().map(named).collect();
        let header = ["worker_id", "locked_jobs", "locked_queues", "last_heartbeat_at", "health"];
        screen.print(&workers, |workers| table(header, workers.iter().map(WorkerRow::cells)))?;
        Ok(Exit::Success)
    }
}

impl WorkerRow {
    fn cells(&self) -> [String; 5] {
        let health = match self.is_stale {
            None => "unknown",
            Some(false) => "alive",
            Some(true) => "stale",
        };
        [
            self.worker_id.clone(),
            self.locked_jobs.to_string(),
            self.locked_queues.to_string(),
            or_dash(self.last_heartbeat_at.map(time)),
            health.to_owned(),
        ]
    }
}
