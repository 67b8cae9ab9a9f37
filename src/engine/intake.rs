//! Passes the jobs of a claim to the threads. Reads the payloads that the claim left out, a portion at a time. Gives
//! back the jobs that do not fit into the budget. Runs on gw-fetch; knows nothing of handlers.

use super::Shared;
use crate::engine::stats::add;
use crate::engine::store::Store;
use crate::error::{Error, Result};
use crate::hooks::{JobFetch, JobFetchContext};
use crate::job::Job;
use crate::job::active::{Arrival, Entered, Failure};
use crate::text::is_untranslatable;
use log::{error, warn};
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// How long a job waits if it was claimed again before its older claim has ended.
const DOUBLED_DELAY: Duration = Duration::from_secs(5);

/// About how many bytes of payloads one statement reads. The jobs of a portion start while the next one is read.
const PORTION: usize = 1 << 20;

/// For how long portions are read. The remaining jobs are then given back, so that more urgent jobs do not wait for
/// them.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a job waits after two failed reads of its payload in a row.
const UNREADABLE_DELAY: Duration = Duration::from_secs(60);

/// What was kept of a claim.
#[derive(Default)]
pub(crate) struct Taken {
    /// How many jobs of each task, by the task's place in `Shared::tasks`.
    pub(crate) jobs: HashMap<usize, usize>,
    /// The size of their payloads, in bytes.
    pub(crate) bytes: usize,
    /// Set if some jobs were given back: how many bytes were held at that moment.
    pub(crate) cut: Option<usize>,
}

/// Processes the claims of one fetch thread.
#[derive(Default)]
pub(crate) struct Intake {
    /// The job whose payload was read alone by the last read, which failed.
    unread: Option<i64>,
}

impl Intake {
    /// Hands out the jobs of a claim, in their order. Gives back those that there is no room or no time for.
    ///
    /// # Errors
    /// Any error of a statement that reads payloads. The jobs that were not handed out by then are given back.
    pub(crate) fn take(&mut self, shared: &Shared, store: &mut Store, arrivals: Vec<Arrival>) -> Result<Taken> {
        let start = Instant::now();
        let mut taken = Taken::default();
        let mut rest = VecDeque::from(arrivals);
        // How many times larger payloads are than their stored size.
        let mut inflation = None;
        while !rest.is_empty() {
            let held = shared.ledger.held_bytes();
            let mut count = portion(&rest, inflation, shared.config.held_bytes.saturating_sub(held));
            if count == 0 && held == 0 {
                // The job is larger than the budget, so it is held alone.
                count = 1;
            }
            let mut portion: Vec<Arrival> = rest.drain(..count).collect();
            let apart: Vec<i64> =
                portion.iter().filter(|arrival| arrival.apart.is_some()).map(|arrival| arrival.job.id).collect();
            let over = shared.stop.begun.is_triggered() || start.elapsed() >= PATIENCE;
            if portion.is_empty() || (over && !apart.is_empty()) {
                taken.cut = Some(held);
                give_back(shared, portion.into_iter().chain(rest), None);
                return Ok(taken);
            }
            if !apart.is_empty() {
                let payloads = match store.payloads(&apart) {
                    Ok(payloads) => payloads,
                    Err(error) => return Err(self.fails(shared, portion, rest.into(), error)),
                };
                self.unread = None;
                inflation = inflate(&mut portion, payloads, inflation, shared);
            }
            for arrival in &portion {
                *taken.jobs.entry(arrival.task).or_default() += 1;
                taken.bytes += arrival.job.payload.len();
            }
            hand_out(shared, portion);
        }
        Ok(taken)
    }

    /// Gives back the jobs that a failed read left over. If the payload of a job could not be read twice in a row, the
    /// job waits. It then does not delay the jobs behind it.
    fn fails(&mut self, shared: &Shared, portion: Vec<Arrival>, rest: Vec<Arrival>, error: Error) -> Error {
        let (apart, inline): (Vec<_>, Vec<_>) = portion.into_iter().partition(|arrival| arrival.apart.is_some());
        give_back(shared, inline.into_iter().chain(rest), None);
        let [Arrival { job: Job { id, task_identifier, .. }, apart: stored, .. }] = apart.as_slice() else {
            self.unread = None;
            let error = error.context(format_args!("reading the payloads of {} jobs", apart.len()));
            give_back(shared, apart, None);
            return error;
        };
        let (id, stored) = (*id, stored.unwrap_or_default());
        if is_untranslatable(&error) {
            let why = "payload is not valid UTF-8, or has a character that UTF-8 does not have";
            let unreadable = |arrival| Arrival { unreadable: Some(why.to_owned()), ..arrival };
            hand_out(shared, apart.into_iter().map(unreadable).collect());
            return error.context(format_args!("reading the payload of job {id}"));
        }
        let again = self.unread == Some(id);
        if again {
            error!(worker_id = shared.worker_id.as_str(), job_id = id, task = &**task_identifier, stored_bytes = stored, error:%;
                "the payload of a job cannot be read; the job waits a minute");
        }
        self.unread = (!again).then_some(id);
        let error = error.context(format_args!("reading the payload of job {id}, of {stored} stored bytes"));
        give_back(shared, apart, again.then_some(UNREADABLE_DELAY));
        error
    }
}

/// How many of the first jobs form a portion that fits into `room` bytes; 0 if not even one fits.
fn portion(rest: &VecDeque<Arrival>, inflation: Option<f64>, room: usize) -> usize {
    let (mut bytes, mut apart) = (0, 0);
    for (count, Arrival { job, apart: stored, .. }) in rest.iter().enumerate() {
        apart += usize::from(stored.is_some());
        bytes += stored.map_or(job.payload.len(), |stored| (stored as f64 * inflation.unwrap_or(1.0)) as usize);
        // Jobs that have their payload already do not wait for one that must be read.
        let first_to_read = apart == 1 && stored.is_some();
        // Until a payload has been read, only stored sizes are known, so the first read is for one payload.
        let one_is_enough = apart > 1 && inflation.is_none();
        if bytes > room || (count > 0 && (bytes > PORTION || first_to_read || one_is_enough)) {
            return count;
        }
    }
    rest.len()
}

/// Moves the payloads into their jobs. If a payload is missing, its job is not this worker's any more and is given
/// back. Returns the growth of the most compressed payload, as a factor of its stored size.
fn inflate(
    portion: &mut Vec<Arrival>,
    mut payloads: HashMap<i64, Vec<u8>>,
    mut inflation: Option<f64>,
    shared: &Shared,
) -> Option<f64> {
    let (here, gone) = std::mem::take(portion)
        .into_iter()
        .partition(|arrival: &Arrival| arrival.apart.is_none() || payloads.contains_key(&arrival.job.id));
    *portion = here;
    give_back(shared, Vec::into_iter(gone), None);
    for arrival in portion {
        let Some(stored) = arrival.apart else { continue };
        arrival.job.payload = payloads.remove(&arrival.job.id).unwrap_or_default();
        let grown = arrival.job.payload.len() as f64 / stored.max(1) as f64;
        inflation = Some(inflation.unwrap_or(1.0).max(grown));
    }
    inflation
}

/// Enters jobs into the ledger, for threads to start.
fn hand_out(shared: &Shared, arrivals: Vec<Arrival>) {
    let why = |arrival: &Arrival| Some((arrival.job.id, arrival.unreadable.clone()?));
    let unreadable: HashMap<i64, String> = arrivals.iter().filter_map(why).collect();
    for active in enter(shared, arrivals).startable {
        if let Some(why) = unreadable.get(&active.job().id) {
            let text = format!("the job cannot be read: {why}");
            active.refuse(Failure { text, for_good: true, ..Failure::default() });
            continue;
        }
        shared
            .events
            .send(JobFetch, || JobFetchContext { job: active.claim.job.clone(), worker_id: shared.worker_id.clone() });
        match active.claim.series.clone() {
            Some(series) => series.append(active),
            None => shared.held.put(active),
        }
    }
    shared.notify_puller();
}

/// Enters jobs into the ledger, and gives them back.
fn give_back(shared: &Shared, arrivals: impl IntoIterator<Item = Arrival>, delay: Option<Duration>) {
    for active in enter(shared, arrivals).startable {
        active.give_back(delay);
    }
}

fn enter(shared: &Shared, arrivals: impl IntoIterator<Item = Arrival>) -> Entered {
    let mut entered = shared.ledger.enter(arrivals, &shared.channels.done.0);
    add(&shared.stats.lost, entered.voided.len());
    entered.voided.iter().for_each(|active| shared.tell_lost(active));
    for active in entered.doubled.drain(..) {
        let job = active.job();
        warn!(worker_id = shared.worker_id.as_str(), job_id = job.id, task = &*job.task_identifier, attempt = job.attempts;
            "a job was claimed again while this worker still has an older claim of it; it waits until that claim has ended");
        active.give_back(Some(DOUBLED_DELAY));
    }
    entered
}
