//! A file descriptor that is readable while there may be something to fetch. It is one end of a socket pair, because a
//! signal handler can write to the other end.

use super::status::{Failure, GW_ERR_NOMEM};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub(super) struct Wakeup {
    reader: UnixStream,
    writer: UnixStream,
    /// A byte is in the socket, or about to be written. Another byte would change nothing.
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

    /// Makes the descriptor readable. Async-signal-safe: one atomic operation and one write.
    pub(super) fn notify(&self) {
        if !self.notified.swap(true, Ordering::AcqRel) {
            // The buffer is never full: a byte is written only after the last one was read.
            let _ = (&self.writer).write(&[1]);
        }
    }

    /// Makes the descriptor unreadable. The caller must check once more afterwards, because a notify may have come
    /// before.
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
        // A notify before this reset wrote no byte, so the caller must check again.
        self.notified.swap(false, Ordering::AcqRel);
    }

    /// Waits until the descriptor is readable. Returns false if it is not readable by `deadline`; `None` waits without
    /// limit.
    ///
    /// One poll waits at most 2^30 ms, about 12 days, which fits in an `i32`. The loop repeats it until the deadline.
    pub(super) fn wait(&self, deadline: Option<Instant>) -> bool {
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            // Rounded up, so that the thread waits for the rest of a millisecond and does not spin.
            let millis = left.map_or(-1, |left| (left + Duration::from_micros(999)).as_millis().min(1 << 30) as i32);
            let mut poll = libc::pollfd { fd: self.fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: `poll` is one entry, on this stack.
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

/// When a timeout from C ends; `None`, for no limit, if it is below 0.
pub(super) fn deadline(timeout_ms: i64) -> Option<Instant> {
    // At most 2^44 ms, about 557 years, so that the addition rarely overflows. An overflow means no limit.
    let timeout = Duration::from_millis(u64::try_from(timeout_ms).ok()?.min(1 << 44));
    Instant::now().checked_add(timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptor_is_readable_from_notify_until_drain() {
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
