//! gw-cron: adds the jobs of crontab entries. All schedulers use the database's clock, and the scheduler that takes a
//! tick in the database adds its job. Knows nothing of the workers that run it.

use super::Shared;
use crate::backoff::Backoff;
use crate::cron::crontab::Cron;
use crate::cron::schedule::{ceiling, floor};
use crate::engine::stats::add;
use crate::engine::store::{KnownCrontab, Role, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::hooks::{CronItem, CronJobScheduled, CronJobScheduledContext, CronTick, CronTickContext};
use chrono::{DateTime, TimeDelta, Utc};
use log::{debug, info, warn};
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// If the pause between two schedulers is at most this long, it counts as a restart, and no tick is lost.
const RESTART: TimeDelta = TimeDelta::minutes(5);

/// Runs until the stop. No database error ends it.
pub(crate) fn schedule(shared: &Shared, crons: &[Cron]) {
    let entries = crons.iter().map(|cron| Entry { cron, next: None }).collect();
    let mut scheduler = Scheduler { shared, store: shared.store(Role::Cron), entries, start: None, notified: None };
    let mut retry = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    loop {
        let pause = match scheduler.tick() {
            Ok(pause) => {
                retry.reset();
                pause
            }
            Err(error) if error.kind() == ErrorKind::Stopped => return,
            Err(error) => {
                add(&shared.stats.database_errors, 1);
                warn!(worker_id = shared.worker_id.as_str(), doing = "schedule crontab entries", error:% = error;
                    "the database failed, trying again");
                retry.next()
            }
        };
        if shared.stop.begun.wait_timeout(pause) {
            return;
        }
    }
}

/// A crontab entry, and the tick at which this scheduler goes on with it.
struct Entry<'a> {
    cron: &'a Cron,
    /// The first tick that is not decided yet; `None` if the entry is never due again.
    next: Option<DateTime<Utc>>,
}

struct Scheduler<'a> {
    shared: &'a Shared,
    store: Store,
    entries: Vec<Entry<'a>>,
    /// The database's time when this scheduler first read it.
    start: Option<DateTime<Utc>>,
    /// The minute that observers were notified of.
    notified: Option<DateTime<Utc>>,
}

impl Scheduler<'_> {
    /// Adds the jobs of all ticks up to now, in their order. Returns how long to wait for the next tick.
    fn tick(&mut self) -> Result<Duration> {
        let asked = Instant::now();
        let identifiers = self.identifiers(|_| true);
        let (now, known) = self.store.cron_look(identifiers.clone())?;
        let start = match self.start {
            Some(start) => start,
            None => self.begin(now, &known, identifiers)?,
        };
        for entry in &mut self.entries {
            let last = known.get(entry.cron.identifier()).and_then(|known| known.last_execution);
            // All ticks up to the last one are taken, by this scheduler or by another.
            if let Some(last) = last.filter(|last| entry.next.is_some_and(|next| next <= *last)) {
                entry.next = entry.cron.schedule.next_after(last);
            }
        }
        if self.notified.replace(floor(now)) != Some(floor(now)) {
            let crontabs = || self.entries.iter().map(|entry| item(entry.cron)).collect();
            self.shared.events.send(CronTick, || CronTickContext { timestamp: floor(now), crontabs: crontabs() });
        }
        let failed = self.take_ticks(start, now)?;
        if self.shared.facts.has_crontabs {
            let decided = self.identifiers(|identifier| !failed.contains_key(identifier));
            self.store.cron_decide(decided, floor(now))?;
        }
        if let Some((identifier, error)) = failed.into_iter().next() {
            return Err(error.context(format_args!("crontab entry {identifier:?}")));
        }
        let wait = (floor(now) + TimeDelta::minutes(1) - now).to_std().unwrap_or_default() + Duration::from_millis(1);
        Ok(wait.saturating_sub(asked.elapsed()))
    }

    /// Takes the due ticks. If the database refuses a tick, its entry stays at this tick and delays no other entry.
    fn take_ticks(&mut self, start: DateTime<Utc>, now: DateTime<Utc>) -> Result<HashMap<String, Error>> {
        let mut failed = HashMap::new();
        loop {
            let due = self.entries.iter_mut().filter(|entry| !failed.contains_key(entry.cron.identifier()));
            let earliest = due.filter_map(|entry| entry.next.map(|tick| (tick, entry))).min_by_key(|(tick, _)| *tick);
            let Some((tick, entry)) = earliest.filter(|(tick, _)| *tick <= now) else { return Ok(failed) };
            if self.shared.stop.begun.is_triggered() {
                return Err(Error::new(ErrorKind::Stopped, "the worker is stopping"));
            }
            let cron = entry.cron;
            let (identifier, task) = (cron.identifier(), cron.task_identifier());
            let job = cron.job_at(tick, tick < start);
            let (job, vetoed) = match self.shared.events.hooks.schedule(job.clone()) {
                Ok(job) => (job, None),
                Err(veto) => (job, Some(veto)),
            };
            match self.store.cron_tick(identifier, tick, job, vetoed.is_none()) {
                Ok(added) => {
                    entry.next = cron.schedule.next_after(tick);
                    // Only here it is certain whether this scheduler added a job for the tick.
                    match (added, vetoed) {
                        (Some(job_id), _) => {
                            info!(worker_id = self.shared.worker_id.as_str(), crontab = identifier, task, job_id, tick:% = tick.to_rfc3339(),
                            backfilled = tick < start; "crontab job scheduled");
                            let context = || CronJobScheduledContext { crontab: item(cron), scheduled_at: tick };
                            self.shared.events.send(CronJobScheduled, context);
                        }
                        (None, Some(veto)) => {
                            warn!(worker_id = self.shared.worker_id.as_str(), crontab = identifier, task, tick:% = tick.to_rfc3339(), error:% = veto;
                            "a hook left out the tick")
                        }
                        (None, None) => {
                            debug!(worker_id = self.shared.worker_id.as_str(), crontab = identifier, task, tick:% = tick.to_rfc3339(); "another scheduler took the tick")
                        }
                    }
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::Database | ErrorKind::Conflict) && !error.breaks_session() =>
                {
                    failed.insert(identifier.to_owned(), error);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Registers new entries, and finds the tick at which each known one goes on.
    fn begin(
        &mut self,
        now: DateTime<Utc>,
        known: &HashMap<String, KnownCrontab>,
        identifiers: Vec<String>,
    ) -> Result<DateTime<Utc>> {
        let decided = match self.shared.facts.has_crontabs {
            true => self.store.cron_decided(identifiers.clone())?,
            false => HashMap::new(),
        };
        self.store.cron_register(identifiers, now)?;
        for entry in &mut self.entries {
            let identifier = entry.cron.identifier();
            let from = match known.get(identifier) {
                Some(known) => {
                    let fill = TimeDelta::from_std(entry.cron.fill.duration()).unwrap_or(TimeDelta::zero());
                    begins(now, fill, known, decided.get(identifier).copied())
                }
                None => now,
            };
            entry.next = entry.cron.schedule.next_after(ceiling(from) - TimeDelta::microseconds(1));
            if entry.next.is_none() {
                warn!(worker_id = self.shared.worker_id.as_str(), crontab = identifier; "crontab entry is never due");
            }
        }
        self.start = Some(now);
        Ok(now)
    }

    fn identifiers(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let names: HashSet<&str> = self.entries.iter().map(|entry| entry.cron.identifier()).collect();
        names.into_iter().filter(|name| wanted(name)).map(str::to_owned).collect()
    }
}

/// An entry as observers receive it.
fn item(cron: &Cron) -> CronItem {
    CronItem { identifier: cron.identifier().to_owned(), task_identifier: cron.task_identifier().to_owned() }
}

/// The first moment whose ticks a scheduler that starts now must decide.
fn begins(now: DateTime<Utc>, fill: TimeDelta, known: &KnownCrontab, decided: Option<DateTime<Utc>>) -> DateTime<Utc> {
    let since = known.last_execution.unwrap_or(known.known_since);
    let filled = now.checked_sub_signed(fill).map_or(since, |at| at.max(since));
    // A scheduler was active at this time. The ticks that became due since then may be left to this one.
    let last_seen = decided.max(known.last_execution);
    match last_seen {
        Some(seen) if floor(now) - seen <= RESTART => filled.min(floor(seen) + TimeDelta::minutes(1)).min(now),
        _ => filled.min(now),
    }
}
