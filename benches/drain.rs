//! Drains 100,000 no-op jobs with default options, and compares the rate with plain clients (the floor)
//! that only claim and delete. Runs five pairs in turn, on a private server with fsync on. Prints the ratio of each
//! pair.

mod common;

use common::{fill, left, median};
use graphile_worker::WorkerOptions;
use graphile_worker::devdb::{DevDb, Options};
use postgres::{Client, NoTls};
use std::thread;
use std::time::{Duration, Instant};

const JOBS: i64 = 100_000;
const PAIRS: usize = 5;
const THREADS: usize = 10;

fn main() {
    let db = DevDb::start(Options::default()).expect("starting PostgreSQL");
    let url = db.url();
    WorkerOptions::default().database_url(&url).define_raw_job("noop", |_| ()).init().expect("installing");
    let ratios = (0..PAIRS)
        .map(|pair| {
            let floor = [1, 2, 4].map(|connections| floor(&url, connections)).into_iter().fold(0.0, f64::max);
            let ours = drain(&url);
            println!("pair {pair}: floor {floor:.0} jobs/s, worker {ours:.0} jobs/s, ratio {:.2}", ours / floor);
            ours / floor
        })
        .collect();
    println!("median ratio {:.2} (target 0.7)", median(ratios));
}

/// Returns the jobs per second of `connections` clients that claim 500 and delete 500 in turn.
fn floor(url: &str, connections: usize) -> f64 {
    fill(url, JOBS);
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                let mut client = Client::connect(url, NoTls).expect("connecting");
                client
                    .batch_execute("set plan_cache_mode = force_generic_plan; set enable_seqscan = off")
                    .expect("settings");
                let claim = client.prepare(include_str!("floor.sql")).expect("preparing");
                let delete = "delete from graphile_worker._private_jobs where id = any($1::bigint[])";
                let delete = client.prepare(delete).expect("preparing");
                loop {
                    let ids: Vec<i64> =
                        client.query(&claim, &[]).expect("claiming").iter().map(|row| row.get(0)).collect();
                    if ids.is_empty() {
                        break;
                    }
                    client.execute(&delete, &[&ids]).expect("deleting");
                }
            });
        }
    });
    JOBS as f64 / start.elapsed().as_secs_f64()
}

/// Returns the jobs per second of a worker, from its start until the last deletion is committed.
fn drain(url: &str) -> f64 {
    let mut client = fill(url, JOBS);
    let worker = WorkerOptions::default().database_url(url).concurrency(THREADS).define_raw_job("noop", |_| ());
    let worker = worker.init().expect("starting a worker");
    let start = Instant::now();
    let sample = std::env::args().any(|argument| argument == "--held");
    thread::scope(|scope| {
        scope.spawn(|| worker.run_once().expect("running"));
        while sample && worker.stats().completed < JOBS as u64 {
            println!("  {:>6} ms held {}", start.elapsed().as_millis(), worker.stats().held);
            thread::sleep(Duration::from_millis(50));
        }
    });
    let rate = JOBS as f64 / start.elapsed().as_secs_f64();
    let stats = worker.stats();
    println!("  claims {} settlements {} completed {}", stats.claims, stats.settlements, stats.completed);
    assert_eq!(left(&mut client), 0, "every job's row is gone");
    rate
}
