//! A worker of the async crate that tests/interop runs. It has the same verbs as examples/interop.rs.
//! The packages v13 and v14 compile it, each with its own version of `graphile_worker`.

use graphile_worker::tokio_postgres::TokioPostgresDatabase;
use graphile_worker::{
    Database, DbExecutor, DbValue, IntoTaskHandlerResult, JobSpec, Schema, TaskHandler, WorkerContext, WorkerOptions,
    WorkerUtils,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::error::Error;
use std::time::{Duration, Instant};

type Done<T> = Result<T, Box<dyn Error>>;

/// The table to which the handlers write.
#[derive(Clone, Debug)]
struct Ledger(String);

/// The async crate needs its tasks at compile time: one that only peers have, and one that both have.
macro_rules! task {
    ($name:ident, $identifier:literal) => {
        #[derive(Serialize, Deserialize, Clone)]
        struct $name(Value);

        impl TaskHandler for $name {
            const IDENTIFIER: &'static str = $identifier;

            async fn run(self, ctx: WorkerContext) -> impl IntoTaskHandlerResult {
                let Ledger(table) = ctx.get_ext().expect("set below");
                let insert = format!("insert into {table} (job_id, who, payload) values ($1, 'theirs', $2)");
                let ms = self.0["ms"].as_u64();
                for (at, payload) in [self.0, json!({"ended": true})].into_iter().enumerate() {
                    match (at, ms) {
                        (0, _) => {}
                        (_, Some(ms)) => tokio::time::sleep(Duration::from_millis(ms)).await,
                        (_, None) => break,
                    }
                    let values = vec![DbValue::I64(*ctx.job().id()), DbValue::Json(payload)];
                    ctx.database().execute(&insert, values.into()).await.map_err(|e| e.to_string())?;
                }
                Ok::<(), String>(())
            }
        }
    };
}
task!(Theirs, "theirs");
task!(Both, "both");

#[tokio::main(flavor = "current_thread")]
async fn main() -> Done<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let database: Database = TokioPostgresDatabase::from_url(words.first().ok_or("no DATABASE_URL")?, 10)?.into();
    let utils = WorkerUtils::new(database.clone(), Schema::default());
    match words[1..] {
        ["migrate"] => Ok(utils.migrate().await?),
        ["add", task, count] => add(&utils, task, count.parse()?, "plain").await,
        ["add", task, count, "--keyed"] => add(&utils, task, count.parse()?, "keyed").await,
        ["add", task, count, "--queued"] => add(&utils, task, count.parse()?, "queued").await,
        ["work", "theirs", "both", "--ledger-table", table, "--until-empty-for", ms] => {
            work(database, table, Duration::from_millis(ms.parse()?)).await
        }
        ["recover", "theirs", "both", "--ledger-table", table, "--sweep-threshold", ms] => {
            recover(database, table, Duration::from_millis(ms.parse()?)).await
        }
        ["schedule", crontab] => schedule(database, crontab).await,
        _ => Err("unknown words; see examples/interop.rs".into()),
    }
}

async fn add(utils: &WorkerUtils, task: &str, count: u32, kind: &str) -> Done<()> {
    for n in 0..count {
        let payload = |last| json!({"from": "theirs", "task": task, "kind": kind, "n": n, "last": last});
        let mut spec = JobSpec::default();
        if kind == "keyed" {
            spec.job_key = Some(format!("{task} {n}"));
            utils.add_raw_job(task, payload(false), spec.clone()).await?;
        } else if kind == "queued" {
            spec.queue_name = Some("shared".into());
        }
        utils.add_raw_job(task, payload(true), spec).await?;
    }
    Ok(())
}

fn recording(database: Database, table: &str) -> WorkerOptions {
    WorkerOptions::default()
        .database(database)
        .concurrency(4)
        .poll_interval(Duration::from_millis(100))
        .add_extension(Ledger(table.to_owned()))
        .define_job::<Theirs>()
        .define_job::<Both>()
}

async fn recover(database: Database, table: &str, threshold: Duration) -> Done<()> {
    let options = recording(database, table).heartbeat_interval(threshold / 8).sweep_interval(threshold / 5);
    Ok(options.sweep_threshold(threshold).recovery_delay(Duration::ZERO).init().await?.run().await?)
}

/// Adds the jobs of a crontab. It runs none of them, because the crontab has no task of this program.
async fn schedule(database: Database, crontab: &str) -> Done<()> {
    Ok(recording(database, "no_table").with_cron(crontab)?.init().await?.run().await?)
}

async fn work(database: Database, table: &str, idle: Duration) -> Done<()> {
    let worker = recording(database.clone(), table).init().await?;
    let watch = async {
        let watched = wait_until_empty(&database, idle).await;
        worker.request_shutdown();
        watched
    };
    let (ran, watched) = tokio::join!(worker.run(), watch);
    ran?;
    watched
}

async fn wait_until_empty(database: &Database, idle: Duration) -> Done<()> {
    let mut empty_since = None;
    loop {
        let jobs = database.fetch_all("select id from graphile_worker.jobs limit 1", Vec::new().into()).await?;
        match jobs.is_empty() {
            false => empty_since = None,
            true if empty_since.get_or_insert_with(Instant::now).elapsed() >= idle => return Ok(()),
            true => {}
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
