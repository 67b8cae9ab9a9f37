//! The queue of events that the caller pulls. Knows nothing of workers.

use super::boundary::{put, wanted};
use super::event::{EventValue, gw_event_t};
use super::failure::Failure;
use super::handle;
use super::inside::not_inside;
use super::status::{GW_OK, GW_STOPPED, GW_TIMEOUT, gw_status_t};
use super::wakeup::{Wakeup, deadline};
use parking_lot::Mutex;
use serde_json::json;
use std::collections::VecDeque;
use std::os::fd::RawFd;

/// Events that wait to be pulled.
pub(super) struct EventQueue {
    wakeup: Wakeup,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<EventValue>,
    /// The number of events dropped since the last one that was queued.
    dropped: u64,
    closed: bool,
}

/// The most events that wait.
const CAPACITY: usize = 1024;

impl EventQueue {
    pub(super) fn new() -> Result<Self, Failure> {
        Ok(Self { wakeup: Wakeup::new()?, waiting: Mutex::default() })
    }

    /// Readable while there may be an event.
    pub(super) fn fd(&self) -> RawFd {
        self.wakeup.fd()
    }

    pub(super) fn push(&self, event: EventValue) {
        let mut waiting = self.waiting.lock();
        if waiting.events.len() >= CAPACITY {
            waiting.dropped += 1;
            return;
        }
        let dropped = std::mem::take(&mut waiting.dropped);
        if dropped > 0 {
            waiting.events.push_back(EventValue::new(c"EventsDropped", None, json!({ "events": dropped }), None));
        }
        waiting.events.push_back(event);
        self.wakeup.notify();
    }

    /// A worker starts: more events may follow.
    pub(super) fn open(&self) {
        self.waiting.lock().closed = false;
    }

    /// The worker has ended: no more events follow.
    pub(super) fn close(&self) {
        self.waiting.lock().closed = true;
        self.wakeup.notify();
    }

    /// The next event. Otherwise GW_TIMEOUT, or GW_STOPPED if no more events follow.
    pub(super) fn next(&self, timeout_ms: i64) -> Result<Result<EventValue, gw_status_t>, Failure> {
        // An event that is already there is returned even where the call must not wait.
        let may_wait = if timeout_ms == 0 { Ok(()) } else { not_inside("wait for an event") };
        let until = deadline(if may_wait.is_ok() { timeout_ms } else { 0 });
        match self.wakeup.wait_for(until, || self.look()) {
            Some(found) => Ok(found),
            None => may_wait.map(|()| Err(GW_TIMEOUT)),
        }
    }

    /// Looks once, without waiting.
    fn look(&self) -> Option<Result<EventValue, gw_status_t>> {
        let mut waiting = self.waiting.lock();
        match waiting.events.pop_front() {
            Some(event) => Some(Ok(event)),
            None => waiting.closed.then_some(Err(GW_STOPPED)),
        }
    }
}

/// Writes the next event of a queue to `event`.
pub(super) fn give_next(
    queue: &EventQueue,
    timeout_ms: i64,
    event: *mut *mut gw_event_t,
) -> Result<gw_status_t, Failure> {
    wanted("event", event)?;
    match queue.next(timeout_ms)? {
        Err(status) => Ok(status),
        Ok(found) => {
            // SAFETY: `event` is not NULL; see "Rules" in the header.
            unsafe { put(event, handle::try_give(found)?) };
            Ok(GW_OK)
        }
    }
}
