//! gw-fetch-N: carries out claims, and hands the jobs to the threads. Knows nothing of handlers.
//! A second one works only while full claims follow each other.

use super::Shared;
use super::intake::{Intake, Taken};
use crate::backoff::Backoff;
use crate::claim::Arrival;
use crate::error::Result;
use crate::job::Job;
use crate::stats::add;
use crate::store::{Filter, Store};
use chrono::Utc;
use crossbeam_channel::select;
use parking_lot::RwLockReadGuard;
use std::time::{Duration, Instant};

/// How many bytes, as they are stored, the payloads of one claim may have to come along with it. For a full claim
/// that is what PostgreSQL keeps in the job's row; compressed payloads may be a hundred times as large.
const INLINE: usize = 1 << 20;

/// A claim is late when its payloads make it take so long.
const LATE: Duration = Duration::from_secs(1);

/// A claim to carry out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    pub(crate) jobs: usize,
    /// How many claims the ledger had when this one was decided.
    pub(crate) entries: usize,
}

/// What became of it.
pub(crate) struct Fetched {
    pub(crate) claimer: usize,
    pub(crate) order: Order,
    /// What it brought; `None` if the claim failed.
    pub(crate) taken: Option<Taken>,
    /// Its payloads made it take long.
    pub(crate) late: bool,
}

/// Carries out claims until a stop. `claimer` is this thread's number.
pub(crate) fn fetch(shared: &Shared, claimer: usize) {
    let mut store = shared.store("fetch");
    let filter = Filter {
        forbidden: some(&shared.config.forbidden_flags),
        accepted: some(&shared.config.accepted_flags),
        queue_index: shared.facts.has_queue_index,
    };
    let mut retry = Backoff::new(Duration::from_millis(50), Duration::from_secs(10));
    let orders = &shared.wires.orders[claimer].1;
    let mut intake = Intake::default();
    loop {
        let order = select! {
            recv(orders) -> order => order.expect("we hold the other end too"),
            recv(shared.stop.receiver()) -> _ => return,
        };
        let Some(claiming) = shared.may_claim() else { return };
        let start = Instant::now();
        let taken = match claim(shared, &mut store, &filter, order.jobs, claiming, &mut intake) {
            Ok(taken) => {
                retry.reset();
                Some(taken)
            }
            Err(error) => {
                // The reply may be lost although the claim was committed.
                shared.in_doubt("claim", &error);
                shared.stop.wait_timeout(retry.next());
                None
            }
        };
        if shared.stop.is_triggered() {
            // Dispatch may have looked for jobs to give back before ours came.
            shared.take_back();
        }
        let late = start.elapsed() >= LATE && taken.as_ref().is_some_and(|taken| taken.bytes >= INLINE);
        let _ = shared.wires.fetched.0.send(Fetched { claimer, order, taken, late });
    }
}

fn some(flags: &[String]) -> Option<Vec<String>> {
    (!flags.is_empty()).then(|| flags.to_vec())
}

/// Claims, and hands out what came.
fn claim(
    shared: &Shared,
    store: &mut Store,
    filter: &Filter,
    limit: usize,
    claiming: RwLockReadGuard<()>,
    intake: &mut Intake,
) -> Result<Taken> {
    let ids = shared.task_ids.read().clone();
    let now = shared.config.local_time.then(Utc::now);
    let tasks: Vec<i32> = ids.keys().copied().collect();
    add(&shared.stats.claims, 1);

    let rows = store.claim(limit, INLINE / limit.max(16), &tasks, filter, now)?;
    let mut jobs = Vec::with_capacity(rows.len());
    let mut recovered = Vec::new();
    for row in &rows {
        let task = ids[&row.get::<_, i32>("task_id")];
        if row.get::<_, Option<bool>>("was_recovered") == Some(true) {
            recovered.push(row.get("id"));
        }
        let apart = row.get::<_, Option<i32>>("apart").map(|bytes| bytes as usize);
        match Job::from_row(row, shared.tasks[task].name.shared()) {
            Ok(job) => jobs.push(Arrival { task, job, alone: false, apart }),
            // Its row stays locked by us and in no ledger, which is what reconcile gives back.
            Err(error) => shared.in_doubt("read a claimed job", &error),
        }
    }
    add(&shared.stats.claimed, rows.len());
    if !rows.is_empty() {
        shared.stats.claim_sizes.note(rows.len() as u64);
    }
    drop(rows);
    if shared.facts.has_recovery && !recovered.is_empty() {
        // Whoever runs beside a job that kills its workers dies with it.
        let suspects = store.often_recovered(&recovered, shared.config.recovery.alone_from())?;
        jobs.iter_mut().for_each(|arrival| arrival.alone = suspects.contains(&arrival.job.id));
    }
    // A crash of the server may forget a claim, and the job then runs again: not so where jobs must
    // not overlap, nor where there is only one attempt.
    if jobs.iter().any(|Arrival { job, .. }| job.queue_id.is_some() || job.max_attempts == 1) {
        store.harden()?;
    }
    shared.ledger.expect(jobs.iter().map(|arrival| arrival.job.id));
    drop(claiming);
    intake.take(shared, store, jobs)
}
