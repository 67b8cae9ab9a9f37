//! gw-settle: writes outcomes to the database. Knows nothing of handlers.

use super::{Shared, TRANSIENT_TRIES, signal};
use crate::backoff::Backoff;
use crate::engine::stats::add;
use crate::engine::store::{LOCK_TIMEOUT, Role, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::hooks::{
    FailureReason, JobComplete, JobCompleteContext, JobFail, JobFailContext, JobInterrupted, JobInterruptedContext,
    JobPermanentlyFail, JobPermanentlyFailContext,
};
use crate::job::active::{ActiveJob, Failure, Outcome, Settlement};
use crate::job::series::Series;
use crossbeam_channel::{at, never, select};
use log::{error, info, warn};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The most outcomes that one statement writes.
const BATCH: usize = 1000;

/// The pauses between two tries of a deferred outcome: the first one, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long a refused outcome is retried before its job fails permanently, in units of `database_timeout`.
const REFUSAL_TIMEOUTS: u32 = 3;

/// About how many bytes of errors and payloads one statement writes: a slow link must not make it late.
const BATCH_BYTES: usize = 1 << 20;

/// The longest `last_error` that is stored.
const ERROR_BYTES: usize = 64 * 1024;

/// Writes outcomes until no more can follow, then writes the rest and ends.
pub(crate) fn settle(shared: &Shared) {
    let mut settler = Settler {
        shared,
        store: shared.store(Role::Settle),
        retry: Backoff::new(Duration::from_millis(20), Duration::from_secs(5)),
        deferred: Vec::new(),
    };
    let done = &shared.channels.done.1;
    let mut completed = DelayedOutcomes::new(shared.config.complete_delay);
    let mut failed = DelayedOutcomes::new(shared.config.fail_delay);
    loop {
        let due = [completed.due, failed.due, settler.next_due()].into_iter().flatten().min().map_or_else(never, at);
        let first = select! {
            recv(done) -> settlement => settlement.ok(),
            recv(due) -> _ => None,
            recv(shared.stop.drained.receiver()) -> _ => done.try_recv().ok(),
        };
        // All other waiting outcomes are written together with it: one job at once, ten thousand in groups.
        let room = BATCH.saturating_sub(1 + completed.jobs.len() + failed.jobs.len());
        let mut batch = Vec::new();
        for settlement in first.into_iter().chain(done.try_iter().take(room)) {
            match settlement.1 {
                Outcome::Done => completed.put(settlement),
                Outcome::Failed(_) => failed.put(settlement),
                Outcome::Snoozed(_) | Outcome::GivenBack(_) => batch.push(settlement),
            }
        }
        let over = shared.stop.drained.is_triggered();
        batch.extend(completed.take_if_due(over));
        batch.extend(failed.take_if_due(over));
        let ends = batch.is_empty() && over;
        let mut batch: Vec<Pending> = batch.into_iter().map(Pending::from).collect();
        batch.extend(settler.take_deferred(ends));
        settler.write(batch);
        if ends {
            return;
        }
    }
}

/// Outcomes of one kind that wait for more of the same kind.
struct DelayedOutcomes {
    delay: Duration,
    jobs: Vec<Settlement>,
    /// When the first of them has waited for the whole delay.
    due: Option<Instant>,
}

impl DelayedOutcomes {
    fn new(delay: Duration) -> Self {
        Self { delay, jobs: Vec::new(), due: None }
    }

    fn put(&mut self, settlement: Settlement) {
        self.due.get_or_insert_with(|| Instant::now() + self.delay);
        self.jobs.push(settlement);
    }

    fn take_if_due(&mut self, over: bool) -> Vec<Settlement> {
        let due = self.due.is_some_and(|due| Instant::now() >= due);
        if !(due || over || self.jobs.len() >= BATCH) {
            return Vec::new();
        }
        self.due = None;
        std::mem::take(&mut self.jobs)
    }
}

/// An outcome on its way to the database.
struct Pending {
    active: Arc<ActiveJob>,
    outcome: Outcome,
    /// A reply was lost, so the outcome may be written already.
    reply_lost: bool,
    deferral: Option<Deferral>,
}

/// Why an outcome is deferred, since when, and until when.
struct Deferral {
    cause: Cause,
    since: Instant,
    pause: Backoff,
    due: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// Another session holds the row of the job, or the row of its queue.
    Blocked,
    /// The database refuses to write this outcome, also by itself.
    Refused,
}

impl From<Settlement> for Pending {
    fn from((active, outcome): Settlement) -> Self {
        let outcome = match outcome {
            Outcome::Failed(failure) => Outcome::Failed(Failure { text: storable(&failure.text), ..failure }),
            other => other,
        };
        Self { active, outcome, reply_lost: false, deferral: None }
    }
}

impl Pending {
    fn is_blocked(&self) -> bool {
        self.deferral.as_ref().is_some_and(|deferral| deferral.cause == Cause::Blocked)
    }

    /// Whether to fail the job instead, after the database has refused its outcome with `error`.
    fn is_given_up(&self, error: &Error, timeout: Duration) -> bool {
        match &self.outcome {
            // Its handler has not finished: the job must run again.
            Outcome::GivenBack(_) => false,
            // The error's text or the rest of the payload cannot be stored, and a retry does not change it.
            Outcome::Failed(_) if refuses_content(error) => true,
            _ => {
                let refused_for = self.deferral.as_ref().map_or(Duration::ZERO, |deferral| deferral.since.elapsed());
                !error.is_transient() && refused_for >= timeout
            }
        }
    }
}

struct Settler<'a> {
    shared: &'a Shared,
    store: Store,
    retry: Backoff,
    /// Outcomes that the database does not write now. They wait here and delay no others.
    deferred: Vec<Pending>,
}

impl Settler<'_> {
    /// When the first deferred outcome is to be retried.
    fn next_due(&self) -> Option<Instant> {
        self.deferred.iter().filter_map(|pending| Some(pending.deferral.as_ref()?.due)).min()
    }

    /// The deferred outcomes whose pause is over, or all of them.
    fn take_deferred(&mut self, all: bool) -> Vec<Pending> {
        let now = Instant::now();
        let is_due = |pending: &Pending| all || pending.deferral.as_ref().is_none_or(|deferral| deferral.due <= now);
        let (due, waiting) = std::mem::take(&mut self.deferred).into_iter().partition(is_due);
        self.deferred = waiting;
        self.shared.deferred.store(self.deferred.len(), Ordering::Relaxed);
        due
    }

    /// Writes outcomes, each kind in statements of its own.
    fn write(&mut self, batch: Vec<Pending>) {
        let held_up = self.deferred.iter().chain(&batch).any(Pending::is_blocked);
        let (mut done, mut failed, mut back, mut snoozed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for pending in batch {
            match pending.outcome {
                Outcome::Done => done.push(pending),
                Outcome::Failed(_) => failed.push(pending),
                Outcome::GivenBack(_) => back.push(pending),
                Outcome::Snoozed(_) => snoozed.push(pending),
            }
        }
        for mut group in [done, failed, back, snoozed] {
            if held_up {
                // A session that holds one row may hold more. Ask first for the rows that are held, instead of waiting
                // for each of them.
                self.set_blocked_aside(&mut group);
            }
            for portion in portions(group) {
                self.write_group(portion, TRANSIENT_TRIES);
            }
        }
    }

    /// Writes outcomes of one kind. If the database refuses them together, writes them by halves, to find and defer the
    /// outcome that it refuses by itself. Waits while the database is away.
    fn write_group(&mut self, mut group: Vec<Pending>, mut tries: usize) {
        while !group.is_empty() {
            // An error of this call is about the connection. An error of the next one may be about one row.
            let result = self.store.connect().map_err(|error| (error, false));
            let result = result.and_then(|()| self.attempt(&group).map_err(|error| (error, true)));
            let Err((error, by_statement)) = result else {
                self.written(&group);
                self.forget_recoveries(&group);
                return;
            };
            // If the stop exceeds its deadline, this loop ends early. The error of the stop then lists these jobs. The
            // interrupt is checked as well: a call that fails at once, as on a socket without a listener, is never
            // interrupted.
            if error.kind() == ErrorKind::Stopped || self.shared.stop.interrupt.is_raised() {
                return;
            }
            let refused = by_statement && (error.sqlstate().is_some() || error.kind() == ErrorKind::Payload);
            if matches!(error.kind(), ErrorKind::Connect | ErrorKind::Timeout) {
                for pending in group.iter_mut().filter(|_| by_statement) {
                    pending.reply_lost = true;
                    pending.active.note_in_doubt();
                }
            }
            let splits = if refused && error.sqlstate() == Some(LOCK_TIMEOUT) {
                if self.set_blocked_aside(&mut group) == 0 {
                    // No row is locked: the lock was released by now, or it is a lock of the whole table.
                    self.wait_after(&error);
                }
                false
            } else if refused && (tries == 0 || !error.is_transient()) {
                tries = 0;
                if group.len() == 1 {
                    return group.into_iter().for_each(|pending| self.refused(pending, &error));
                }
                true
            } else {
                tries = tries.saturating_sub(usize::from(refused));
                self.wait_after(&error);
                // A batch that times out may be too large for a slow link.
                by_statement && error.kind() == ErrorKind::Timeout && group.len() > 1
            };
            if splits {
                let second = group.split_off(group.len() / 2);
                self.write_group(group, tries);
                group = second;
            }
        }
    }

    fn wait_after(&mut self, error: &Error) {
        self.shared.in_doubt("settle", error);
        std::thread::sleep(self.retry.next().min(Duration::from_secs(1)));
    }

    /// Defers the outcomes whose rows another session holds. Returns their number.
    fn set_blocked_aside(&mut self, group: &mut Vec<Pending>) -> usize {
        let ids: Vec<i64> = group.iter().map(|pending| pending.active.job().id).collect();
        // If this fails, the write fails too, and its error is logged.
        let blocked = if ids.is_empty() { HashSet::new() } else { self.store.blocked(&ids).unwrap_or_default() };
        let is_free = |pending: &Pending| !blocked.contains(&pending.active.job().id);
        let (free, held): (Vec<_>, Vec<_>) = std::mem::take(group).into_iter().partition(is_free);
        *group = free;
        let count = held.len();
        for pending in held {
            if !pending.is_blocked() {
                self.shared.error_log.write(|left_out| {
                    let (job, worker_id) = (pending.active.job(), self.shared.worker_id.as_str());
                    warn!(worker_id, job_id = job.id, task = &*job.task_identifier, outcome = pending.outcome.name(), left_out;
                        "another session holds the row of a job or of its queue; the outcome is written when that session releases it");
                });
            }
            self.defer(pending, Cause::Blocked);
        }
        count
    }

    /// Handles an outcome that the database refuses, for its row or its content.
    fn refused(&mut self, mut pending: Pending, error: &Error) {
        let timeout = REFUSAL_TIMEOUTS * self.shared.database.deadline();
        if pending.is_given_up(error, timeout) && self.fail_for_good(&pending, error) {
            return self.written(&[pending]);
        }
        add(&self.shared.stats.database_errors, 1);
        self.shared.error_log.write(|left_out| {
            let (job, worker_id) = (pending.active.job(), self.shared.worker_id.as_str());
            error!(worker_id, job_id = job.id, task = &*job.task_identifier, outcome = pending.outcome.name(), error:% = error, left_out;
                "the database refuses the outcome of a job; trying again, others are not affected");
        });
        // The database refuses the row now, so no earlier try whose reply was lost has written it.
        pending.reply_lost = false;
        self.defer(pending, Cause::Refused);
    }

    fn defer(&mut self, mut pending: Pending, cause: Cause) {
        pending.active.note_deferred();
        let now = Instant::now();
        let new = || Deferral { cause, since: now, pause: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE), due: now };
        let mut deferral = pending.deferral.take().filter(|deferral| deferral.cause == cause).unwrap_or_else(new);
        deferral.due = now + deferral.pause.next();
        pending.deferral = Some(deferral);
        self.deferred.push(pending);
        self.shared.deferred.store(self.deferred.len(), Ordering::Relaxed);
        // A run until empty checks then whether only such jobs are left.
        signal(&self.shared.channels.low.0);
    }

    /// The database has these outcomes: their jobs are not this worker's any more.
    fn written(&mut self, group: &[Pending]) {
        self.shared.stats.settle_sizes.note(group.len() as u64);
        self.retry.reset();
        let jobs: Vec<_> = group.iter().map(|pending| pending.active.clone()).collect();
        self.shared.ledger.settled(&jobs);
        jobs.iter().filter_map(|active| active.claim.series.as_ref()).for_each(|series| series.settled());
        // Jobs that can be claimed at once are announced by notification, too, but only a listener receives it.
        let due_again = group.iter().any(|pending| matches!(pending.outcome, Outcome::GivenBack(None)));
        let is_over = |series: &Arc<Series>| series.unsettled() == 0;
        let queue_freed_by = |active: &Arc<ActiveJob>| {
            active.job().queue_id.filter(|_| active.claim.series.as_ref().is_none_or(is_over))
        };
        let freed: Vec<i32> = jobs.iter().filter_map(queue_freed_by).collect();
        if due_again {
            self.shared.came_back();
        } else if !freed.is_empty() {
            self.shared.frontier.freed(freed.into_iter());
            signal(&self.shared.channels.freed.0);
        } else {
            // No job became available, but a run until empty waits for the last of these outcomes.
            signal(&self.shared.channels.low.0);
        }
    }

    /// Writes outcomes of one kind in one statement, and reports what became of each job.
    fn attempt(&mut self, group: &[Pending]) -> Result<()> {
        let stats = &self.shared.stats;
        add(&stats.settlements, 1);
        let actives: Vec<_> = group.iter().map(|pending| pending.active.clone()).collect();
        match &group[0].outcome {
            Outcome::Done => {
                let mut done = self.store.complete(&actives)?;
                let missing = group.iter().filter(|pending| pending.reply_lost).map(|pending| pending.active.job().id);
                let missing: Vec<i64> = missing.filter(|id| !done.contains(id)).collect();
                if !missing.is_empty() {
                    // The statement whose reply was lost may have deleted them.
                    let existing = self.store.existing(&missing)?;
                    done.extend(missing.iter().filter(|id| !existing.contains(id)));
                }
                for active in &actives {
                    if done.contains(&active.job().id) {
                        add(&stats.completed, 1);
                        self.completed(active);
                    } else {
                        self.lost(active, "completed");
                    }
                }
            }
            Outcome::Failed(_) => {
                let failures = group.iter().filter_map(|pending| match &pending.outcome {
                    Outcome::Failed(failure) => Some(failure),
                    _ => None,
                });
                let failures: Vec<_> = failures.cloned().collect();
                let texts: Vec<_> = failures.iter().map(|failure| failure.text.clone()).collect();
                let touched: HashMap<i64, bool> = self.store.fail(&actives, failures, false)?.into_iter().collect();
                for (pending, text) in group.iter().zip(&texts) {
                    let job = pending.active.job();
                    let for_good = touched.get(&job.id).copied();
                    match for_good.or(pending.reply_lost.then_some(job.attempts >= job.max_attempts)) {
                        Some(for_good) => self.failed(&pending.active, text, for_good),
                        None => self.lost(&pending.active, "failed"),
                    }
                }
            }
            Outcome::GivenBack(_) | Outcome::Snoozed(_) => {
                let delay = |pending: &Pending| match pending.outcome {
                    Outcome::Snoozed(delay) => Some(delay),
                    Outcome::GivenBack(delay) => delay,
                    Outcome::Done | Outcome::Failed(_) => None,
                };
                // If this worker has claimed the job again, the job was given back already. It must keep the new claim.
                let is_left = |pending: &&Pending| !pending.reply_lost || self.shared.ledger.is_latest(&pending.active);
                let (left, delays): (Vec<_>, Vec<_>) =
                    group.iter().filter(is_left).map(|pending| (pending.active.clone(), delay(pending))).unzip();
                let touched: HashSet<i64> = self.store.give_back(&left, &delays)?;
                for Pending { active, outcome, reply_lost, .. } in group {
                    if !*reply_lost && !touched.contains(&active.job().id) {
                        self.lost(active, "given back");
                    } else if matches!(outcome, Outcome::Snoozed(_)) {
                        add(&stats.snoozed, 1);
                    } else {
                        add(&stats.returned, 1);
                        self.interrupted(active);
                    }
                }
            }
        }
        Ok(())
    }

    /// Deletes the recovery counts of jobs that are done. These jobs are settled by now, so an error does not affect
    /// them: gw-lease deletes the counts later.
    fn forget_recoveries(&mut self, group: &[Pending]) {
        let done = group.iter().filter(|pending| matches!(pending.outcome, Outcome::Done));
        let recovered = done.map(|pending| &pending.active).filter(|active| active.claim.recovered);
        let ids: Vec<i64> = recovered.map(|active| active.job().id).collect();
        if ids.is_empty() {
            return;
        }
        if let Err(error) = self.store.forget_deleted_jobs(Some(ids)) {
            if error.kind() != ErrorKind::Stopped {
                self.shared.error_log.retried("delete the count of recoveries", &error);
            }
        }
    }

    /// Fails a job permanently, because the database refuses its outcome. Returns false if the database refuses this,
    /// too.
    fn fail_for_good(&mut self, pending: &Pending, why: &Error) -> bool {
        let active = &pending.active;
        let text = match pending.outcome {
            Outcome::Failed(_) => format!("the outcome could not be stored: {why}"),
            _ => format!("the job has run and {}, but this could not be stored: {why}", pending.outcome.name()),
        };
        let failure = Failure { text: storable(&text), ..Failure::default() };
        match self.store.fail(std::slice::from_ref(active), vec![failure], true) {
            Ok(touched) if touched.is_empty() => {
                self.lost(active, "failed");
                true
            }
            Ok(_) => {
                self.failed(active, &text, true);
                true
            }
            Err(_) => false,
        }
    }

    fn completed(&self, active: &ActiveJob) {
        let (job, worker_id, duration) = (active.job(), &self.shared.worker_id, active.ran());
        info!(worker_id, job_id = job.id, task = &*job.task_identifier, attempt = job.attempts,
            duration_ms = duration.as_millis() as u64; "job completed");
        self.shared.events.send(JobComplete, || JobCompleteContext {
            job: active.claim.job.clone(),
            worker_id: worker_id.clone(),
            duration,
        });
    }

    fn failed(&self, active: &ActiveJob, text: &str, for_good: bool) {
        let (job, worker_id) = (active.job(), &self.shared.worker_id);
        let duration_ms = active.ran().as_millis() as u64;
        add(&self.shared.stats.failed, 1);
        if for_good {
            add(&self.shared.stats.permanently_failed, 1);
            error!(worker_id, job_id = job.id, task = &*job.task_identifier, attempt = job.attempts, duration_ms,
                error = first_line(text); "job failed permanently");
        } else {
            add(&self.shared.stats.retried, 1);
            warn!(worker_id, job_id = job.id, task = &*job.task_identifier, attempt = job.attempts, duration_ms,
                error = first_line(text); "job failed, trying again later");
        }
        let (events, error) = (&self.shared.events, || text.to_owned());
        let (job, worker_id) = (|| active.claim.job.clone(), || self.shared.worker_id.clone());
        if for_good {
            events.send(JobPermanentlyFail, || JobPermanentlyFailContext {
                job: job(),
                worker_id: worker_id(),
                error: error(),
            });
        } else {
            events.send(JobFail, || JobFailContext {
                job: job(),
                worker_id: worker_id(),
                error: error(),
                will_retry: true,
            });
        }
    }

    /// Notifies observers of a job that was given back, if it had started.
    fn interrupted(&self, active: &ActiveJob) {
        if active.started().is_some() {
            self.shared.events.send(JobInterrupted, || JobInterruptedContext {
                job: active.claim.job.clone(),
                worker_id: self.shared.worker_id.clone(),
                reason: FailureReason::ShutdownAborted,
            });
        }
    }

    /// Reports a job whose row was not locked by this worker any more: another session freed or took it.
    fn lost(&self, active: &ActiveJob, outcome: &str) {
        let (job, worker_id) = (active.job(), &self.shared.worker_id);
        add(&self.shared.stats.lost, 1);
        warn!(worker_id, job_id = job.id, task = &*job.task_identifier, attempt = job.attempts, outcome;
            "job was lost: this worker does not hold its lock any more, the outcome is discarded");
        self.shared.tell_lost(active);
    }
}

/// Splits outcomes of one kind into statements of limited size.
fn portions(group: Vec<Pending>) -> Vec<Vec<Pending>> {
    let mut portions: Vec<Vec<Pending>> = Vec::new();
    let mut bytes = BATCH_BYTES;
    for pending in group {
        if bytes >= BATCH_BYTES {
            portions.push(Vec::new());
            bytes = 0;
        }
        if let Outcome::Failed(failure) = &pending.outcome {
            bytes += failure.text.len() + failure.rest.as_ref().map_or(0, String::len);
        }
        portions.last_mut().expect("one was pushed above").push(pending);
    }
    portions
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Whether the database refused the content of an outcome, and would write another one.
fn refuses_content(error: &Error) -> bool {
    // Data exceptions, constraint violations, program limits.
    error.kind() == ErrorKind::Payload
        || error.sqlstate().is_some_and(|state| ["22", "23", "54"].iter().any(|class| state.starts_with(class)))
}

/// A failure's text as the database can hold it: without NUL, and at most 64 KiB long.
fn storable(text: &str) -> String {
    let mut text = text.replace('\0', "\u{fffd}");
    if text.len() > ERROR_BYTES {
        let end = (0..=ERROR_BYTES).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_texts_are_cut_at_a_character_and_hold_no_nul() {
        assert_eq!(storable("a\0b"), "a\u{fffd}b");
        let long = storable(&"ä".repeat(ERROR_BYTES));
        assert_eq!(long.len(), ERROR_BYTES);
        assert_eq!(storable(&format!("x{}", "ä".repeat(ERROR_BYTES))).len(), ERROR_BYTES - 1);
    }
}
