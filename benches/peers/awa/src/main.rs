//! The driver of awa. benches/peers.rs describes its words and lines.
//!
//! The best settings are those of its docs/configuration.md, section Hot-Queue Claim Control: four enqueue shards, and
//! 1,024 workers for queues of no-op jobs. awa keeps finished jobs until it reuses their partitions, with any settings.

#[path = "../../progress.rs"]
mod progress;

use awa::{
    Client, InsertOpts, InsertParams, JobArgs, JobResult, QueueConfig, QueueStorage, QueueStorageConfig, insert_with,
    migrations,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::postgres::PgPoolOptions;
use std::error::Error;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, Deserialize, Serialize)]
struct Noop {}

impl JobArgs for Noop {
    fn kind() -> &'static str {
        "noop"
    }
}

#[derive(Debug, Deserialize, Serialize)]
struct Stamp {
    n: u64,
}

impl JobArgs for Stamp {
    fn kind() -> &'static str {
        "stamp"
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if words == ["version"] {
        println!("awa 0.6.9");
        return Ok(());
    }
    // The size of the pool in docs/getting-started-rust.md.
    let pool = PgPoolOptions::new().max_connections(10).connect(&std::env::var("DATABASE_URL")?).await?;
    match words[..] {
        ["setup", settings] => {
            migrations::run(&pool).await?;
            if settings == "best" {
                let shards = "insert into awa.queue_meta (queue, enqueue_shards) values ('default', 4)
                              on conflict (queue) do update set enqueue_shards = excluded.enqueue_shards";
                sqlx::query(shards).execute(&pool).await?;
            }
        }
        ["add", _, jobs, batch] => {
            let storage = QueueStorage::new(QueueStorageConfig::default())?;
            let job = InsertParams { kind: "noop".into(), args: json!({}), opts: InsertOpts::default() };
            for batch in vec![job; jobs.parse()?].chunks(batch.parse()?) {
                storage.enqueue_params_copy(&pool, batch).await?;
            }
        }
        ["trickle", _, jobs] => {
            let mut tick = tokio::time::interval(progress::PAUSE);
            for n in 0..jobs.parse()? {
                tick.tick().await;
                let mut transaction = pool.begin().await?;
                insert_with(&mut *transaction, &Stamp { n }, InsertOpts::default()).await?;
                println!("added {n} {}", progress::now_us());
                transaction.commit().await?;
            }
        }
        ["work", settings, ref concurrency @ ..] => {
            let mut queue = QueueConfig::default();
            if settings == "best" {
                queue.max_workers = 1024;
            }
            if let [concurrency] = concurrency {
                queue.max_workers = concurrency.parse()?;
            }
            let client = Client::builder(pool)
                .queue("default", queue)
                .register::<Noop, _, _>(|_, _| async {
                    progress::noop();
                    Ok(JobResult::Completed)
                })
                .register::<Stamp, _, _>(|stamp: Stamp, _| async move {
                    progress::stamp(stamp.n);
                    Ok(JobResult::Completed)
                })
                .build()?;
            let mut stop = signal(SignalKind::terminate())?;
            progress::start();
            client.start().await?;
            stop.recv().await;
            client.shutdown(Duration::from_secs(5)).await;
        }
        _ => return Err("unknown words".into()),
    }
    Ok(())
}
