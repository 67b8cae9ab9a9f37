//! Operating system signals: one registration for the whole process, serving every worker that runs.
//! Knows nothing of how a worker stops.

use crate::shutdown::ShutdownSignal;
use log::warn;
use parking_lot::Mutex;
use std::sync::Once;

/// What a signal triggers in one worker: the first one, the second one.
struct Listener {
    id: u64,
    stop: ShutdownSignal,
    cancel: ShutdownSignal,
}

static LISTENERS: Mutex<Vec<Listener>> = Mutex::new(Vec::new());
static REGISTER: Once = Once::new();

/// The exit status of a process that SIGINT ended, as shells report it.
const INTERRUPTED: i32 = 130;

/// Keeps a worker's signals connected until it is dropped.
pub(crate) struct Guard(u64);

impl Drop for Guard {
    fn drop(&mut self) {
        LISTENERS.lock().retain(|listener| listener.id != self.0);
    }
}

/// From now on the first signal triggers `stop`, the second `cancel`; a third, or any while no worker
/// runs, ends the process.
pub(crate) fn listen(stop: &ShutdownSignal, cancel: &ShutdownSignal) -> Guard {
    let mut listeners = LISTENERS.lock();
    let id = listeners.iter().map(|listener| listener.id).max().map_or(0, |last| last + 1);
    listeners.push(Listener { id, stop: stop.clone(), cancel: cancel.clone() });
    drop(listeners);
    REGISTER.call_once(|| {
        if let Err(error) = ctrlc::try_set_handler(on_signal) {
            warn!(error:% = error; "signals are handled elsewhere and do not stop the worker");
        }
    });
    Guard(id)
}

fn on_signal() {
    let listeners = LISTENERS.lock();
    let (fresh, told): (Vec<_>, Vec<_>) = listeners.iter().partition(|listener| !listener.stop.is_triggered());
    if !fresh.is_empty() {
        fresh.iter().for_each(|listener| listener.stop.trigger());
    } else if told.iter().any(|listener| !listener.cancel.is_triggered()) {
        told.iter().for_each(|listener| listener.cancel.trigger());
    } else {
        std::process::exit(INTERRUPTED);
    }
}
