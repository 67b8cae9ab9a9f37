//! Measures `add_job`: calls per second of a caller that adds one job at a time, compared with a client that sends the
//! same statement itself. Measures calls without a key, with a key, and with many jobs, in turn, on a private server
//! with fsync on. If `ROUND_TRIP_MS` is set, the connection has this round-trip time.

mod common;

use common::{link, median};
use graphile_worker::devdb::{DevDb, Options};
use graphile_worker::{JobSpec, RawJob, WorkerUtils};
use postgres::types::Type;
use postgres::{Client, NoTls};
use std::time::{Duration, Instant};

const ROUNDS: usize = 5;
const FOR: Duration = Duration::from_secs(2);
const MANY: usize = 1000;

/// A name, the number of jobs that one call adds, and the call. Its argument is a number that no other call gets.
type Measured<'a> = (&'a str, usize, &'a mut dyn FnMut(usize));

fn main() {
    let db = DevDb::start(Options::default()).expect("starting PostgreSQL");
    let url = match std::env::var("ROUND_TRIP_MS") {
        Ok(ms) => {
            let round_trip = Duration::from_millis(ms.parse().expect("ROUND_TRIP_MS: a whole number"));
            let port = link::delayed(db.port(), round_trip);
            db.url().replace(&db.port().to_string(), &port.to_string())
        }
        Err(_) => db.url(),
    };
    let utils = WorkerUtils::connect(&url).expect("connecting");
    utils.migrate().expect("installing");
    let mut client = Client::connect(&url, NoTls).expect("connecting");
    let mut floor = |_: usize| {
        let add = "select id from graphile_worker.add_job($1, cast($2 as json))";
        client.query_typed(add, &[(&"noop", Type::TEXT), (&"{}", Type::TEXT)]).expect("adding");
    };
    let add = |spec| utils.add_raw_job("noop", &serde_json::json!({}), spec).expect("adding");
    let mut calls: [Measured; 4] = [
        ("a statement by itself", 1, &mut floor),
        ("add_job", 1, &mut |_| drop(add(JobSpec::new()))),
        ("add_job with a key", 1, &mut |n| drop(add(JobSpec::new().job_key(format!("key {n}"))))),
        ("add_jobs of 1,000", MANY, &mut |_| {
            let job = RawJob { identifier: "noop".into(), payload: "{}".into(), spec: JobSpec::new() };
            utils.add_raw_jobs(vec![job; MANY]).expect("adding");
        }),
    ];
    let mut rates = [const { Vec::new() }; 4];
    for round in 0..ROUNDS {
        for ((_, jobs, call), rates) in calls.iter_mut().zip(&mut rates) {
            let (start, mut count) = (Instant::now(), 0);
            while start.elapsed() < FOR {
                call(round * 1_000_000 + count);
                count += 1;
            }
            rates.push((count * *jobs) as f64 / start.elapsed().as_secs_f64());
        }
    }
    let floor = median(rates[0].clone());
    for ((name, ..), rates) in calls.iter().zip(rates) {
        let rate = median(rates);
        println!("{name:>22} {rate:>9.0} jobs/s  {:>6.2} of the statement", rate / floor);
    }
}
