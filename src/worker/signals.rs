//! Operating system signals: one registration for the whole process, used by every running worker.
//! Knows nothing of how a worker stops.

use crate::shutdown::ShutdownSignal;
use log::warn;
use parking_lot::Mutex;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::{emulate_default_handler, signal_name};
use std::sync::Once;
use std::{fs, io, thread};

/// What the first and the second signal trigger in one worker.
struct SignalListener {
    id: u64,
    stop: ShutdownSignal,
    cancel: ShutdownSignal,
}

static LISTENERS: Mutex<Vec<SignalListener>> = Mutex::new(Vec::new());
static REGISTER: Once = Once::new();

/// Keeps a worker's signals connected until it is dropped.
pub(crate) struct Guard(u64);

impl Drop for Guard {
    fn drop(&mut self) {
        LISTENERS.lock().retain(|listener| listener.id != self.0);
    }
}

/// From now on the first signal triggers `stop` and the second `cancel`. A third one ends the process, and so does any
/// signal while no worker runs.
pub(crate) fn listen(stop: &ShutdownSignal, cancel: &ShutdownSignal) -> Guard {
    let mut listeners = LISTENERS.lock();
    let id = listeners.iter().map(|listener| listener.id).max().map_or(0, |last| last + 1);
    listeners.push(SignalListener { id, stop: stop.clone(), cancel: cancel.clone() });
    drop(listeners);
    REGISTER.call_once(|| {
        if let Err(error) = register() {
            warn!(error:% = error; "no signal stops the worker");
        }
    });
    Guard(id)
}

/// Handles the signals that have their default action. An ignored signal stays ignored: a shell ignores signals of what
/// it starts in the background, and nohup of what it starts. A signal that the application handles stays the
/// application's.
fn register() -> io::Result<()> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let (ignored, handled) = (SignalSet::read(&status, "SigIgn:"), SignalSet::read(&status, "SigCgt:"));
    for signal in [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| handled.has(*signal)) {
        warn!(signal = signal_name(signal); "a signal is handled elsewhere and does not stop the worker");
    }
    let ours = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| !ignored.has(*signal) && !handled.has(*signal));
    let mut signals = Signals::new(ours)?;
    thread::Builder::new().name("gw-signals".into()).spawn(move || signals.forever().for_each(on_signal))?;
    Ok(())
}

fn on_signal(signal: i32) {
    let listeners = LISTENERS.lock();
    let (fresh, stopping): (Vec<_>, Vec<_>) = listeners.iter().partition(|listener| !listener.stop.is_triggered());
    if !fresh.is_empty() {
        fresh.iter().for_each(|listener| listener.stop.trigger());
    } else if stopping.iter().any(|listener| !listener.cancel.is_triggered()) {
        stopping.iter().for_each(|listener| listener.cancel.trigger());
    } else if let Err(error) = emulate_default_handler(signal) {
        warn!(error:% = error; "cannot end the process as the signal would");
    }
}

/// A set of signals as Linux writes it: bit `n - 1` of a hexadecimal number stands for signal `n`. On other systems the
/// set is empty, because it is not known.
struct SignalSet(u64);

impl SignalSet {
    fn read(status: &str, name: &str) -> Self {
        let digits = status.lines().find_map(|line| line.strip_prefix(name));
        Self(digits.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0))
    }

    fn has(&self, signal: i32) -> bool {
        self.0 >> (signal - 1) & 1 == 1
    }
}
