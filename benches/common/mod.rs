//! Helpers of the benches.

#[allow(dead_code, reason = "not every bench has a link")]
pub mod link;

use graphile_worker::devdb::DevDb;
use postgres::{Client, NoTls};

/// Returns the median of an odd number of values.
#[allow(dead_code, reason = "not every bench has rounds")]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Fills the empty queue with this number of no-op jobs, and vacuums the table. Returns a client of the database.
#[allow(dead_code, reason = "not every bench drains no-ops")]
pub fn fill(url: &str, jobs: i64) -> Client {
    let mut client = Client::connect(url, NoTls).expect("connecting");
    client.batch_execute("truncate graphile_worker._private_jobs").expect("emptying");
    add(&mut client, jobs, "null");
    for settle in ["vacuum analyze graphile_worker._private_jobs", "checkpoint"] {
        client.execute(settle, &[]).expect("settling the table");
    }
    client
}

/// Adds this number of no-op jobs in one call. `run_at` is an SQL expression.
#[allow(dead_code, reason = "not every bench drains no-ops")]
pub fn add(client: &mut Client, jobs: i64, run_at: &str) {
    let add = format!(
        "select count(*) from graphile_worker.add_jobs(array(
           select row('noop', '{{}}', null, {run_at}, null, null, null, null)::graphile_worker.job_spec
             from generate_series(1, $1::bigint)))"
    );
    client.execute(&add, &[&jobs]).expect("filling");
}

/// Returns the user and system time of a process, in seconds, from its `/proc/PID/stat`.
#[allow(dead_code, reason = "not every bench measures CPU time")]
pub fn cpu_seconds(stat: &str) -> f64 {
    ticks(stat, 11)
}

/// Returns the CPU seconds of the server: of its processes that run now, and of those that have ended.
#[allow(dead_code, reason = "not every bench measures the server's CPU time")]
pub fn server_cpu(db: &DevDb) -> f64 {
    let pid = db.postmaster_pid().expect("a running server");
    let parent = |stat: &str| stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse::<u32>().ok();
    let running: f64 = std::fs::read_dir("/proc")
        .expect("a system with /proc")
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("stat")).ok())
        .filter(|stat| parent(stat) == Some(pid))
        .map(|stat| cpu_seconds(&stat))
        .sum();
    running + ticks(&std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a running server"), 13)
}

/// Adds two neighbouring fields of a `/proc/PID/stat`, which count ticks of 10 ms. Fields count from the state.
fn ticks(stat: &str, field: usize) -> f64 {
    let ticks = stat.rsplit(')').next().expect("a name").split_whitespace().skip(field).take(2);
    ticks.map(|ticks| ticks.parse::<f64>().expect("ticks")).sum::<f64>() / 100.0
}

/// Returns the number of jobs that are left.
#[allow(dead_code, reason = "not every bench drains no-ops")]
pub fn left(client: &mut Client) -> i64 {
    client.query_one("select count(*) from graphile_worker._private_jobs", &[]).expect("counting").get(0)
}
