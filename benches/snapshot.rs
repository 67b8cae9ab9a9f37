//! Measures a drain beside a transaction that stays open elsewhere, so that vacuum removes no dead row: the rate of
//! 50,000 no-op jobs after each number of dead jobs. Workers have default options, on a private server with fsync on.
//! `cargo bench --bench snapshot [distinct|equal] [250000]`: how `run_at` is spread, and the most dead jobs.

mod common;

use common::{add, left};
use graphile_worker::WorkerOptions;
use graphile_worker::devdb::{DevDb, Options};
use postgres::{Client, NoTls};
use std::time::Instant;

const JOBS: i64 = 50_000;
const THREADS: usize = 10;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let most = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(250_000);
    let wanted = |shape: &str| arguments.iter().all(|argument| argument.parse::<i64>().is_ok() || argument == shape);
    let db = DevDb::start(Options::default()).expect("starting PostgreSQL");
    let url = db.url();
    let options = || WorkerOptions::default().database_url(&url).concurrency(THREADS).define_raw_job("noop", |_| ());
    options().init().expect("installing");
    for (shape, run_at) in [("distinct", "clock_timestamp()"), ("equal", "timestamptz '2026-01-01'")] {
        if !wanted(shape) {
            continue;
        }
        let mut client = Client::connect(&url, NoTls).expect("connecting");
        client.batch_execute("truncate graphile_worker._private_jobs; checkpoint").expect("emptying");
        let mut holder = Client::connect(&url, NoTls).expect("connecting");
        holder
            .batch_execute("begin isolation level repeatable read; select count(*) from graphile_worker._private_jobs")
            .expect("holding a snapshot");
        let (mut dead, mut fresh) = (0, None);
        while dead <= most {
            add(&mut client, JOBS, run_at);
            client.batch_execute("checkpoint").expect("settling");
            let worker = options().init().expect("starting a worker");
            let start = Instant::now();
            worker.run_once().expect("running");
            let rate = JOBS as f64 / start.elapsed().as_secs_f64();
            assert_eq!(left(&mut client), 0, "every job's row is gone");
            let fresh = *fresh.get_or_insert(rate);
            let claims = worker.stats().claims;
            println!(
                "{shape} run_at, {dead:>9} dead jobs: {rate:>8.0} jobs/s, {:.2} of fresh, {claims} claims",
                rate / fresh
            );
            dead += JOBS;
        }
        holder.batch_execute("commit").expect("letting go");
    }
}
