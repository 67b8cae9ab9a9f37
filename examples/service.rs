//! A worker for production: tasks with limits, batches, a crontab, recovery, and an observer.

use graphile_worker::{
    BatchTaskHandler, Cron, IntoBatchTaskHandlerResult, IntoTaskHandlerResult, JobFail, JobSpec, RetryPolicy,
    TaskHandler, WorkerContext, WorkerOptions,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Serialize, Deserialize)]
struct Report {
    week: u32,
}

impl TaskHandler for Report {
    const IDENTIFIER: &'static str = "report";

    fn run(self, ctx: WorkerContext) -> impl IntoTaskHandlerResult {
        if ctx.job().attempts() == 1 {
            return Err("the figures are not there yet");
        }
        println!("report of week {}", self.week);
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
struct Letter {
    to: String,
}

impl BatchTaskHandler for Letter {
    const IDENTIFIER: &'static str = "letters";

    fn run_batch(letters: Vec<Self>, _ctx: WorkerContext) -> impl IntoBatchTaskHandlerResult {
        // One result for each letter: only the letters that failed are retried.
        letters.iter().map(|letter| send(&letter.to)).collect::<Vec<_>>()
    }
}

fn send(to: &str) -> Result<(), String> {
    println!("letter to {to}");
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let worker = WorkerOptions::default()
        .database_url(&std::env::var("DATABASE_URL")?)
        .define_jobs([Report::definition()
            .backoff(RetryPolicy::exponential(Duration::from_millis(50), Duration::from_secs(3600)))
            .timeout(Duration::from_secs(600))])
        .define_batch_job::<Letter>()
        // Every Monday at eight in Berlin, one job, even if several workers have the entry.
        .with_cron(
            Cron::weekly_on::<Report>(chrono::Weekday::Mon, 8, 0)?.tz("Europe/Berlin")?.payload(Report { week: 0 })?,
        )
        // A worker without a heartbeat for a minute is dead, and its jobs are recovered.
        .heartbeat_interval(Duration::from_secs(10))
        .sweep_threshold(Duration::from_secs(60))
        .on(JobFail, |ctx| println!("{} failed: {}", ctx.job.task_identifier(), ctx.error))
        .init()?;

    let utils = worker.create_utils();
    utils.add_job(Report { week: 48 }, JobSpec::new())?;
    utils.add_batch_job(vec![Letter { to: "Ada".into() }, Letter { to: "Grace".into() }], JobSpec::new())?;
    worker.run()?;
    Ok(())
}
