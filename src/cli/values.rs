//! Parses the durations and times of the command line, in the forms of the deployment guide.

use chrono::{DateTime, Utc};
use std::time::Duration;

/// Parses a number of seconds, or a number with a unit: `300`, `30s`, `5m`, `2h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let seconds = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "s" | "sec" | "secs" | "second" | "seconds" => 1,
        "m" | "min" | "mins" | "minute" | "minutes" => 60,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3600,
        _ => return Err("is not a duration; write 300, 30s, 5m or 2h".into()),
    };
    let number: u64 = number.parse().map_err(|_| "is not a duration; write 300, 30s, 5m or 2h")?;
    match number.checked_mul(seconds) {
        // Longer durations would overflow intervals and dates.
        Some(seconds) if seconds <= 100 * 366 * 86400 => Ok(Duration::from_secs(seconds)),
        _ => Err("is longer than a hundred years".into()),
    }
}

/// A point in time, or the database's `now()` at the time of the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    Now,
    At(DateTime<Utc>),
}

/// Parses `now`, or an RFC 3339 time: `2031-01-02T03:04:05Z`.
pub(crate) fn moment(text: &str) -> Result<Moment, String> {
    if text.eq_ignore_ascii_case("now") {
        return Ok(Moment::Now);
    }
    DateTime::parse_from_rfc3339(text)
        .map(|time| Moment::At(time.with_timezone(&Utc)))
        .map_err(|error| format!("is not a time ({error}); write 2031-01-02T03:04:05Z, with its zone, or now"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_seconds_or_have_a_unit() {
        #[track_caller]
        fn check(text: &str, seconds: u64) {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        check("300", 300);
        check("30s", 30);
        check("5m", 300);
        check("2h", 7200);
        check("0", 0);
        check(" 90 Seconds ", 90);
        check("1 hour", 3600);
        for wrong in ["", "s", "-5s", "1.5h", "5 days", "ten", "5m30s", "99999999999999999999"] {
            assert!(duration(wrong).unwrap_err().contains("write 300, 30s, 5m or 2h"), "{wrong}");
        }
        for long in ["9999999999999999999", "5124095576030432h", "1000000h"] {
            assert!(duration(long).unwrap_err().contains("hundred years"), "{long}");
        }
    }

    #[test]
    fn times_are_now_or_have_a_zone() {
        let at = |text: &str| Ok(Moment::At(text.parse().unwrap()));
        assert_eq!(moment("NOW"), Ok(Moment::Now));
        assert_eq!(moment("2026-01-02T03:04:05+02:00"), at("2026-01-02T01:04:05Z"));
        assert_eq!(moment("2026-01-02T03:04:05.5Z"), at("2026-01-02T03:04:05.5Z"));
        for wrong in ["", "tomorrow", "2026-01-02", "2026-01-02T03:04:05", "2026-13-02T03:04:05Z"] {
            assert!(moment(wrong).unwrap_err().contains("with its zone, or now"), "{wrong}");
        }
    }
}
