//! Adds a job and runs it.

use graphile_worker::{IntoTaskHandlerResult, JobSpec, TaskHandler, WorkerContext, WorkerOptions};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Hello {
    name: String,
}

impl TaskHandler for Hello {
    const IDENTIFIER: &'static str = "hello";

    fn run(self, ctx: WorkerContext) -> impl IntoTaskHandlerResult {
        println!("Hello, {}! Attempt {} of job {}.", self.name, ctx.job().attempts(), ctx.job().id());
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let worker = WorkerOptions::default()
        .database_url(&std::env::var("DATABASE_URL")?)
        .concurrency(4)
        .define_job::<Hello>()
        .init()?;
    worker.create_utils().add_job(Hello { name: "Ada".into() }, JobSpec::new())?;
    // Runs all due jobs and returns; `run()` runs until Ctrl-C.
    worker.run_once()?;
    Ok(())
}
