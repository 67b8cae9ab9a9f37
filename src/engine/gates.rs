//! The gates: they keep claims from being sent and jobs from being started. Knows no channel of jobs and no statement.

use super::signal;
use crate::engine::stats::Health;
use crate::lock::held;
use crate::shutdown::ShutdownSignal;
use crossbeam_channel::Sender;
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The gates of one worker.
pub(crate) struct Gates {
    /// Closed before the first heartbeat, and while it is not known which held jobs are still this worker's.
    pub(crate) doubt: Gate,
    /// Closed while one job runs alone.
    pub(crate) exclusive: Gate,
    /// Read-locked from before a claim is sent until the ledger has its jobs.
    claiming: RwLock<()>,
    health: Arc<Health>,
    /// After a longer time without a heartbeat, other workers may have taken this one's jobs.
    longest_silence: Duration,
    /// To gw-lease: find out what this worker holds.
    reconcile: Sender<()>,
}

impl Gates {
    pub(crate) fn new(health: Arc<Health>, longest_silence: Duration, reconcile: Sender<()>) -> Self {
        Self {
            doubt: Gate::closed(),
            exclusive: Gate::default(),
            claiming: RwLock::new(()),
            health,
            longest_silence,
            reconcile,
        }
    }

    /// Waits while it is not known which jobs are this worker's. Called before each start of a job: a worker that was
    /// silent for several heartbeats may have been considered dead, and its jobs may run elsewhere.
    pub(crate) fn pass_doubt(&self) {
        self.look_for_silence();
        self.doubt.pass();
    }

    /// Whether a job must not start now. Never waits.
    pub(crate) fn are_closed(&self) -> bool {
        self.are_in_doubt() || self.exclusive.holds()
    }

    /// Whether it is not known which jobs are this worker's.
    pub(crate) fn are_in_doubt(&self) -> bool {
        self.look_for_silence();
        self.doubt.holds()
    }

    fn look_for_silence(&self) {
        if self.health.is_silent(self.longest_silence) {
            self.doubt.close();
            signal(&self.reconcile);
        }
    }

    /// Waits until a claim may be sent. While the guard is held, reconcile sees every claim in flight. Returns `None`
    /// at a stop.
    pub(crate) fn may_claim(&self, stop: &ShutdownSignal) -> Option<RwLockReadGuard<'_, ()>> {
        loop {
            self.exclusive.pass();
            self.pass_doubt();
            let claiming = self.claiming.read();
            if stop.is_triggered() {
                return None;
            }
            if !self.exclusive.is_closed() && !self.doubt.is_closed() {
                return Some(claiming);
            }
        }
    }

    /// Waits for the claims in flight; no claim is sent while the guard is held. `None` if a claim takes longer than
    /// `timeout`.
    pub(crate) fn without_claims(&self, timeout: Duration) -> Option<RwLockWriteGuard<'_, ()>> {
        self.claiming.try_write_for(timeout)
    }

    /// Whether a claim is in flight now.
    pub(crate) fn has_claim_in_flight(&self) -> bool {
        self.claiming.try_write().is_none()
    }

    /// Opens both gates and keeps them open.
    pub(crate) fn release(&self) {
        self.doubt.release();
        self.exclusive.release();
    }
}

/// Makes threads wait while it is closed.
#[derive(Default)]
pub(crate) struct Gate {
    closed: AtomicBool,
    /// The worker stops: no thread waits here any more.
    released: AtomicBool,
    /// Threads may wait here for long, so this is a lock of the standard library: see `lock.rs`.
    lock: std::sync::Mutex<()>,
    opened: std::sync::Condvar,
}

impl Gate {
    pub(crate) fn closed() -> Self {
        Self { closed: AtomicBool::new(true), ..Self::default() }
    }

    /// Closes the gate. Returns whether it was open.
    pub(crate) fn close(&self) -> bool {
        !self.closed.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn open(&self) {
        self.closed.store(false, Ordering::Release);
        let _held = self.lock.lock();
        self.opened.notify_all();
    }

    /// Opens the gate permanently: no thread waits here, even if the gate is closed again.
    pub(crate) fn release(&self) {
        self.released.store(true, Ordering::Release);
        self.open();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether a thread would have to wait now.
    pub(crate) fn holds(&self) -> bool {
        self.closed.load(Ordering::Acquire) && !self.released.load(Ordering::Acquire)
    }

    pub(crate) fn pass(&self) {
        if !self.closed.load(Ordering::Acquire) {
            return;
        }
        drop(self.opened.wait_while(held(self.lock.lock()), |()| self.holds()));
    }
}
