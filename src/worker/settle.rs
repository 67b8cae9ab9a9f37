//! gw-settle: writes outcomes to the database. Knows nothing of handlers.

use super::{Shared, raise};
use crate::backoff::Backoff;
use crate::claim::{ActiveJob, Failure, Outcome, Settlement};
use crate::error::{Error, ErrorKind, Result};
use crate::hooks::{
    FailureReason, JobComplete, JobCompleteContext, JobFail, JobFailContext, JobInterrupted, JobInterruptedContext,
    JobPermanentlyFail, JobPermanentlyFailContext,
};
use crate::stats::add;
use crate::store::Store;
use crossbeam_channel::{at, never, select};
use log::{error, info, warn};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The most outcomes that one statement writes.
const BATCH: usize = 1000;

/// About how many bytes of errors and payloads one statement writes: a slow link must not make it late.
const BATCH_BYTES: usize = 1 << 20;

/// The longest `last_error` that is stored.
const ERROR_BYTES: usize = 64 * 1024;

/// Writes outcomes until everything is over, then what is left of them.
pub(crate) fn settle(shared: &Shared) {
    let mut settler = Settler {
        shared,
        store: shared.store("settle"),
        retry: Backoff::new(Duration::from_millis(20), Duration::from_secs(5)),
    };
    let done = &shared.wires.done.1;
    let mut completed = Pile::new(shared.config.complete_delay);
    let mut failed = Pile::new(shared.config.fail_delay);
    loop {
        let due = completed.due.into_iter().chain(failed.due).min().map_or_else(never, at);
        let first = select! {
            recv(done) -> settlement => settlement.ok(),
            recv(due) -> _ => None,
            recv(shared.over.receiver()) -> _ => done.try_recv().ok(),
        };
        // Whatever else waits goes along: one job is written at once, ten thousand in groups.
        let room = BATCH.saturating_sub(1 + completed.jobs.len() + failed.jobs.len());
        let mut batch = Vec::new();
        for settlement in first.into_iter().chain(done.try_iter().take(room)) {
            match settlement.1 {
                Outcome::Done => completed.put(settlement),
                Outcome::Failed(_) => failed.put(settlement),
                Outcome::Snoozed(_) | Outcome::GivenBack(_) => batch.push(settlement),
            }
        }
        let over = shared.over.is_triggered();
        batch.extend(completed.take_if_due(over));
        batch.extend(failed.take_if_due(over));
        if batch.is_empty() && over {
            return;
        }
        settler.write(batch);
    }
}

/// Outcomes of one kind that wait for more of it.
struct Pile {
    delay: Duration,
    jobs: Vec<Settlement>,
    /// When the first of them has waited for the whole delay.
    due: Option<Instant>,
}

impl Pile {
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

/// Outcomes of one kind, as one statement writes them.
enum Group {
    Done(Vec<Arc<ActiveJob>>),
    Failed(Vec<(Arc<ActiveJob>, Failure)>),
    GivenBack(Vec<(Arc<ActiveJob>, Option<Duration>)>),
    /// As given back, but the handler asked for it.
    Snoozed(Vec<(Arc<ActiveJob>, Option<Duration>)>),
}

impl Group {
    fn jobs(&self) -> Vec<Arc<ActiveJob>> {
        match self {
            Self::Done(jobs) => jobs.clone(),
            Self::Failed(jobs) => jobs.iter().map(|(active, _)| active.clone()).collect(),
            Self::GivenBack(jobs) | Self::Snoozed(jobs) => jobs.iter().map(|(active, _)| active.clone()).collect(),
        }
    }

    /// Whether it leaves jobs that can be claimed at once. Where nobody listens, no notification says so.
    fn is_due(&self) -> bool {
        matches!(self, Self::GivenBack(jobs) if jobs.iter().any(|(_, delay)| delay.is_none()))
    }

    fn halves(self) -> (Self, Self) {
        match self {
            Self::Done(mut jobs) => {
                let rest = jobs.split_off(jobs.len() / 2);
                (Self::Done(jobs), Self::Done(rest))
            }
            Self::Failed(mut jobs) => {
                let rest = jobs.split_off(jobs.len() / 2);
                (Self::Failed(jobs), Self::Failed(rest))
            }
            Self::GivenBack(mut jobs) => {
                let rest = jobs.split_off(jobs.len() / 2);
                (Self::GivenBack(jobs), Self::GivenBack(rest))
            }
            Self::Snoozed(mut jobs) => {
                let rest = jobs.split_off(jobs.len() / 2);
                (Self::Snoozed(jobs), Self::Snoozed(rest))
            }
        }
    }
}

struct Settler<'a> {
    shared: &'a Shared,
    store: Store,
    retry: Backoff,
}

impl Settler<'_> {
    fn write(&mut self, batch: Vec<Settlement>) {
        let (mut done, mut failed, mut back, mut snoozed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (active, outcome) in batch {
            match outcome {
                Outcome::Done => done.push(active),
                Outcome::Failed(failure) => failed.push((active, Failure { text: storable(&failure.text), ..failure })),
                Outcome::Snoozed(delay) => snoozed.push((active, Some(delay))),
                Outcome::GivenBack(delay) => back.push((active, delay)),
            }
        }
        self.write_group(Group::Done(done));
        for failed in portions(failed) {
            self.write_group(Group::Failed(failed));
        }
        self.write_group(Group::GivenBack(back));
        self.write_group(Group::Snoozed(snoozed));
    }

    /// Writes one group, however long it takes, and lets its jobs go. A job whose outcome the
    /// database refuses for its content is found by halving, and failed for good.
    fn write_group(&mut self, group: Group) {
        let jobs = group.jobs();
        if jobs.is_empty() {
            return;
        }
        let mut reply_lost = false;
        loop {
            match self.attempt(&group, reply_lost) {
                Ok(()) => {
                    self.shared.stats.settle_sizes.note(jobs.len() as u64);
                    self.retry.reset();
                    self.let_go(&jobs);
                    if group.is_due() {
                        raise(&self.shared.wires.freed);
                    }
                    return;
                }
                // Only a stop that has run out of time ends us here; lease's last look, or a later
                // recovery, finds the rows.
                Err(error) if error.kind() == ErrorKind::Stopped => return,
                // What fails at once, as a socket that nobody listens on, is never interrupted.
                Err(_) if self.shared.interrupt.is_raised() => return,
                Err(error) if refuses_content(&error) && jobs.len() > 1 => {
                    let (first, second) = group.halves();
                    self.write_group(first);
                    self.write_group(second);
                    return;
                }
                Err(error) if refuses_content(&error) && self.fail_for_good(&jobs[0], &error) => {
                    self.let_go(&jobs);
                    return;
                }
                Err(error) => {
                    reply_lost |= matches!(error.kind(), ErrorKind::Connect | ErrorKind::Timeout);
                    self.shared.in_doubt("settle", &error);
                    std::thread::sleep(self.retry.next().min(Duration::from_secs(1)));
                }
            }
        }
    }

    fn let_go(&self, jobs: &[Arc<ActiveJob>]) {
        self.shared.ledger.settled(jobs);
        if jobs.iter().any(|active| active.job().queue_id.is_some()) {
            raise(&self.shared.wires.freed);
        } else {
            // Nothing came free, but a worker that runs until empty waits for the last of these.
            raise(&self.shared.wires.low);
        }
    }

    /// One statement, and what became of each job.
    fn attempt(&mut self, group: &Group, reply_lost: bool) -> Result<()> {
        let stats = &self.shared.stats;
        add(&stats.settlements, 1);
        match group {
            Group::Done(jobs) => {
                let mut done = self.store.complete(jobs)?;
                let missing: Vec<i64> =
                    jobs.iter().map(|active| active.job().id).filter(|id| !done.contains(id)).collect();
                if reply_lost && !missing.is_empty() {
                    // The reply that was lost may have said: deleted.
                    let existing = self.store.existing(&missing)?;
                    done.extend(missing.iter().filter(|id| !existing.contains(id)));
                }
                for active in jobs {
                    if done.contains(&active.job().id) {
                        add(&stats.completed, 1);
                        self.completed(active);
                    } else {
                        self.lost(active, "completed");
                    }
                }
            }
            Group::Failed(jobs) => {
                let (actives, failures): (Vec<_>, Vec<_>) = jobs.iter().cloned().unzip();
                let touched: HashMap<i64, bool> = self.store.fail(&actives, failures, false)?.into_iter().collect();
                for (active, failure) in jobs {
                    let job = active.job();
                    let for_good = touched.get(&job.id).copied();
                    match for_good.or(reply_lost.then_some(job.attempts >= job.max_attempts)) {
                        Some(for_good) => self.failed(active, &failure.text, for_good),
                        None => self.lost(active, "failed"),
                    }
                }
            }
            Group::GivenBack(jobs) | Group::Snoozed(jobs) => {
                let snoozed = matches!(group, Group::Snoozed(_));
                let (actives, delays): (Vec<_>, Vec<_>) = jobs.iter().cloned().unzip();
                let touched: HashSet<i64> = self.store.give_back(&actives, &delays)?;
                for active in &actives {
                    if reply_lost || touched.contains(&active.job().id) {
                        if snoozed {
                            add(&stats.snoozed, 1);
                            continue;
                        }
                        add(&stats.returned, 1);
                        self.interrupted(active);
                    } else {
                        self.lost(active, "given back");
                    }
                }
            }
        }
        Ok(())
    }

    /// The last resort for an outcome that the database will not take: false if it takes not even that.
    fn fail_for_good(&mut self, active: &Arc<ActiveJob>, why: &Error) -> bool {
        let text = format!("the outcome could not be stored: {why}");
        let failure = Failure { text: text.clone(), ..Failure::default() };
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
                error = first_line(text); "job failed for good");
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

    /// A job was given back. That is news only if it had started.
    fn interrupted(&self, active: &ActiveJob) {
        if active.started().is_some() {
            self.shared.events.send(JobInterrupted, || JobInterruptedContext {
                job: active.claim.job.clone(),
                worker_id: self.shared.worker_id.clone(),
                reason: FailureReason::ShutdownAborted,
            });
        }
    }

    /// The row was no longer ours: somebody freed or took it while we thought it ours.
    fn lost(&self, active: &ActiveJob, outcome: &str) {
        let (job, worker_id) = (active.job(), &self.shared.worker_id);
        add(&self.shared.stats.lost, 1);
        warn!(worker_id, job_id = job.id, task = &*job.task_identifier, attempt = job.attempts, outcome;
            "job was lost: its lock is no longer ours, the outcome counts for nothing");
        self.shared.tell_lost(active);
    }
}

/// Failures as statements of a limited size write them.
fn portions(failed: Vec<(Arc<ActiveJob>, Failure)>) -> Vec<Vec<(Arc<ActiveJob>, Failure)>> {
    let mut portions: Vec<Vec<_>> = Vec::new();
    let mut bytes = BATCH_BYTES;
    for (active, failure) in failed {
        if bytes >= BATCH_BYTES {
            portions.push(Vec::new());
            bytes = 0;
        }
        bytes += failure.text.len() + failure.rest.as_ref().map_or(0, String::len);
        portions.last_mut().expect("one was pushed above").push((active, failure));
    }
    portions
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Whether the database refused what a job's outcome says, rather than being unable to take any.
fn refuses_content(error: &Error) -> bool {
    // Data exceptions, constraint violations, program limits.
    error.kind() == ErrorKind::Payload
        || error.sqlstate().is_some_and(|state| ["22", "23", "54"].iter().any(|class| state.starts_with(class)))
}

/// A failure's text as the database can hold it: without NUL, and not longer than 64 KiB.
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
