//! A file descriptor that is readable while there may be something to come for. One end of a socket pair: its other
//! end can be written to from a signal handler.

use super::status::{Failure, GW_ERR_NOMEM};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub(super) struct Bell {
    heard: UnixStream,
    rung: UnixStream,
    /// A byte is on its way or there: another would change nothing.
    ringing: AtomicBool,
}

impl Bell {
    pub(super) fn new() -> Result<Self, Failure> {
        let pair = UnixStream::pair().and_then(|(heard, rung)| {
            heard.set_nonblocking(true)?;
            rung.set_nonblocking(true)?;
            Ok((heard, rung))
        });
        let (heard, rung) = pair.map_err(|e| Failure::new(GW_ERR_NOMEM, format!("cannot open two sockets: {e}")))?;
        Ok(Self { heard, rung, ringing: AtomicBool::new(false) })
    }

    pub(super) fn fd(&self) -> RawFd {
        self.heard.as_raw_fd()
    }

    /// Makes it readable. Async-signal-safe: an atomic and a write.
    pub(super) fn ring(&self) {
        if !self.ringing.swap(true, Ordering::AcqRel) {
            // The buffer is never full: a byte is sent only after the last was read.
            let _ = (&self.rung).write(&[1]);
        }
    }

    /// Makes it unreadable. Whoever does so must look afterwards once more for what may have come before.
    pub(super) fn silence(&self) {
        let mut bytes = [0; 16];
        loop {
            match (&self.heard).read(&mut bytes) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        // Takes in whoever has rung before, and so has not written: what they rang for is seen by the next look.
        self.ringing.swap(false, Ordering::AcqRel);
    }

    /// Waits until it is readable; false if that did not come by `deadline`.
    pub(super) fn wait(&self, deadline: Option<Instant>) -> bool {
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            // Rounded up, so that what is left of a millisecond is waited for and not spun through.
            let millis = left.map_or(-1, |left| (left + Duration::from_micros(999)).as_millis().min(1 << 30) as i32);
            let mut poll = libc::pollfd { fd: self.fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one entry, which lives on our stack.
            let found = unsafe { libc::poll(&mut poll, 1, millis) };
            if found > 0 {
                return true;
            }
            if found == 0 && deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return false;
            }
        }
    }
}

/// When a timeout of C's is over: never if it is below 0.
pub(super) fn deadline(timeout_ms: i64) -> Option<Instant> {
    // A thousand years, or for ever: nobody will know.
    let timeout = Duration::from_millis(u64::try_from(timeout_ms).ok()?.min(1 << 44));
    Instant::now().checked_add(timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bell_is_heard_until_it_is_silenced_however_often_it_was_rung() {
        let bell = Bell::new().unwrap();
        assert!(!bell.wait(deadline(0)));
        bell.ring();
        bell.ring();
        assert!(bell.wait(deadline(0)));
        assert!(bell.wait(None));
        bell.silence();
        assert!(!bell.wait(deadline(1)));
        bell.ring();
        assert!(bell.wait(deadline(0)));
    }
}
