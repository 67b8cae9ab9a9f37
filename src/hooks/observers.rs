//! gw-events: calls observers, one event after the other. The thread starts only if an observer is registered.
//! Knows neither jobs nor the database.

use super::{HookRegistry, Observed, WorkerShutdown, WorkerShutdownContext};
use crate::shutdown::ShutdownSignal;
use crossbeam_channel::{Receiver, Sender, bounded, select};
use log::{info, warn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// How many events the channel to gw-events holds at most.
const CAPACITY: usize = 1024;

/// An event in the channel. Calling it calls the observers.
type Note = Box<dyn FnOnce(&HookRegistry) + Send>;

/// The channel from the engine to the observers, for one run of a worker.
pub(crate) struct Events {
    pub(crate) hooks: Arc<HookRegistry>,
    worker_id: String,
    /// `None` if no observer is registered.
    notes: Option<(Sender<Note>, Receiver<Note>)>,
    /// Set after a send timed out. Senders do not wait again until the queue is half empty.
    congested: AtomicBool,
    /// How many events were dropped because the channel was full.
    dropped: AtomicU64,
    /// Triggered after the last event was sent.
    over: ShutdownSignal,
    /// True once `run` has stopped waiting for gw-events. The remaining events are then dropped.
    abandoned: AtomicBool,
}

impl Events {
    pub(crate) fn new(hooks: Arc<HookRegistry>, worker_id: &str) -> Self {
        Self {
            notes: hooks.observes().then(|| bounded(CAPACITY)),
            hooks,
            worker_id: worker_id.to_owned(),
            congested: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            over: ShutdownSignal::new(),
            abandoned: AtomicBool::new(false),
        }
    }

    /// Returns true if gw-events must run.
    pub(crate) fn are_observed(&self) -> bool {
        self.notes.is_some()
    }

    /// How many events were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Sends an event to its observers. `context` is called only if there are any.
    pub(crate) fn send<E: Observed>(&self, _event: E, context: impl FnOnce() -> E::Context) {
        let waits = !self.congested.load(Ordering::Relaxed);
        self.send_until::<E>(waits.then(|| Instant::now() + E::SEND_TIMEOUT), context);
    }

    /// Waits for room until the deadline, or not at all. A deadline of now would still yield the processor several times.
    fn send_until<E: Observed>(&self, deadline: Option<Instant>, context: impl FnOnce() -> E::Context) {
        let Some((notes, _)) = &self.notes else { return };
        if !self.hooks.listens::<E>() {
            return;
        }
        let context = context();
        let note: Note = Box::new(move |hooks| hooks.notify::<E>(|| context));
        let is_sent = match deadline {
            Some(deadline) => notes.send_deadline(note, deadline).is_ok(),
            None => notes.try_send(note).is_ok(),
        };
        if !is_sent {
            self.congested.store(true, Ordering::Relaxed);
            self.drop_some(1);
        }
    }

    /// Counts dropped events. Logs a warning the first time.
    fn drop_some(&self, events: u64) {
        if self.dropped.fetch_add(events, Ordering::Relaxed) == 0 {
            warn!(worker_id = self.worker_id.as_str(), capacity = CAPACITY;
                "observers are too slow, events are dropped; make the observers faster \
                 (stats count the dropped events, this warning is not repeated)");
        }
    }

    /// The loop of the thread. Calls observers until the last event is delivered, or `run` has stopped waiting.
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
                self.congested.store(false, Ordering::Relaxed);
            }
        }
    }

    /// Sends the last event. The thread ends once it is delivered.
    pub(crate) fn end(&self, deadline: Instant, context: impl FnOnce() -> WorkerShutdownContext) {
        self.send_until::<WorkerShutdown>(Some(deadline), context);
        self.over.trigger();
    }

    /// Drops the events that are not delivered yet.
    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        self.over.trigger();
        let left = self.notes.as_ref().map_or(0, |(_, notes)| notes.len());
        info!(worker_id = self.worker_id.as_str(), events = left; "a hook did not return in time; its thread is left behind");
        if left > 0 {
            self.drop_some(left as u64);
        }
    }
}
