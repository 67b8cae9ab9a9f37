//! The signal that ends a worker: triggered once, seen by every thread that waits. No IO.

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// A signal that can be triggered once, from any thread, and waited for by any number.
///
/// Give a clone to [`WorkerOptions::shutdown_signal`](crate::WorkerOptions::shutdown_signal) and
/// keep one to [`trigger`](Self::trigger). Source: the guide, Shutdown Signals.
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
    /// Dropped to trigger: every receiver then sees the channel closed.
    sender: Mutex<Option<Sender<Infallible>>>,
    receiver: Receiver<Infallible>,
}

impl ShutdownSignal {
    /// A signal that nobody has triggered.
    pub fn new() -> Self {
        let (sender, receiver) = bounded(0);
        Self(Arc::new(Inner { sender: Mutex::new(Some(sender)), receiver }))
    }

    /// Triggers it. Later calls change nothing.
    pub fn trigger(&self) {
        self.0.sender.lock().take();
    }

    /// Whether it was triggered.
    pub fn is_triggered(&self) -> bool {
        self.0.sender.lock().is_none()
    }

    /// Waits until it is triggered, at most `timeout`; answers whether it was.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        matches!(self.0.receiver.recv_timeout(timeout), Err(crossbeam_channel::RecvTimeoutError::Disconnected))
    }

    /// Closed once triggered: an arm for `select!`.
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
