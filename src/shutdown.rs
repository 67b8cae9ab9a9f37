//! The signal that stops a worker: triggered once, seen by every waiting thread. No IO.

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// A signal that any thread can trigger once. Any number of threads can wait for it.
///
/// Give a clone to [`WorkerOptions::shutdown_signal`](crate::WorkerOptions::shutdown_signal), and keep another clone to
/// [`trigger`](Self::trigger) it. See the deployment guide, section Shutdown Signals (docs/deployment-guide.async.md).
///
/// ```
/// use graphile_worker::ShutdownSignal;
/// let stop = ShutdownSignal::new();
/// let elsewhere = stop.clone();
/// std::thread::spawn(move || elsewhere.trigger());
/// assert!(stop.wait_timeout(std::time::Duration::from_secs(5)));
/// ```
#[derive(Clone)]
pub struct ShutdownSignal(Arc<Inner>);

struct Inner {
    /// Dropped by `trigger`. Every receiver then sees the channel as closed.
    sender: Mutex<Option<Sender<Infallible>>>,
    receiver: Receiver<Infallible>,
}

impl ShutdownSignal {
    /// Creates a signal that is not triggered yet.
    pub fn new() -> Self {
        let (sender, receiver) = bounded(0);
        Self(Arc::new(Inner { sender: Mutex::new(Some(sender)), receiver }))
    }

    /// Triggers the signal. Later calls do nothing.
    pub fn trigger(&self) {
        self.0.sender.lock().take();
    }

    /// Returns true if the signal was triggered.
    pub fn is_triggered(&self) -> bool {
        self.0.sender.lock().is_none()
    }

    /// Waits until the signal is triggered, for at most `timeout`. Returns true if it was triggered.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        matches!(self.0.receiver.recv_timeout(timeout), Err(crossbeam_channel::RecvTimeoutError::Disconnected))
    }

    /// A channel for an arm of `select!`. It is closed once the signal is triggered.
    pub(crate) fn receiver(&self) -> &Receiver<Infallible> {
        &self.0.receiver
    }
}

impl Default for ShutdownSignal {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for ShutdownSignal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ShutdownSignal").field(&self.is_triggered()).finish()
    }
}
