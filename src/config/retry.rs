//! Retry policies: how long a failed job waits for its next attempt. Reads no clock. How long this library waits before
//! it repeats a call of its own is in `backoff.rs`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The longest delay that is written to the database: 100 years.
pub(crate) const LONGEST_DELAY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// How long a failed job waits for its next attempt; see [`JobDefinition::backoff`](crate::JobDefinition::backoff). The
/// number of attempts is set by the job's `max_attempts`.
///
/// ```
/// use graphile_worker::RetryPolicy;
/// use std::time::Duration;
///
/// let _every_minute = RetryPolicy::fixed(Duration::from_secs(60));
/// let _by_error = RetryPolicy::custom(|attempt, error| match error.contains("rate limit") {
///     true => Duration::from_secs(3600),
///     false => Duration::from_secs(10) * attempt,
/// });
/// ```
#[derive(Clone)]
pub struct RetryPolicy(Kind);

type Delay = dyn Fn(u32, &str) -> Duration + Send + Sync;

#[derive(Clone)]
enum Kind {
    Fixed(Duration),
    Linear { step: Duration, cap: Duration },
    Exponential { first: Duration, cap: Duration },
    Custom(Arc<Delay>),
}

impl RetryPolicy {
    /// The same delay after each failed attempt.
    pub fn fixed(delay: Duration) -> Self {
        Self(Kind::Fixed(delay))
    }

    /// `step` after the first failed attempt, twice `step` after the second, and so on. At most `cap`.
    pub fn linear(step: Duration, cap: Duration) -> Self {
        Self(Kind::Linear { step, cap })
    }

    /// `first` after the first failed attempt, doubled after each further one. At most `cap`.
    pub fn exponential(first: Duration, cap: Duration) -> Self {
        Self(Kind::Exponential { first, cap })
    }

    /// The delay that the function returns, at most 100 years. Its arguments are the number of the attempt that failed,
    /// counted from 1, and the text of the error. It is called on the thread that ends the job. If it panics, the delay
    /// is the default of e^attempts seconds, at most e^10.
    pub fn custom(delay: impl Fn(u32, &str) -> Duration + Send + Sync + 'static) -> Self {
        Self(Kind::Custom(Arc::new(delay)))
    }

    /// The delay after the attempt with this number failed.
    pub(crate) fn delay(&self, attempt: u32, error: &str) -> Duration {
        let delay = match &self.0 {
            Kind::Fixed(delay) => *delay,
            Kind::Linear { step, cap } => step.saturating_mul(attempt).min(*cap),
            Kind::Exponential { first, cap } => {
                first.saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1))).min(*cap)
            }
            Kind::Custom(delay) => delay(attempt, error),
        };
        delay.min(LONGEST_DELAY)
    }

    /// The longest possible delay. `None` for a custom policy.
    pub(crate) fn longest(&self) -> Option<Duration> {
        match &self.0 {
            Kind::Fixed(longest) | Kind::Linear { cap: longest, .. } | Kind::Exponential { cap: longest, .. } => {
                Some(*longest)
            }
            Kind::Custom(_) => None,
        }
    }
}

impl fmt::Debug for RetryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Fixed(delay) => write!(f, "fixed({delay:?})"),
            Kind::Linear { step, cap } => write!(f, "linear({step:?}, {cap:?})"),
            Kind::Exponential { first, cap } => write!(f, "exponential({first:?}, {cap:?})"),
            Kind::Custom(_) => write!(f, "custom"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(policy: RetryPolicy, seconds: [u64; 4]) {
        assert_eq!([1, 2, 3, 60].map(|attempt| policy.delay(attempt, "").as_secs()), seconds);
    }

    #[test]
    fn delays_follow_the_policy_up_to_its_cap() {
        let seconds = Duration::from_secs;
        check(RetryPolicy::fixed(seconds(7)), [7, 7, 7, 7]);
        check(RetryPolicy::linear(seconds(10), seconds(25)), [10, 20, 25, 25]);
        check(RetryPolicy::exponential(seconds(3), seconds(100)), [3, 6, 12, 100]);
        check(RetryPolicy::custom(|attempt, _| Duration::from_secs(attempt.into()) * 2), [2, 4, 6, 120]);
        check(RetryPolicy::custom(|_, _| Duration::MAX), [LONGEST_DELAY.as_secs(); 4]);
    }
}
