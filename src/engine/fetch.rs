//! gw-fetch-N: sends claims, and passes the jobs to the threads. Knows nothing of handlers.
//! The second fetch thread works only while full claims follow each other.

use super::claim_plan::Along;
use super::frontier::{LARGE, Next, Position, Scope};
use super::intake::{Intake, Taken};
use super::{Shared, TRANSIENT_TRIES, signal};
use crate::backoff::Backoff;
use crate::engine::stats::add;
use crate::engine::store::{Claimed, Filter, Role, Store, Wanted};
use crate::error::{Error, Result};
use crate::job::Job;
use crate::job::active::Arrival;
use chrono::{DateTime, Utc};
use crossbeam_channel::select;
use log::error;
use parking_lot::RwLockReadGuard;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// The most stored bytes of payloads that one claim returns together with its jobs. In a full claim that is about 2 KiB
/// for each job, which is what PostgreSQL keeps in the row itself (TOAST). A compressed payload may be a hundred times
/// as large as its stored size.
const INLINE: usize = 1 << 20;

/// A claim that returns at least `INLINE` bytes of payloads is late if it takes this long.
const LATE: Duration = Duration::from_secs(1);

/// A claim takes along jobs of tasks that take at most this long on average.
const QUICK: Duration = Duration::from_millis(5);

/// The longest pause before a refused claim is retried.
const SHORT_PAUSE: Duration = Duration::from_millis(100);

/// A claim to carry out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    pub(crate) jobs: usize,
    /// How many claims the ledger had when dispatch decided on this one.
    pub(crate) entries: usize,
    /// How many jobs to take along of named queues.
    pub(crate) along: Along,
    /// How many jobs the claim is likely to return, with those that it takes along.
    pub(crate) expected: usize,
}

/// The result of an order.
pub(crate) struct Fetched {
    pub(crate) claimer: usize,
    pub(crate) order: Order,
    /// Whether large payloads made the claim slow.
    pub(crate) late: bool,
    /// `None` if the claim failed.
    pub(crate) reply: Option<Reply>,
}

/// What a claim brought.
pub(crate) struct Reply {
    /// What was kept of it.
    pub(crate) taken: Taken,
    /// Where the claim looked.
    pub(crate) scope: Scope,
    /// Whether the claim returned as much as it may, so that there may be more.
    pub(crate) is_full: bool,
    /// How many of the returned jobs were taken along.
    pub(crate) along: usize,
}

/// Carries out claims until a stop. `claimer` is this thread's number.
pub(crate) fn fetch(shared: &Shared, claimer: usize) {
    let mut store = shared.store(Role::Fetch);
    let filter = Filter {
        forbidden: some(&shared.config.forbidden_flags),
        accepted: some(&shared.config.accepted_flags),
        queue_index: shared.facts.has_queue_index,
    };
    let mut retry = Backoff::new(Duration::from_millis(50), Duration::from_secs(10));
    let orders = &shared.channels.orders[claimer].1;
    let (mut turns, mut intake) = (Turns::default(), Intake::default());
    loop {
        let mut order = select! {
            recv(orders) -> order => order.expect("the sender is in `shared`"),
            recv(shared.stop.begun.receiver()) -> _ => return,
        };
        let (mut limit, mut tries, mut everywhere) = (order.jobs, TRANSIENT_TRIES, !filter.queue_index);
        let start = Instant::now();
        let reply = loop {
            let Some(claiming) = shared.gates.may_claim(&shared.stop.begun) else { return };
            let (error, refused) = match claim(
                shared,
                &mut store,
                &filter,
                Ask { order, limit, everywhere, claimer },
                claiming,
                &mut turns,
                &mut intake,
            ) {
                Ok(reply) => {
                    retry.reset();
                    break Some(Reply { is_full: reply.is_full && limit == order.jobs, ..reply });
                }
                Err(Failed::Refused(error)) => (error, true),
                Err(Failed::InDoubt(error)) => (error, false),
            };
            if refused && error.is_refusal() {
                shared.error_log.refused("claim", &error);
            } else {
                // The reply may be lost although the claim was committed.
                shared.in_doubt("claim", &error);
            }
            // The retries look at all jobs. If none of them succeeds, so does the next claim.
            everywhere = true;
            shared.frontier.look_everywhere();
            let passes = !refused || (error.is_transient() && tries > 0);
            if passes {
                // The database replies, so the pause is shorter than for a database that is away.
                let pause = if refused { retry.next().min(SHORT_PAUSE) } else { retry.next() };
                shared.stop.begun.wait_timeout(pause);
                tries -= usize::from(refused);
            }
            // A user's trigger may refuse one row, and with it the whole claim. Halving the claim finds the row.
            match (refused, passes, limit) {
                (false, ..) => break None,
                (_, true, _) => {}
                // The row may be one of those that were taken along.
                _ if order.along != Along::default() => order.along = Along::default(),
                (_, _, 2..) => limit /= 2,
                _ if avoid_next(shared, &mut store, &filter, &error) => tries = TRANSIENT_TRIES,
                _ => {
                    shared.stop.begun.wait_timeout(retry.next());
                    break None;
                }
            }
        };
        if limit < order.jobs {
            // The claim was halved, so its size does not show that there are no more jobs.
            signal(&shared.channels.wake.0);
        }
        if shared.stop.begun.is_triggered() {
            // Dispatch may have given back the held jobs before those of this claim arrived.
            shared.take_back();
        }
        let late = start.elapsed() >= LATE && reply.as_ref().is_some_and(|reply| reply.taken.bytes >= INLINE);
        let _ = shared.channels.fetched.0.send(Fetched { claimer, order, late, reply });
    }
}

fn some(flags: &[String]) -> Option<Vec<String>> {
    (!flags.is_empty()).then(|| flags.to_vec())
}

/// Why a claim failed.
enum Failed {
    /// The database replied to the claim with an error.
    Refused(Error),
    /// The claim may have been carried out.
    InDoubt(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::InDoubt(error)
    }
}

/// Finds the job whose claim the database refuses, and skips it from now on. Returns false if the job cannot be found,
/// or if too many jobs are skipped already.
fn avoid_next(shared: &Shared, store: &mut Store, filter: &Filter, refusal: &Error) -> bool {
    let ids = shared.task_ids.read().clone();
    let only_looks = Wanted { only_looks: true, ..wanted(shared, &ids, 1, Scope::Everywhere) };
    let rows = match store.claim(filter, only_looks) {
        Ok(rows) => rows,
        Err(error) => {
            shared.error_log.retried("find the job that the database refuses", &error);
            return false;
        }
    };
    // No row: another worker has claimed the job meanwhile.
    let Some(Claimed { row, .. }) = rows.first() else { return true };
    let job_id: i64 = row.get("id");
    let Some(pause) = shared.avoided.add(job_id, Instant::now()) else { return false };
    error!(worker_id = shared.worker_id.as_str(), job_id, pause_ms = pause.as_millis() as u64, error:% = refusal;
        "the database refuses the claim of a job; claims skip this job for a while, others are not affected");
    true
}

/// The parameters of a claim of at most `limit` jobs of these tasks.
fn wanted(shared: &Shared, ids: &HashMap<i32, usize>, limit: usize, scope: Scope) -> Wanted {
    Wanted {
        limit,
        along: Along::default(),
        quick: Vec::new(),
        inline: inline(limit),
        tasks: ids.keys().copied().collect(),
        now: now_if_local(shared),
        avoid: shared.avoided.at(Instant::now()),
        only_looks: false,
        scope,
        queues: Vec::new(),
        turn: None,
    }
}

/// The largest payload that a claim of this many jobs returns with its job.
fn inline(jobs: usize) -> usize {
    INLINE / jobs.max(16)
}

/// The time that `run_at` is compared with, if it is not the database's.
fn now_if_local(shared: &Shared) -> Option<DateTime<Utc>> {
    shared.config.local_time.then(Utc::now)
}

/// Decides which claims wait until the claims of other workers have ended. Concurrent claims read all rows that the others
/// have locked, to skip them. A turn costs three statements, so most claims of a worker that is alone take none.
#[derive(Default)]
struct Turns {
    claims: u32,
    /// Until then every large claim waits for its turn.
    until: Option<Instant>,
}

impl Turns {
    /// Of this many large claims, one waits for its turn in any case, to detect other workers.
    const EVERY: u32 = 8;
    /// If a claim waits for its turn longer than this, other workers claim too.
    const CONTENDED: Duration = Duration::from_millis(2);
    /// How long every large claim then waits for its turn.
    const LASTS: Duration = Duration::from_secs(1);

    fn wants(&mut self, limit: usize, now: Instant) -> bool {
        if limit < LARGE {
            return false;
        }
        self.claims = self.claims.wrapping_add(1);
        self.until.is_some_and(|until| now < until) || self.claims % Self::EVERY == 1
    }

    fn waited(&mut self, waited: Duration, now: Instant) {
        if waited > Self::CONTENDED {
            self.until = Some(now + Self::LASTS);
        }
    }
}

/// What one claim is sent for.
struct Ask {
    order: Order,
    /// At most `order.jobs`. Fewer if the database refuses the claim of all.
    limit: usize,
    /// Looks at all jobs in any case. Without the index of queues, the first job of a queue could not be found otherwise.
    everywhere: bool,
    claimer: usize,
}

/// Claims jobs, and hands them to the threads.
fn claim(
    shared: &Shared,
    store: &mut Store,
    filter: &Filter,
    Ask { order, limit, everywhere, claimer }: Ask,
    claiming: RwLockReadGuard<()>,
    turns: &mut Turns,
    intake: &mut Intake,
) -> Result<Reply, Failed> {
    let ids = shared.task_ids.read().clone();
    add(&shared.stats.claims, 1);

    // An error of this call is about the connection. An error of the claim may be about one row.
    store.connect()?;
    let scope = loop {
        let next = match everywhere {
            true => Next::Claim(Scope::Everywhere),
            false => shared.frontier.next(limit, Instant::now()),
        };
        match next {
            Next::Claim(scope) => break scope,
            Next::Scout(count, bounds) => {
                let start = Instant::now();
                let tasks = ids.keys().copied().collect();
                let listed = store.scout(filter, tasks, count, now_if_local(shared), bounds)?;
                shared.frontier.scouted(listed, start, Instant::now());
            }
        }
    };
    let start = Instant::now();
    let turn = turns.wants(order.expected, Instant::now()).then_some(claimer);
    // Without the index, a queue's jobs are not found quickly.
    let takes_along = order.along.of_queue > 0 && filter.queue_index;
    let quick = if takes_along { quick_tasks(shared, &ids) } else { Vec::new() };
    let along = if quick.is_empty() { Along::default() } else { order.along };
    let freed = shared.frontier.take_freed(&scope);
    let wanted = Wanted {
        turn,
        along,
        quick,
        inline: inline(order.expected),
        queues: freed.clone(),
        ..wanted(shared, &ids, limit, scope.clone())
    };
    let rows = store.claim(filter, wanted).map_err(|error| match error.sqlstate() {
        Some(_) => Failed::Refused(error),
        None => Failed::InDoubt(error),
    })?;
    let (positions, firsts) = positions(&rows, &freed);
    let (is_full, along) = (firsts >= limit, rows.len() - firsts);
    let now = Instant::now();
    // Neither the wait for a turn nor the network shows how many entries the claim had to read.
    let seconds = rows.first().and_then(|claimed| claimed.row.get::<_, Option<f64>>("seconds"));
    let took = seconds.map_or(now - start, |seconds| Duration::from_secs_f64(seconds.max(0.0)));
    shared.frontier.claimed(&scope, is_full, firsts, &positions, took, now);
    if is_full {
        let claimed: HashSet<i32> = rows.iter().filter_map(|claimed| claimed.row.get("job_queue_id")).collect();
        shared.frontier.freed(freed.iter().copied().filter(|queue| !claimed.contains(queue)));
    }
    if turn.is_some() {
        turns.waited((now - start).saturating_sub(took), now);
    }
    shared.avoided.claimed(rows.iter().map(|claimed| claimed.row.get("id")));
    let mut jobs = Vec::with_capacity(rows.len());
    let mut recovered = Vec::new();
    for Claimed { row, unreadable } in &rows {
        let task = ids[&row.get::<_, i32>("task_id")];
        let was_recovered = shared.facts.has_recovery && row.get::<_, Option<bool>>("was_recovered") == Some(true);
        if was_recovered {
            recovered.push(row.get("id"));
        }
        let apart = row.get::<_, Option<i32>>("apart").map(|bytes| bytes as usize);
        match Job::from_row(row, shared.tasks[task].name.shared()) {
            Ok(job) => jobs.push(Arrival {
                task,
                job,
                alone: false,
                recovered: was_recovered,
                apart,
                unreadable: unreadable.clone(),
                series: None,
            }),
            // Its row stays locked by this worker and is not in the ledger, so reconcile gives it back.
            Err(error) => shared.in_doubt("read a claimed job", &error),
        }
    }
    add(&shared.stats.claimed, rows.len());
    if !rows.is_empty() {
        shared.stats.claim_sizes.note(rows.len() as u64);
    }
    drop(rows);
    if !recovered.is_empty() {
        // A job that kills its worker ends all jobs that run beside it, so it must run alone.
        let often_recovered = store.often_recovered(&recovered, shared.config.recovery.alone_from())?;
        jobs.iter_mut().for_each(|arrival| arrival.alone = often_recovered.contains(&arrival.job.id));
    }
    // A crash of the server may forget a claim, and the job then runs again. If jobs must not overlap, or a job has
    // only one attempt, the claim is made durable first.
    if jobs.iter().any(|Arrival { job, .. }| job.queue_id.is_some() || job.max_attempts == 1) {
        store.make_durable()?;
    }
    form_series(shared, &mut jobs);
    shared.ledger.expect(jobs.iter().map(|arrival| arrival.job.id));
    drop(claiming);
    Ok(Reply { taken: intake.take(shared, store, jobs)?, scope, is_full, along })
}

/// The ids of the tasks that are quick on average.
fn quick_tasks(shared: &Shared, ids: &HashMap<i32, usize>) -> Vec<i32> {
    let is_quick = |task: usize| shared.tasks[task].pace.average().is_some_and(|average| average <= QUICK);
    ids.iter().filter(|(_, task)| is_quick(**task)).map(|(id, _)| *id).collect()
}

/// The places of claimed jobs up to which the claim has seen all others, and the number of jobs that it was asked for.
/// Jobs that were taken along do not count: other jobs are before them. Nor are all jobs before those of the queues that
/// the claim looked at in any case.
fn positions(rows: &[Claimed], freed: &[i32]) -> (Vec<Position>, usize) {
    let freed: HashSet<i32> = freed.iter().copied().collect();
    let mut queues = HashSet::new();
    let mut is_first = |Claimed { row, .. }: &&Claimed| {
        row.get::<_, Option<i32>>("job_queue_id").is_none_or(|queue| queues.insert(queue))
    };
    let firsts: Vec<&Claimed> = rows.iter().filter(|claimed| is_first(claimed)).collect();
    let position = |Claimed { row, .. }: &&Claimed| {
        // A run_at of -infinity has no place in the order of times.
        Some(Position { id: row.get("id"), priority: row.get("priority"), run_at: row.try_get("run_at").ok()? })
    };
    let is_freed = |Claimed { row, .. }: &&&Claimed| {
        row.get::<_, Option<i32>>("job_queue_id").is_some_and(|queue| freed.contains(&queue))
    };
    (firsts.iter().filter(|claimed| !is_freed(claimed)).filter_map(position).collect(), firsts.len())
}

/// Puts the jobs of each named queue of which there are several into a series.
fn form_series(shared: &Shared, arrivals: &mut [Arrival]) {
    let mut of_queue: HashMap<i32, Vec<&mut Arrival>> = HashMap::new();
    for arrival in arrivals {
        if let Some(queue) = arrival.job.queue_id {
            of_queue.entry(queue).or_default().push(arrival);
        }
    }
    for arrivals in of_queue.into_values().filter(|arrivals| arrivals.len() > 1) {
        let series = shared.ledger.series(arrivals.len(), shared.held.sender());
        arrivals.into_iter().for_each(|arrival| arrival.series = Some(series.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_claims_wait_for_their_turn_while_others_claim() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        let wanted = |turns: &mut Turns, claims, at| (0..claims).filter(|_| turns.wants(LARGE, at)).count();
        assert!(!turns.wants(LARGE - 1, now), "a small claim is not worth the wait");
        assert_eq!(wanted(&mut turns, 16, now), 2, "two of them, to detect other workers");
        turns.waited(Turns::CONTENDED * 2, now);
        assert_eq!(wanted(&mut turns, 16, now), 16);
        turns.waited(Duration::ZERO, now);
        assert_eq!(wanted(&mut turns, 16, now + Turns::LASTS), 2);
    }
}
