//! The options of the local queue, as the caller sets them. `checked` turns them into settings.

use crate::config::retry::LONGEST_DELAY;
use crate::config::{LocalQueueSettings, RefetchDelay};
use crate::error::{Error, Result};
use std::time::Duration;

/// How many claimed jobs a worker holds for its threads; see
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
/// See the deployment guide, section Local Queue (docs/deployment-guide.async.md).
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a configuration does nothing until it is passed to local_queue()"]
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
    /// How many jobs each local queue fetches in one claim, and holds at most. Defaults to 100. Must be 1..=2147483647.
    pub fn with_size(mut self, jobs: usize) -> Self {
        self.size = jobs;
        self
    }

    /// How many local queues there are. The worker holds at most `size * queue_count` jobs. Defaults to 1. Must be at
    /// least
    /// 1. A number above `concurrency` counts as `concurrency`.
    pub fn with_queue_count(mut self, queues: usize) -> Self {
        self.queue_count = queues;
        self
    }

    /// How long a job may be held. After that, all held jobs are given back. Defaults to 5 minutes. Must be at least 1
    /// ms.
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Sets a pause after a fetch that returned few jobs. Defaults to no pause.
    pub fn with_refetch_delay(mut self, delay: RefetchDelayConfig) -> Self {
        self.refetch_delay = Some(delay);
        self
    }

    /// Checks the options, and returns the settings for this concurrency and poll interval.
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

/// The pause of a local queue after a fetch that returned few jobs; see [`LocalQueueConfig::with_refetch_delay`] and
/// the deployment guide, section Local Queue (docs/deployment-guide.async.md).
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a configuration does nothing until it is passed to with_refetch_delay()"]
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
    /// The longest pause. Each pause is a random part of it, at least half. Defaults to 100 ms. Must not be longer than
    /// the worker's `poll_interval`.
    pub fn with_duration(mut self, duration: Duration) -> Self {
        self.duration = duration;
        self
    }

    /// A pause follows a fetch that returned at most this number of jobs, and fewer than it asked for. Defaults to 0.
    pub fn with_threshold(mut self, jobs: usize) -> Self {
        self.threshold = jobs;
        self
    }

    /// The pause ends early after a random number of notifications, at least 1 and at most this number. With
    /// `usize::MAX`, notifications never end the pause. Defaults to five times the local queue's size.
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
    fn out_of_range_options_are_refused_by_name_and_limit() {
        let config = LocalQueueConfig::default;
        refused(config().with_size(0), "local_queue: size 0 is outside 1 to 2147483647");
        refused(config().with_size(1 << 31), "local_queue: size 2147483648 is outside 1 to 2147483647");
        refused(config().with_queue_count(0), "local_queue: queue_count 0 is fewer than 1");
        refused(config().with_ttl(Duration::ZERO), "local_queue: ttl 0ns is shorter than 1ms");
        let long = RefetchDelayConfig::default().with_duration(Duration::from_secs(2));
        refused(config().with_refetch_delay(long), "local_queue: refetch_delay 2s is longer than poll_interval 1s");
    }

    #[test]
    fn capacity_is_size_times_queues_capped_at_concurrency() {
        let capacity = |queues| {
            let config = LocalQueueConfig::default().with_size(10).with_queue_count(queues);
            config.checked(4, Duration::from_secs(1)).unwrap().capacity
        };
        assert_eq!([1, 2, 4, 5].map(capacity), [10, 20, 40, 40]);
    }
}
