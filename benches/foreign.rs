//! Measures a worker while jobs that it cannot take are in front of its own: of tasks that it does not know, with flags
//! that it forbids, in queues that are locked, of the future. Others add such jobs all the time, and each wakes the worker.
//! On a private server with fsync on. Needs Linux's `/proc`.
//! `cargo bench --bench foreign [KIND…]`

mod common;

use common::{cpu_seconds, median};
use graphile_worker::devdb::{DevDb, Options};
use graphile_worker::{WorkerContext, WorkerOptions};
use postgres::{Client, NoTls};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

const ROUNDS: usize = 3;
const LASTS: Duration = Duration::from_secs(5);
/// 200 jobs a second that the worker cannot take, and 20 that it can.
const BETWEEN: Duration = Duration::from_millis(5);
const OWN: u32 = 10;

struct Kind {
    name: &'static str,
    jobs: u32,
    /// The `job_spec` of job n in front.
    spec: &'static str,
}

const KINDS: [Kind; 7] = [
    Kind { name: "nothing", jobs: 0, spec: "'other', null, null, null, null, null, null, null" },
    Kind { name: "task", jobs: 200_000, spec: "'other', null, null, null, null, null, null, null" },
    Kind { name: "tasks", jobs: 200_000, spec: "'other' || n % 1000, null, null, null, null, null, null, null" },
    Kind { name: "flag", jobs: 200_000, spec: "'own', null, null, null, null, null, null, array['no']" },
    Kind { name: "locked", jobs: 100_000, spec: "'own', null, 'q' || n % 20000, null, null, null, null, null" },
    Kind {
        name: "future",
        jobs: 20_000,
        spec: "'own', null, null, now() + interval '1 day', null, null, n::int, null",
    },
    Kind { name: "failed", jobs: 200_000, spec: "'own', null, null, null, 1, null, null, null" },
];

fn main() {
    let names: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let wanted =
        |kind: &&Kind| names.is_empty() || kind.name == "nothing" || names.iter().any(|name| name == kind.name);
    let db = DevDb::start(Options::default()).expect("starting PostgreSQL");
    let url = db.url();
    let kinds: Vec<&Kind> = KINDS.iter().filter(wanted).collect();
    let rounds: Vec<Vec<Figures>> =
        (0..ROUNDS).map(|_| kinds.iter().map(|kind| measure(&url, kind)).collect()).collect();
    for (place, kind) in kinds.iter().enumerate() {
        let middle = |of: fn(&Figures) -> f64| median(rounds.iter().map(|round| of(&round[place])).collect());
        let ratio =
            |of: fn(&Figures) -> f64| median(rounds.iter().map(|round| of(&round[place]) / of(&round[0])).collect());
        println!(
            "{:8} {:6} in front: p50 {:.2} ms ({:.2} of nothing), p99 {:.2} ms, claims use {:.1} % of a processor ({:.2}), {:.0} claims/s",
            kind.name,
            kind.jobs,
            middle(|figures| figures.p50),
            ratio(|figures| figures.p50),
            middle(|figures| figures.p99),
            middle(|figures| figures.busy) * 100.0,
            ratio(|figures| figures.busy),
            middle(|figures| figures.claims),
        );
    }
}

struct Figures {
    /// From the commit until the handler, in milliseconds.
    p50: f64,
    p99: f64,
    /// The share of one processor that the worker's claims use on the server.
    busy: f64,
    claims: f64,
}

fn measure(url: &str, kind: &Kind) -> Figures {
    let (started, starts) = channel();
    let worker = WorkerOptions::default()
        .database_url(url)
        .add_forbidden_flag("no")
        .define_raw_job("own", move |ctx: WorkerContext| {
            let _ = started.send((ctx.job().payload_as::<u32>().ok(), Instant::now()));
        })
        .init()
        .expect("a worker");
    let mut client = Client::connect(url, NoTls).expect("connecting");
    client
        .batch_execute(&format!(
            "truncate graphile_worker._private_jobs; delete from graphile_worker._private_job_queues;
             select count(*) from graphile_worker.add_jobs(array(
               select row({})::graphile_worker.job_spec from generate_series(1, {}) n));
             update graphile_worker._private_job_queues set locked_by = 'other', locked_at = now();
             update graphile_worker._private_jobs set attempts = max_attempts where max_attempts = 1",
            kind.spec, kind.jobs
        ))
        .expect("adding what is in front");
    client.batch_execute("vacuum analyze graphile_worker._private_jobs").expect("a vacuum");
    client.batch_execute("checkpoint").expect("a checkpoint");
    let add = |jobs: &str, n: &str| {
        format!(
            "select from graphile_worker.add_jobs(array(select row({jobs})::graphile_worker.job_spec from (values ({n}::int)) v(n)))"
        )
    };
    // A failed job is not added, it fails. So others add jobs of a task of their own.
    let other = if kind.name == "failed" { KINDS[0].spec } else { kind.spec };
    let other = client.prepare(&add(other, "$1")).expect("preparing");
    let own = client.prepare(&add("'own', to_json(n), null, null, null, null, null, null", "$1")).expect("preparing");
    thread::scope(|scope| {
        let run = scope.spawn(|| worker.run());
        let mut added = Vec::new();
        let (mut from, mut first) = ((Instant::now(), 0.0, 0), 0);
        for n in 0_u32.. {
            let at = Instant::now();
            client.execute(&other, &[&(n as i32)]).expect("adding");
            if n % OWN == 0 {
                client.execute(&own, &[&(added.len() as i32)]).expect("adding");
                added.push(Instant::now());
            }
            // The first second does not count.
            match from.0.elapsed() {
                _ if from.2 == 0 && at - from.0 > Duration::from_secs(1) => {
                    from = (Instant::now(), claim_cpu(&mut client), worker.stats().claims);
                    first = added.len();
                }
                elapsed if from.2 > 0 && elapsed > LASTS => break,
                _ => {}
            }
            thread::sleep(BETWEEN.saturating_sub(at.elapsed()));
        }
        let elapsed = from.0.elapsed().as_secs_f64();
        let busy = (claim_cpu(&mut client) - from.1) / elapsed;
        let claims = (worker.stats().claims - from.2) as f64 / elapsed;
        let mut latencies = Vec::new();
        for _ in 0..added.len() {
            let (number, at) = starts.recv_timeout(Duration::from_secs(10)).expect("the worker starts all of its jobs");
            let number = number.expect("the number of a job") as usize;
            if number >= first {
                latencies.push(at.saturating_duration_since(added[number]).as_secs_f64() * 1e3);
            }
        }
        latencies.sort_by(f64::total_cmp);
        worker.request_shutdown();
        run.join().expect("no panic").expect("running");
        let at = |share: f64| latencies[(latencies.len() as f64 * share) as usize];
        Figures { p50: at(0.5), p99: at(0.99), busy, claims }
    })
}

/// The CPU seconds of the sessions that claim.
fn claim_cpu(client: &mut Client) -> f64 {
    let pids = "select pid from pg_stat_activity where application_name = 'graphile-worker:fetch'";
    let stat = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rows = client.query(pids, &[]).expect("the sessions");
    rows.iter().map(|row| stat(row.get(0))).filter(|stat| !stat.is_empty()).map(|stat| cpu_seconds(&stat)).sum()
}
