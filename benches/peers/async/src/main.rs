//! The driver of the async crate `graphile_worker`. benches/peers.rs describes its words and lines.
//!
//! The best settings are those of the crate's own benches/perf_test.rs: a local queue, completions in batches, and many
//! jobs at once.

#[path = "../../progress.rs"]
mod progress;

use graphile_worker::{
    IntoTaskHandlerResult, JobSpec, LocalQueueConfig, RawJobSpec, Schema, TaskHandler, WorkerContext, WorkerOptions,
    WorkerUtils,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgPool;
use std::error::Error;
use std::time::Duration;

#[derive(Deserialize, Serialize)]
struct Noop {}

impl TaskHandler for Noop {
    const IDENTIFIER: &'static str = "noop";

    async fn run(self, _: WorkerContext) -> impl IntoTaskHandlerResult {
        progress::noop();
    }
}

#[derive(Deserialize, Serialize)]
struct Stamp {
    n: u64,
}

impl TaskHandler for Stamp {
    const IDENTIFIER: &'static str = "stamp";

    async fn run(self, _: WorkerContext) -> impl IntoTaskHandlerResult {
        progress::stamp(self.n);
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if words == ["version"] {
        println!("graphile_worker 0.14.1 (async crate)");
        return Ok(());
    }
    let url = std::env::var("DATABASE_URL")?;
    let pool = PgPool::connect(&url).await?;
    let utils = WorkerUtils::new(pool.clone(), Schema::default());
    match words[..] {
        ["setup", _] => utils.migrate().await?,
        ["add", _, jobs, batch] => {
            let job = RawJobSpec { identifier: "noop".into(), payload: json!({}), spec: JobSpec::default() };
            for batch in vec![job; jobs.parse()?].chunks(batch.parse()?) {
                utils.add_raw_jobs(batch).await?;
            }
        }
        ["trickle", _, jobs] => {
            let mut tick = tokio::time::interval(progress::PAUSE);
            for n in 0..jobs.parse()? {
                tick.tick().await;
                let mut transaction = pool.begin().await?;
                utils.clone().with_executor(&mut transaction).add_job(Stamp { n }, JobSpec::default()).await?;
                println!("added {n} {}", progress::now_us());
                transaction.commit().await?;
            }
        }
        ["work", settings, ref concurrency @ ..] => {
            let mut options = WorkerOptions::default().database_url(&url).define_job::<Noop>().define_job::<Stamp>();
            if settings == "best" {
                options = options
                    .concurrency(500)
                    .poll_interval(Duration::from_millis(5))
                    .max_pg_conn(100)
                    .complete_job_batch_delay(Duration::from_millis(5))
                    .local_queue(LocalQueueConfig::default().with_size(5000));
            }
            if let [concurrency] = concurrency {
                options = options.concurrency(concurrency.parse()?);
            }
            let worker = options.init().await?;
            progress::start();
            worker.run().await?;
        }
        _ => return Err("unknown words".into()),
    }
    Ok(())
}
