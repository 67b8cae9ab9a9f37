//! When a crontab entry is due: five sets of numbers, and their time zone.
//! Parses no text, reads no clock and knows no database.

use crate::job::{FIRST, LAST};
use chrono::{DateTime, Datelike, Duration, LocalResult, NaiveDateTime, Offset, TimeZone, Timelike, Utc};
use chrono_tz::Tz;
use std::ops::RangeInclusive;

/// How many days `next_after` searches. The longest pause of a schedule is eight years: from one leap day to the next
/// across a century without one.
const SEARCHED_DAYS: u32 = 366 * 9;

/// One of the five fields: its name, and the range of its numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) least: u32,
    pub(crate) most: u32,
}

pub(crate) const MINUTE: Field = Field { name: "minute", least: 0, most: 59 };
pub(crate) const HOUR: Field = Field { name: "hour", least: 0, most: 23 };
pub(crate) const DAY: Field = Field { name: "day of month", least: 1, most: 31 };
pub(crate) const MONTH: Field = Field { name: "month", least: 1, most: 12 };
pub(crate) const WEEKDAY: Field = Field { name: "day of week", least: 0, most: 6 };

/// The numbers of one field at which an entry is due, as a bit set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ValueSet(u64);

impl ValueSet {
    pub(crate) const EMPTY: Self = Self(0);

    /// All numbers of the field.
    pub(crate) fn all(field: Field) -> Self {
        Self::stepped(field.least..=field.most, 1)
    }

    pub(crate) fn one(number: u32) -> Self {
        Self(1 << number)
    }

    /// Each `step`th number of the range, from the first.
    pub(crate) fn stepped(range: RangeInclusive<u32>, step: usize) -> Self {
        range.step_by(step).fold(Self::EMPTY, |set, number| set.with(Self::one(number)))
    }

    pub(crate) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn has(self, number: u32) -> bool {
        self.0 >> number & 1 == 1
    }

    fn is_all(self, field: Field) -> bool {
        self == Self::all(field)
    }
}

/// The minutes in which an entry is due.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Schedule {
    pub(crate) minutes: ValueSet,
    pub(crate) hours: ValueSet,
    pub(crate) days: ValueSet,
    pub(crate) months: ValueSet,
    /// 0 is Sunday.
    pub(crate) weekdays: ValueSet,
    /// The time zone of the fields. `None` is UTC.
    pub(crate) zone: Option<Tz>,
}

impl Schedule {
    pub(crate) fn every_minute() -> Self {
        Self {
            minutes: ValueSet::all(MINUTE),
            hours: ValueSet::all(HOUR),
            days: ValueSet::all(DAY),
            months: ValueSet::all(MONTH),
            weekdays: ValueSet::all(WEEKDAY),
            zone: None,
        }
    }

    /// Returns true if the entry is due in the minute that begins at `at`.
    pub(crate) fn is_due(&self, at: DateTime<Utc>) -> bool {
        let Some(zone) = self.zone else { return self.matches(at.naive_utc()) };
        let local = at.with_timezone(&zone).naive_local();
        // If the hour field allows all hours, the entry is due whenever the local clock shows a matching time.
        if self.hours.is_all(HOUR) {
            return self.matches(local);
        }
        // Any other entry is due once for each of its local times. A time that the clock shows twice counts the first
        // time. A time that the clock skips is moved past the gap.
        (self.matches(local) && !is_repeated(zone, local, at)) || self.is_moved_to(zone, at)
    }

    /// Returns true if `at` is the moved time of a matching local time that the clock skipped. A skipped time moves
    /// later by the length of the gap.
    fn is_moved_to(&self, zone: Tz, at: DateTime<Utc>) -> bool {
        // No time zone was ever set forward by more than a day, so this is the offset before the gap.
        let before = zone.offset_from_utc_datetime(&(at - Duration::days(1)).naive_utc()).fix();
        let left_out = at.naive_utc() + before;
        self.matches(left_out) && zone.from_local_datetime(&left_out) == LocalResult::None
    }

    /// Returns the first minute after `at` in which the entry is due. `None` if there is none before the year 10000.
    pub(crate) fn next_after(&self, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let mut minute = ceiling(at.clamp(FIRST, LAST) + Duration::microseconds(1));
        for _ in 0..SEARCHED_DAYS {
            let next_day = (minute.date_naive() + Duration::days(1)).and_time(chrono::NaiveTime::MIN).and_utc();
            if self.may_be_due_on(minute) {
                while minute < next_day {
                    if self.is_due(minute) {
                        return (minute <= LAST).then_some(minute);
                    }
                    minute += Duration::minutes(1);
                }
            }
            minute = next_day;
        }
        None
    }

    /// Returns false if the entry is not due in any minute of this UTC day.
    fn may_be_due_on(&self, day: DateTime<Utc>) -> bool {
        let near = match self.zone {
            None => 0..=0,
            // The local day may be the day before or after, and a skipped time may be moved past midnight.
            Some(_) => -2..=1,
        };
        near.map(|days| day.naive_utc() + Duration::days(days)).any(|day| self.matches_day(day))
    }

    fn matches(&self, at: NaiveDateTime) -> bool {
        self.minutes.has(at.minute()) && self.hours.has(at.hour()) && self.matches_day(at)
    }

    /// If both day fields are restricted, one match is enough.
    fn matches_day(&self, at: NaiveDateTime) -> bool {
        let day = self.days.has(at.day());
        let weekday = self.weekdays.has(at.weekday().num_days_from_sunday());
        let either = !self.days.is_all(DAY) && !self.weekdays.is_all(WEEKDAY);
        self.months.has(at.month()) && if either { day || weekday } else { day && weekday }
    }
}

/// Returns true if the clock was set back and has shown this local time before.
fn is_repeated(zone: Tz, local: NaiveDateTime, at: DateTime<Utc>) -> bool {
    matches!(zone.from_local_datetime(&local), LocalResult::Ambiguous(first, _) if first.with_timezone(&Utc) < at)
}

/// Returns the start of the minute.
pub(crate) fn floor(at: DateTime<Utc>) -> DateTime<Utc> {
    let into = Duration::seconds(i64::from(at.second())) + Duration::nanoseconds(i64::from(at.nanosecond()));
    at - into
}

/// Returns `at` if it is the start of a minute, and otherwise the start of the next one.
pub(crate) fn ceiling(at: DateTime<Utc>) -> DateTime<Utc> {
    match floor(at) {
        floor if floor == at => at,
        floor => floor + Duration::minutes(1),
    }
}

#[cfg(test)]
pub(super) mod tests;
