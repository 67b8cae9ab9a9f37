//! How long this library waits before it repeats a call of its own to the database: doubling, capped, jittered. Reads no
//! clock and does not wait. How long a failed job waits is in `config/retry.rs`.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// Delays that double from `first` to `cap`. Each delay is random, between half and all of its length. So workers that
/// lost the same database do not reconnect at the same moment.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    cap: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap, next: first }
    }

    /// Returns the next delay.
    pub(crate) fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.cap);
        wait.mul_f64(0.5 + 0.5 * random_unit())
    }

    /// Starts over at `first`. Call it after a success.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

/// Random bits from the seed of `RandomState`. Good enough for jitter and for names, not for secrets.
pub(crate) fn random_bits() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// A random number in 0..1.
pub(crate) fn random_unit() -> f64 {
    (random_bits() >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_cap_and_start_over() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for full in [100, 200, 400, 800, 1000, 1000] {
            let wait = backoff.next().as_millis() as u64;
            assert!((full / 2..=full).contains(&wait), "{wait} ms of {full}");
        }
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(100));
    }
}
