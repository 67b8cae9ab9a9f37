//! Adds jobs in a transaction: a job exists if, and only if, its transaction commits.

use graphile_worker::{JobSpec, WorkerContext, WorkerOptions};
use postgres::{Client, NoTls};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let database_url = std::env::var("DATABASE_URL")?;
    let worker = WorkerOptions::default()
        .database_url(&database_url)
        .define_raw_job("welcome", |ctx: WorkerContext| -> graphile_worker::Result<()> {
            println!("Welcome, {}!", ctx.job().payload_as::<String>()?);
            Ok(())
        })
        .init()?;
    let utils = worker.create_utils();
    let mut client = Client::connect(&database_url, NoTls)?;

    let mut regretted = client.transaction()?;
    utils.with_executor(&mut regretted).add_raw_job("welcome", "Grace", JobSpec::new())?;
    regretted.rollback()?;

    let mut meant = client.transaction()?;
    utils.with_executor(&mut meant).add_raw_job("welcome", "Ada", JobSpec::new())?;
    meant.commit()?;

    worker.run_once()?;
    Ok(())
}
