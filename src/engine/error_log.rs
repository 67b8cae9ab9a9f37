//! Logs database errors: at most two lines a second, with the number of lines that were left out. Counts each error.

use crate::engine::stats::{Health, Stats, add};
use crate::error::Error;
use log::warn;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) struct ErrorLog {
    worker_id: String,
    stats: Arc<Stats>,
    health: Arc<Health>,
    quota: Mutex<Quota>,
}

/// What was logged in the second that began at `since`.
struct Quota {
    since: Instant,
    logged: u32,
    left_out: u64,
}

impl ErrorLog {
    pub(crate) fn new(worker_id: &str, stats: Arc<Stats>, health: Arc<Health>) -> Self {
        let quota = Mutex::new(Quota { since: Instant::now(), logged: 0, left_out: 0 });
        Self { worker_id: worker_id.to_owned(), stats, health, quota }
    }

    /// Logs a failed call that its thread retries. No sweep starts until the database has worked without errors for
    /// `sweep_threshold`.
    pub(crate) fn retried(&self, doing: &str, error: &Error) {
        self.health.failed();
        self.count();
        let worker_id = self.worker_id.as_str();
        self.write(|left_out| {
            warn!(worker_id, doing, error:% = error, left_out; "the database failed, trying again");
        });
    }

    /// Logs that the database refused to write a row. The database works, so this delays no sweep.
    pub(crate) fn refused(&self, doing: &str, error: &Error) {
        self.count();
        let worker_id = self.worker_id.as_str();
        self.write(|left_out| {
            warn!(worker_id, doing, error:% = error, left_out; "the database refused a row, others were not affected");
        });
    }

    /// Counts an error that the caller logs itself.
    pub(crate) fn count(&self) {
        add(&self.stats.database_errors, 1);
    }

    /// Calls `line` with the number of lines left out before this one, unless this one is left out.
    pub(crate) fn write(&self, line: impl FnOnce(u64)) {
        let quota = self.quota.lock().take(Instant::now());
        if let Some(left_out) = quota {
            line(left_out);
        }
    }
}

impl Quota {
    /// Whether one more line may be logged now. Returns how many lines were left out before it, or `None` if this one
    /// is left out, too.
    fn take(&mut self, now: Instant) -> Option<u64> {
        const PER_SECOND: u32 = 2;
        if now.duration_since(self.since) >= Duration::from_secs(1) {
            (self.since, self.logged) = (now, 0);
        }
        if self.logged == PER_SECOND {
            self.left_out += 1;
            return None;
        }
        self.logged += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_lines_a_second_are_logged_and_the_rest_are_counted() {
        let start = Instant::now();
        let mut quota = Quota { since: start, logged: 0, left_out: 0 };
        let mut at = |millis| quota.take(start + Duration::from_millis(millis));
        assert_eq!([at(0), at(1), at(2), at(999)], [Some(0), Some(0), None, None]);
        assert_eq!([at(1000), at(1001), at(1002)], [Some(2), Some(0), None]);
        assert_eq!(at(5000), Some(1));
    }
}
