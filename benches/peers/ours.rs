//! The drivers of this library and of the floor. benches/peers.rs describes their words and lines.
//!
//! This library's best settings have 10 jobs at once. The floor is the bare statements, on two connections.

use crate::progress;
use graphile_worker::{JobSpec, RawJob, WorkerContext, WorkerOptions, WorkerUtils};
use postgres::{Client, NoTls};
use serde::Deserialize;
use serde_json::json;
use std::thread;
use std::time::{Duration, Instant};

#[derive(Deserialize)]
struct Stamp {
    n: u64,
}

pub fn run(peer: &str, words: &[&str]) {
    let url = std::env::var("DATABASE_URL").unwrap_or_default();
    match (peer, words) {
        (_, ["version"]) => println!("graphile-worker-native {}", env!("CARGO_PKG_VERSION")),
        (_, ["setup", _]) => drop(options(&url).init().expect("installing")),
        (_, ["add", _, jobs, batch]) => add(&url, number(jobs), number(batch)),
        (_, ["trickle", _, jobs]) => trickle(&url, number(jobs)),
        ("ours", ["work", settings, concurrency @ ..]) => {
            let mut options = options(&url);
            if *settings == "best" {
                options = options.concurrency(10);
            }
            if let [concurrency] = concurrency {
                options = options.concurrency(number(concurrency));
            }
            let worker = options.init().expect("starting a worker");
            progress::start();
            worker.run().expect("running");
        }
        ("floor", ["work", ..]) => {
            progress::start();
            thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(|| floor(&url)))));
        }
        _ => panic!("unknown words"),
    }
}

fn options(url: &str) -> WorkerOptions {
    let options = WorkerOptions::default().database_url(url).define_raw_job("noop", |_| progress::noop());
    options.define_raw_job("stamp", |ctx: WorkerContext| {
        let stamp: Stamp = ctx.job().payload_as().expect("a number");
        progress::stamp(stamp.n);
    })
}

fn number(text: &str) -> usize {
    text.parse().expect("a number")
}

fn add(url: &str, jobs: usize, batch: usize) {
    let utils = WorkerUtils::connect(url).expect("connecting");
    let job = RawJob { identifier: "noop".into(), payload: "{}".into(), spec: JobSpec::new() };
    for batch in vec![job; jobs].chunks(batch) {
        utils.add_raw_jobs(batch.to_vec()).expect("adding");
    }
}

fn trickle(url: &str, jobs: usize) {
    let utils = WorkerUtils::connect(url).expect("connecting");
    let mut client = Client::connect(url, NoTls).expect("connecting");
    let start = Instant::now();
    for n in 0..jobs {
        thread::sleep((start + progress::PAUSE * n as u32).saturating_duration_since(Instant::now()));
        let mut transaction = client.transaction().expect("beginning");
        utils.with_executor(&mut transaction).add_raw_job("stamp", &json!({"n": n}), JobSpec::new()).expect("adding");
        println!("added {n} {}", progress::now_us());
        transaction.commit().expect("committing");
    }
}

/// Claims and deletes jobs until the process is killed.
fn floor(url: &str) {
    let mut client = Client::connect(url, NoTls).expect("connecting");
    client.batch_execute("set plan_cache_mode = force_generic_plan; set enable_seqscan = off").expect("settings");
    let claim = client.prepare(include_str!("../floor.sql")).expect("preparing");
    let delete = "delete from graphile_worker._private_jobs where id = any($1::bigint[])";
    let delete = client.prepare(delete).expect("preparing");
    loop {
        let ids: Vec<i64> = client.query(&claim, &[]).expect("claiming").iter().map(|row| row.get(0)).collect();
        if ids.is_empty() {
            thread::sleep(Duration::from_millis(10));
            continue;
        }
        client.execute(&delete, &[&ids]).expect("deleting");
        ids.iter().for_each(|_| progress::noop());
    }
}
