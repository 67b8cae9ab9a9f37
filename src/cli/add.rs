//! `add`: adds one job.

use crate::cli::exit::{Exit, Failure};
use crate::cli::screen::{Screen, one_line};
use crate::cli::values::{self, Moment};
use chrono::{DateTime, Utc};
use clap::{Args, ValueEnum};
use graphile_worker::{Job, JobKeyMode, JobSpec, RawJob, WorkerUtils};
use serde::Serialize;
use serde_json::value::RawValue;
use std::io::Read;
use std::path::{Path, PathBuf};

#[derive(Args)]
pub(crate) struct Add {
    /// The task that runs the job.
    identifier: String,
    /// The payload: JSON, stored byte for byte. Defaults to {}.
    #[arg(long, value_name = "JSON", conflicts_with = "payload_file", allow_hyphen_values = true)]
    payload: Option<String>,
    /// A file with the payload, or - for standard input.
    #[arg(long, value_name = "PATH")]
    payload_file: Option<PathBuf>,
    /// The named queue. Jobs of one queue run one after the other.
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// The earliest start: an RFC 3339 time, or now. Defaults to now.
    #[arg(long, value_name = "TIME", value_parser = values::moment)]
    run_at: Option<Moment>,
    /// The number of failed attempts after which the job fails permanently, 1 to 32767. Defaults to 25.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    max_attempts: Option<i32>,
    /// The job key. At most one waiting job has it.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// What happens to a waiting job with the same key. Defaults to replace.
    #[arg(long, value_enum, value_name = "MODE", requires = "key")]
    job_key_mode: Option<Mode>,
    /// The priority, -32768 to 32767. Lower numbers run first. Defaults to 0.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    priority: Option<i32>,
    /// A flag. Workers can be configured to leave out jobs with it. May be repeated.
    #[arg(long = "flag", value_name = "FLAG")]
    flags: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    /// The new job replaces all its settings
    Replace,
    /// As replace, but a job that was never tried keeps its run-at
    PreserveRunAt,
    /// Nothing changes, even if the job runs or has failed permanently
    UnsafeDedupe,
}

impl Mode {
    fn of_the_library(self) -> JobKeyMode {
        match self {
            Self::Replace => JobKeyMode::Replace,
            Self::PreserveRunAt => JobKeyMode::PreserveRunAt,
            Self::UnsafeDedupe => JobKeyMode::UnsafeDedupe,
        }
    }
}

/// An added job, as JSON.
#[derive(Serialize)]
struct Added {
    id: i64,
    task_identifier: String,
    job_queue_id: Option<i32>,
    payload: Box<RawValue>,
    priority: i16,
    run_at: DateTime<Utc>,
    attempts: i16,
    max_attempts: i16,
    created_at: DateTime<Utc>,
    key: Option<String>,
    revision: i32,
    flags: Vec<String>,
}

impl Add {
    pub(crate) fn run(&self, utils: WorkerUtils, screen: &Screen) -> Result<Exit, Failure> {
        let job = RawJob { identifier: self.identifier.clone(), payload: self.payload()?, spec: self.spec() };
        let job = utils.add_raw_jobs(vec![job])?.remove(0);
        screen.print(&added(&job)?, |job| {
            let again = if job.revision > 0 { "already exists, now at revision" } else { "added, revision" };
            format!("job {} of task {}: {again} {}", job.id, one_line(&job.task_identifier), job.revision)
        })?;
        Ok(Exit::Success)
    }

    fn spec(&self) -> JobSpec {
        JobSpec {
            queue_name: self.queue.clone(),
            run_at: match self.run_at {
                // Without a time, the database uses its now().
                None | Some(Moment::Now) => None,
                Some(Moment::At(time)) => Some(time),
            },
            max_attempts: self.max_attempts,
            job_key: self.key.clone(),
            job_key_mode: self.job_key_mode.map(Mode::of_the_library),
            priority: self.priority,
            flags: (!self.flags.is_empty()).then(|| self.flags.clone()),
            traceparent: None,
        }
    }

    fn payload(&self) -> Result<String, Failure> {
        let text = match (&self.payload, &self.payload_file) {
            (Some(text), _) => text.clone(),
            (None, Some(path)) => {
                read(path).map_err(|error| Failure::usage(format!("--payload-file {}: {error}", path.display())))?
            }
            (None, None) => "{}".to_owned(),
        };
        // The error has the position, and nothing of the payload.
        match serde_json::from_str::<&RawValue>(&text) {
            Ok(_) => Ok(text),
            Err(error) => Err(Failure::usage(format!("the payload is not JSON: {error}"))),
        }
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    if path != Path::new("-") {
        return std::fs::read_to_string(path);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(text)
}

fn added(job: &Job) -> Result<Added, Failure> {
    Ok(Added {
        id: job.id(),
        task_identifier: job.task_identifier().to_owned(),
        job_queue_id: job.job_queue_id(),
        payload: job.payload_as()?,
        priority: job.priority(),
        run_at: job.run_at(),
        attempts: job.attempts(),
        max_attempts: job.max_attempts(),
        created_at: job.created_at(),
        key: job.key().map(str::to_owned),
        revision: job.revision(),
        flags: job.flags(),
    })
}
