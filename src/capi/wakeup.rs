//! A file descriptor that is readable while there may be something to come for. One end of a socket pair: its other
//! end can be written to from a signal handler.

use super::status::{Failure, GW_ERR_NOMEM};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub(super) struct Wakeup {
    reader: UnixStream,
    writer: UnixStream,
    /// A byte is on its way or there: another would change nothing.
    notified: AtomicBool,
}

impl Wakeup {
    pub(super) fn new() -> Result<Self, Failure> {
        let pair = UnixStream::pair().and_then(|(reader, writer)| {
            reader.set_nonblocking(true)?;
            writer.set_nonblocking(true)?;
            Ok((reader, writer))
        });
        let (reader, writer) = pair.map_err(|e| Failure::new(GW_ERR_NOMEM, format!("cannot open two sockets: {e}")))?;
        Ok(Self { reader, writer, notified: AtomicBool::new(false) })
    }

    pub(super) fn fd(&self) -> RawFd {
        self.reader.as_raw_fd()
    }

    /// Makes it readable. Async-signal-safe: an atomic and a write.
    pub(super) fn notify(&self) {
        if !self.notified.swap(true, Ordering::AcqRel) {
            // The buffer is never full: a byte is sent only after the last was read.
            let _ = (&self.writer).write(&[1]);
        }
    }

    /// Makes it unreadable. The caller must look once more afterwards: a notify may have come before.
    pub(super) fn drain(&self) {
        let mut bytes = [0; 16];
        loop {
            match (&self.reader).read(&mut bytes) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        // A notify before this reset wrote no byte, so the caller must look again.
        self.notified.swap(false, Ordering::AcqRel);
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
        let wakeup = Wakeup::new().unwrap();
        assert!(!wakeup.wait(deadline(0)));
        wakeup.notify();
        wakeup.notify();
        assert!(wakeup.wait(deadline(0)));
        assert!(wakeup.wait(None));
        wakeup.drain();
        assert!(!wakeup.wait(deadline(1)));
        wakeup.notify();
        assert!(wakeup.wait(deadline(0)));
    }
}
