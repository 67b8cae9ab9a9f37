//! What a process sets up once, and how the library's threads begin: the logger and signals.

use super::log;
use crate::db::deadline::HELPER_BEGINS;
use std::ptr;

/// Installs the logger, and makes the library's helper threads begin with all signals blocked. May be called
/// repeatedly.
pub(super) fn prepare() {
    log::install();
    let _ = HELPER_BEGINS.set(block_signals);
}

fn block_signals() {
    std::mem::forget(SignalsBlocked::now());
}

/// While it lives, all signals are blocked on this thread. Threads that this thread starts meanwhile keep them blocked.
pub(super) struct SignalsBlocked(libc::sigset_t);

impl SignalsBlocked {
    pub(super) fn now() -> Self {
        // SAFETY: both sets live on this stack; a signal set is plain bits.
        unsafe {
            let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
            Self(before)
        }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: `self.0` is the signal set that this thread had before.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, ptr::null_mut()) };
    }
}
