//! A file descriptor that is readable while there may be something to fetch. It is one end of a socket pair, because a
//! signal handler can write to the other end.

use super::failure::Failure;
use super::status::GW_ERR_NOMEM;
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

    /// Calls `look` until it finds something. Returns `None` if it finds nothing by `deadline`; `None` as the deadline
    /// waits without limit. `look` is called at least once, and a deadline that is over never waits.
    ///
    /// Several threads may wait for the same descriptor. The thread that puts something there notifies afterwards.
    pub(super) fn wait_for<T>(&self, deadline: Option<Instant>, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        loop {
            if let found @ Some(_) = look() {
                return found;
            }
            self.drain();
            // The drain may have removed a notify that came after the first look. Look once more.
            if let found @ Some(_) = look() {
                // The descriptor was drained, but there may be more: notify the next caller.
                self.notify();
                return found;
            }
            let is_over = deadline.is_some_and(|deadline| deadline <= Instant::now());
            if is_over || !self.wait(deadline) {
                return None;
            }
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
    use parking_lot::Mutex;
    use std::cell::Cell;
    use std::sync::atomic::AtomicU32;

    fn is_readable(wakeup: &Wakeup) -> bool {
        wakeup.wait(deadline(0))
    }

    #[test]
    fn descriptor_is_readable_from_notify_until_drain() {
        let wakeup = Wakeup::new().unwrap();
        assert!(!is_readable(&wakeup));
        wakeup.notify();
        wakeup.notify();
        assert!(is_readable(&wakeup));
        assert!(wakeup.wait(None));
        wakeup.drain();
        assert!(!wakeup.wait(deadline(1)));
        wakeup.notify();
        assert!(is_readable(&wakeup));
    }

    #[test]
    fn first_look_that_finds_drains_nothing() {
        let wakeup = Wakeup::new().unwrap();
        wakeup.notify();
        assert_eq!(wakeup.wait_for(None, || Some(1)), Some(1));
        assert!(is_readable(&wakeup));
    }

    #[test]
    fn look_after_the_drain_finds_and_notifies_the_next_waiter() {
        let (wakeup, looks) = (Wakeup::new().unwrap(), Cell::new(0));
        wakeup.notify();
        let second_look = || {
            assert_eq!(is_readable(&wakeup), looks.get() == 0, "the first look is before the drain");
            looks.set(looks.get() + 1);
            (looks.get() == 2).then_some(())
        };
        assert_eq!(wakeup.wait_for(None, second_look), Some(()));
        assert!(is_readable(&wakeup));
    }

    #[test]
    fn notify_between_drain_and_wait_is_not_lost() {
        let (wakeup, looks) = (Wakeup::new().unwrap(), Cell::new(0));
        // The second look is after the drain. What it misses by a moment, the third one finds.
        let third_look = || {
            looks.set(looks.get() + 1);
            if looks.get() == 2 {
                wakeup.notify();
            }
            (looks.get() == 3).then_some(())
        };
        assert_eq!(wakeup.wait_for(None, third_look), Some(()));
        assert!(is_readable(&wakeup), "only a look that finds nothing drains");
    }

    #[test]
    fn timeout_ends_the_wait_and_leaves_nothing_readable() {
        let (wakeup, looks) = (Wakeup::new().unwrap(), Cell::new(0));
        let nothing = || {
            looks.set(looks.get() + 1);
            None::<()>
        };
        wakeup.notify();
        let begun = Instant::now();
        assert_eq!(wakeup.wait_for(deadline(20), nothing), None);
        assert!(begun.elapsed() >= Duration::from_millis(20));
        assert_eq!(looks.get(), 2);
        assert!(!is_readable(&wakeup));
    }

    #[test]
    fn deadline_that_is_over_never_waits_even_if_readable() {
        let (wakeup, looks) = (Wakeup::new().unwrap(), Cell::new(0));
        let always_notified = || {
            looks.set(looks.get() + 1);
            wakeup.notify();
            None::<()>
        };
        assert_eq!(wakeup.wait_for(deadline(0), always_notified), None);
        assert_eq!(looks.get(), 2);
    }

    #[test]
    fn another_waiter_is_woken_after_this_one_drained() {
        for _ in 0..100 {
            let wakeup = Wakeup::new().unwrap();
            let (items, others_looks) = (Mutex::new(Vec::new()), AtomicU32::new(0));
            let others_look = || {
                let found = items.lock().pop();
                others_looks.fetch_add(1, Ordering::AcqRel);
                found
            };
            std::thread::scope(|scope| {
                let other = scope.spawn(|| wakeup.wait_for(deadline(10_000), others_look));
                let mut is_first = true;
                let look = || {
                    if !std::mem::take(&mut is_first) {
                        return items.lock().pop();
                    }
                    // The other thread waits, or is about to. Two items come with one notify, which this one drains.
                    while others_looks.load(Ordering::Acquire) < 2 {
                        std::thread::yield_now();
                    }
                    items.lock().extend([1, 2]);
                    wakeup.notify();
                    None
                };
                let mut found = [wakeup.wait_for(deadline(10_000), look), other.join().unwrap()];
                found.sort();
                assert_eq!(found, [Some(1), Some(2)]);
            });
        }
    }
}
