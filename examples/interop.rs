//! A worker of this library that tests/interop runs: `interop DATABASE_URL VERB …`. VERB is `migrate`,
//! `add TASK N [--keyed|--queued]` or `work TASK… --ledger-table T --until-empty-for MS`. The verbs
//! `recover TASK… --ledger-table T --sweep-threshold MS` and `schedule CRONTAB` run until the process is killed.

use graphile_worker::{JobSpec, ShutdownSignal, WorkerContext, WorkerOptions, WorkerUtils};
use serde_json::json;
use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

type Done<T> = Result<T, Box<dyn Error>>;

fn main() -> Done<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [url, "migrate"] => Ok(WorkerUtils::connect(url)?.migrate()?),
        [url, "add", task, count] => add(url, task, count.parse()?, "plain"),
        [url, "add", task, count, "--keyed"] => add(url, task, count.parse()?, "keyed"),
        [url, "add", task, count, "--queued"] => add(url, task, count.parse()?, "queued"),
        [url, "work", ref tasks @ .., "--ledger-table", table, "--until-empty-for", ms] => {
            work(url, tasks, table, Duration::from_millis(ms.parse()?))
        }
        [url, "recover", ref tasks @ .., "--ledger-table", table, "--sweep-threshold", ms] => {
            recover(url, tasks, table, Duration::from_millis(ms.parse()?))
        }
        [url, "schedule", crontab] => schedule(url, crontab),
        _ => Err("usage: interop DATABASE_URL migrate | add TASK N [--keyed|--queued] | \
                  work TASK… --ledger-table T --until-empty-for MS | \
                  recover TASK… --ledger-table T --sweep-threshold MS | schedule CRONTAB"
            .into()),
    }
}

/// Adds the jobs that tests/interop/workers.mjs expects. It adds a keyed job twice: the second replaces the first.
fn add(url: &str, task: &str, count: u32, kind: &str) -> Done<()> {
    let utils = WorkerUtils::connect(url)?;
    for n in 0..count {
        let payload = |last| json!({"from": "ours", "task": task, "kind": kind, "n": n, "last": last});
        let mut spec = JobSpec::new();
        if kind == "keyed" {
            spec = spec.job_key(format!("{task} {n}"));
            utils.add_raw_job(task, &payload(false), spec.clone())?;
        } else if kind == "queued" {
            spec = spec.queue_name("shared");
        }
        utils.add_raw_job(task, &payload(true), spec)?;
    }
    Ok(())
}

/// Runs jobs until the table has been empty for the time `idle`.
fn work(url: &str, tasks: &[&str], table: &str, idle: Duration) -> Done<()> {
    let stop = ShutdownSignal::new();
    let worker = recording(url, tasks, table).shutdown_signal(stop.clone()).init()?;
    let utils = worker.create_utils();
    let watcher = thread::spawn(move || {
        // The worker must stop also if the watch fails.
        let watched = wait_until_empty(&utils, idle).map_err(|e| e.to_string());
        stop.trigger();
        watched
    });
    worker.run()?;
    Ok(watcher.join().expect("watching does not panic")?)
}

/// Runs jobs, and sweeps dead workers with this threshold.
fn recover(url: &str, tasks: &[&str], table: &str, threshold: Duration) -> Done<()> {
    let options = recording(url, tasks, table).heartbeat_interval(threshold / 8).sweep_interval(threshold / 5);
    Ok(options.sweep_threshold(threshold).recovery_delay(Duration::ZERO).init()?.run()?)
}

/// Adds the jobs of a crontab, and runs none of them.
fn schedule(url: &str, crontab: &str) -> Done<()> {
    let options = WorkerOptions::default().database_url(url).concurrency(1).define_raw_job("nothing", |_| ());
    Ok(options.with_cron(crontab)?.init()?.run()?)
}

/// Makes the options of a worker that records the jobs it runs.
fn recording(url: &str, tasks: &[&str], table: &str) -> WorkerOptions {
    let mut options = WorkerOptions::default().database_url(url).concurrency(4);
    let insert = format!("insert into {table} (job_id, who, payload) values ($1, 'ours', $2::text::json)");
    for task in tasks {
        let insert = insert.clone();
        options = options.define_raw_job(task, move |ctx: WorkerContext| record(&ctx, &insert));
    }
    options
}

/// Records a job. If its payload has `ms`, the job takes that long and is recorded again at its end. If it has `fail`, the
/// first attempt fails.
fn record(ctx: &WorkerContext, insert: &str) -> Done<()> {
    let payload = std::str::from_utf8(ctx.payload())?;
    ctx.connection()?.execute(insert, &[&ctx.job().id(), &payload])?;
    let value: serde_json::Value = ctx.job().payload_as()?;
    if let Some(ms) = value["ms"].as_u64() {
        thread::sleep(Duration::from_millis(ms));
        ctx.connection()?.execute(insert, &[&ctx.job().id(), &r#"{"ended": true}"#])?;
    }
    if value["fail"] == true && ctx.job().attempts() == 1 {
        return Err("the first attempt fails".into());
    }
    Ok(())
}

fn wait_until_empty(utils: &WorkerUtils, idle: Duration) -> Done<()> {
    let mut empty_since = None;
    loop {
        let row = utils.connection()?.query_one("select exists (select from graphile_worker.jobs)", &[])?;
        match row.get(0) {
            true => empty_since = None,
            false if empty_since.get_or_insert_with(Instant::now).elapsed() >= idle => return Ok(()),
            false => {}
        }
        thread::sleep(Duration::from_millis(20));
    }
}
