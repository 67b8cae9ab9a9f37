//! The local queue's options, as they are written; `checked` makes the settings of them.

use crate::config::retry::LONGEST_DELAY;
use crate::config::{LocalQueueSettings, RefetchDelay};
use crate::error::{Error, Result};
use std::time::Duration;

/// How many jobs a worker holds ahead of its threads; see
/// [`WorkerOptions::local_queue`](crate::WorkerOptions::local_queue).
///
/// ```
/// use graphile_worker::{LocalQueueConfig, RefetchDelayConfig};
/// use std::time::Duration;
///
/// let _config = LocalQueueConfig::default()
///     .with_size(100)
///     .with_ttl(Duration::from_secs(300))
///     .with_refetch_delay(RefetchDelayConfig::default().with_threshold(10));
/// ```
/// Source: the guide, Local Queue.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a configuration does nothing until local_queue() is given it"]
pub struct LocalQueueConfig {
    size: usize,
    queue_count: usize,
    ttl: Duration,
    refetch_delay: Option<RefetchDelayConfig>,
}

impl Default for LocalQueueConfig {
    fn default() -> Self {
        Self { size: 100, queue_count: 1, ttl: Duration::from_secs(300), refetch_delay: None }
    }
}

impl LocalQueueConfig {
    /// How many jobs each local queue fetches at once, and holds at most. Defaults to 100; 1..=2147483647.
    pub fn with_size(mut self, jobs: usize) -> Self {
        self.size = jobs;
        self
    }

    /// How many local queues there are: the worker holds `size * queue_count` jobs at most. Defaults to 1;
    /// at least 1. More than `concurrency` are as many as `concurrency`.
    pub fn with_queue_count(mut self, queues: usize) -> Self {
        self.queue_count = queues;
        self
    }

    /// How long a job is held before all that are held go back. Defaults to 5 minutes; at least 1 ms.
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Pauses after a fetch that brought little. Defaults to no pause.
    pub fn with_refetch_delay(mut self, delay: RefetchDelayConfig) -> Self {
        self.refetch_delay = Some(delay);
        self
    }

    /// The settings, for this concurrency and poll interval.
    pub(crate) fn checked(&self, concurrency: usize, poll_interval: Duration) -> Result<LocalQueueSettings> {
        let refuse = |what: String| Err(Error::config(format!("local_queue: {what}")));
        if !(1..=i32::MAX as usize).contains(&self.size) {
            return refuse(format!("size {} is outside 1 to {}", self.size, i32::MAX));
        }
        if self.queue_count == 0 {
            return refuse("queue_count 0 is fewer than 1".into());
        }
        if self.ttl < Duration::from_millis(1) {
            return refuse(format!("ttl {:?} is shorter than 1ms", self.ttl));
        }
        if let Some(delay) = self.refetch_delay.as_ref().filter(|delay| delay.duration > poll_interval) {
            let duration = delay.duration;
            return refuse(format!("refetch_delay {duration:?} is longer than poll_interval {poll_interval:?}"));
        }
        Ok(LocalQueueSettings {
            size: self.size,
            capacity: self.size.saturating_mul(self.queue_count.min(concurrency)),
            ttl: self.ttl.min(LONGEST_DELAY),
            refetch: self.refetch_delay.as_ref().map(|delay| RefetchDelay {
                duration: delay.duration.min(LONGEST_DELAY),
                threshold: delay.threshold,
                max_abort: delay.max_abort_threshold.unwrap_or(self.size.saturating_mul(5)),
            }),
        })
    }
}

/// The pause of a local queue after a fetch that brought little; see
/// [`LocalQueueConfig::with_refetch_delay`]. Source: the guide, Local Queue.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a configuration does nothing until with_refetch_delay() is given it"]
pub struct RefetchDelayConfig {
    duration: Duration,
    threshold: usize,
    max_abort_threshold: Option<usize>,
}

impl Default for RefetchDelayConfig {
    fn default() -> Self {
        Self { duration: Duration::from_millis(100), threshold: 0, max_abort_threshold: None }
    }
}

impl RefetchDelayConfig {
    /// How long the pause is at most; each is a random part of it, half at least. Defaults to 100 ms; no
    /// longer than the worker's `poll_interval`.
    pub fn with_duration(mut self, duration: Duration) -> Self {
        self.duration = duration;
        self
    }

    /// A pause follows a fetch that brought no more than so many jobs, and fewer than asked for. Defaults to 0.
    pub fn with_threshold(mut self, jobs: usize) -> Self {
        self.threshold = jobs;
        self
    }

    /// A random number up to this one of notifications ends the pause early; at least 1. `usize::MAX`:
    /// none does. Defaults to five times the local queue's size.
    pub fn with_max_abort_threshold(mut self, notifications: usize) -> Self {
        self.max_abort_threshold = Some(notifications);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(config: LocalQueueConfig, text: &str) {
        assert_eq!(config.checked(4, Duration::from_secs(1)).unwrap_err().to_string(), text);
    }

    #[test]
    fn what_is_out_of_range_is_refused_by_name_and_limit() {
        let config = LocalQueueConfig::default;
        refused(config().with_size(0), "local_queue: size 0 is outside 1 to 2147483647");
        refused(config().with_size(1 << 31), "local_queue: size 2147483648 is outside 1 to 2147483647");
        refused(config().with_queue_count(0), "local_queue: queue_count 0 is fewer than 1");
        refused(config().with_ttl(Duration::ZERO), "local_queue: ttl 0ns is shorter than 1ms");
        let long = RefetchDelayConfig::default().with_duration(Duration::from_secs(2));
        refused(config().with_refetch_delay(long), "local_queue: refetch_delay 2s is longer than poll_interval 1s");
    }

    #[test]
    fn capacity_is_size_times_queues_of_which_there_are_no_more_than_threads() {
        let capacity = |queues| {
            let config = LocalQueueConfig::default().with_size(10).with_queue_count(queues);
            config.checked(4, Duration::from_secs(1)).unwrap().capacity
        };
        assert_eq!([1, 2, 4, 5].map(capacity), [10, 20, 40, 40]);
    }
}
