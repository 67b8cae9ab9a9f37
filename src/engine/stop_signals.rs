//! The steps of a stop, each a signal of its own.

use crate::db::session::Interrupt;
use crate::shutdown::ShutdownSignal;

/// The signals that end the threads of one start, in the order in which they are triggered.
pub(crate) struct StopSignals {
    /// Claiming ends, and jobs that no thread has started go back.
    pub(crate) begun: ShutdownSignal,
    /// The stop does not wait for running jobs any longer. Only a second signal or an abort triggers it.
    pub(crate) cancelled: ShutdownSignal,
    /// No more outcomes follow: settle writes what it has, and listen ends.
    pub(crate) drained: ShutdownSignal,
    /// Settle has ended: lease gives back the jobs that are left, and ends.
    pub(crate) settled: ShutdownSignal,
    /// Ends the calls that still wait for the database.
    pub(crate) interrupt: Interrupt,
}

impl StopSignals {
    pub(crate) fn new() -> Self {
        Self {
            begun: ShutdownSignal::new(),
            cancelled: ShutdownSignal::new(),
            drained: ShutdownSignal::new(),
            settled: ShutdownSignal::new(),
            interrupt: Interrupt::new(),
        }
    }

    /// Triggers all of them at once, for a start that failed.
    pub(crate) fn trigger_all(&self) {
        self.begun.trigger();
        self.drained.trigger();
        self.settled.trigger();
        self.interrupt.raise();
    }
}
