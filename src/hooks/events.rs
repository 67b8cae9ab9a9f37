//! gw-events: calls observers, one event after the other. Started only when there are any.
//! Knows nothing of jobs and of the database.

use super::{HookRegistry, Observed, WorkerShutdown, WorkerShutdownContext};
use crate::shutdown::ShutdownSignal;
use crossbeam_channel::{Receiver, Sender, bounded, select};
use log::{info, warn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How many events wait for gw-events at most.
const CAPACITY: usize = 1024;

/// An event on its way: calls its observers.
type Note = Box<dyn FnOnce(&HookRegistry) + Send>;

/// The way from the engine to the observers of one worker's life.
pub(crate) struct Events {
    pub(crate) hooks: Arc<HookRegistry>,
    worker_id: String,
    /// Absent when nobody observes.
    notes: Option<(Sender<Note>, Receiver<Note>)>,
    /// A sender has waited in vain: nobody waits again before half of what waits has been worked off.
    clogged: AtomicBool,
    dropped: AtomicU64,
    /// No more events will come.
    over: ShutdownSignal,
    /// `run` waits no longer: what is left is not delivered.
    abandoned: AtomicBool,
}

impl Events {
    pub(crate) fn new(hooks: Arc<HookRegistry>, worker_id: &str) -> Self {
        Self {
            notes: hooks.observes().then(|| bounded(CAPACITY)),
            hooks,
            worker_id: worker_id.to_owned(),
            clogged: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            over: ShutdownSignal::new(),
            abandoned: AtomicBool::new(false),
        }
    }

    /// Whether gw-events has anything to do.
    pub(crate) fn are_observed(&self) -> bool {
        self.notes.is_some()
    }

    /// How many events found no room.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Tells the observers of an event, if there are any: `context` is made only then.
    pub(crate) fn send<E: Observed>(&self, _event: E, context: impl FnOnce() -> E::Context) {
        let patience = if self.clogged.load(Ordering::Relaxed) { Duration::ZERO } else { E::PATIENCE };
        self.send_until::<E>(Instant::now() + patience, context);
    }

    fn send_until<E: Observed>(&self, deadline: Instant, context: impl FnOnce() -> E::Context) {
        let Some((notes, _)) = &self.notes else { return };
        if !self.hooks.listens::<E>() {
            return;
        }
        let context = context();
        let note: Note = Box::new(move |hooks| hooks.tell::<E>(|| context));
        if notes.send_deadline(note, deadline).is_err() {
            self.clogged.store(true, Ordering::Relaxed);
            self.drop_some(1);
        }
    }

    /// Counts events that no observer will hear of; the first time it says so.
    fn drop_some(&self, events: u64) {
        if self.dropped.fetch_add(events, Ordering::Relaxed) == 0 {
            warn!(worker_id = self.worker_id.as_str(), capacity = CAPACITY;
                "hooks cannot keep up: events are dropped; make the observers quicker (counted in stats, not warned of again)");
        }
    }

    /// The thread: calls observers until no more events come, or `run` waits no longer.
    pub(crate) fn observe(&self) {
        let Some((_, notes)) = &self.notes else { return };
        loop {
            let note = select! {
                recv(notes) -> note => note.ok(),
                recv(self.over.receiver()) -> _ => notes.try_recv().ok(),
            };
            let Some(note) = note else { return };
            if self.abandoned.load(Ordering::Acquire) {
                return;
            }
            note(&self.hooks);
            if notes.len() <= CAPACITY / 2 {
                self.clogged.store(false, Ordering::Relaxed);
            }
        }
    }

    /// The last event: the thread ends once it is delivered.
    pub(crate) fn end(&self, deadline: Instant, context: impl FnOnce() -> WorkerShutdownContext) {
        self.send_until::<WorkerShutdown>(deadline, context);
        self.over.trigger();
    }

    /// Leaves what is not delivered yet.
    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        self.over.trigger();
        let left = self.notes.as_ref().map_or(0, |(_, notes)| notes.len());
        info!(worker_id = self.worker_id.as_str(), events = left; "a hook did not return in time, its thread is left behind");
        if left > 0 {
            self.drop_some(left as u64);
        }
    }
}
