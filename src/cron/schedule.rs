//! When an entry is due: five sets of numbers, and the time zone in which they are meant.
//! Knows no text, no clock and no database.

use crate::job::{FIRST, LAST};
use chrono::{DateTime, Datelike, Duration, LocalResult, NaiveDateTime, Offset, TimeZone, Timelike, Utc};
use chrono_tz::Tz;
use std::ops::RangeInclusive;

/// The longest that a schedule can pause is from one leap day to the next over a century.
const SEARCHED_DAYS: u32 = 366 * 9;

/// One of the five fields: its name, and the numbers that it may hold.
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

/// The numbers of one field on which an entry is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ValueSet(u64);

impl ValueSet {
    pub(crate) const EMPTY: Self = Self(0);

    /// Every number that the field may hold.
    pub(crate) fn all(field: Field) -> Self {
        Self::stepped(field.least..=field.most, 1)
    }

    pub(crate) fn one(number: u32) -> Self {
        Self(1 << number)
    }

    /// Every `step`th number, from the first.
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

/// The minutes on which an entry is due.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Schedule {
    pub(crate) minutes: ValueSet,
    pub(crate) hours: ValueSet,
    pub(crate) days: ValueSet,
    pub(crate) months: ValueSet,
    /// 0 is Sunday.
    pub(crate) weekdays: ValueSet,
    /// UTC without one.
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

    /// Whether the entry is due in the minute that begins at `at`.
    pub(crate) fn is_due(&self, at: DateTime<Utc>) -> bool {
        let Some(zone) = self.zone else { return self.matches(at.naive_utc()) };
        let local = at.with_timezone(&zone).naive_local();
        // An entry of every hour follows the clock as it shows.
        if self.hours.is_all(HOUR) {
            return self.matches(local);
        }
        // Any other wants each of its times once: the first, where a clock set back shows it twice,
        (self.matches(local) && !is_repeated(zone, local, at)) || self.is_moved_to(zone, at)
    }

    /// and as long after the gap as it would have been into it, where a clock set forward leaves it out.
    fn is_moved_to(&self, zone: Tz, at: DateTime<Utc>) -> bool {
        // No clock has ever been set forward by more than a day.
        let before = zone.offset_from_utc_datetime(&(at - Duration::days(1)).naive_utc()).fix();
        let left_out = at.naive_utc() + before;
        self.matches(left_out) && zone.from_local_datetime(&left_out) == LocalResult::None
    }

    /// The first minute after `at` in which the entry is due; `None` if it never is again before the year 10000.
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

    /// False if the entry is due at no minute of this day of UTC.
    fn may_be_due_on(&self, day: DateTime<Utc>) -> bool {
        let near = match self.zone {
            None => 0..=0,
            // It is another day elsewhere, and a time left out may have moved over midnight.
            Some(_) => -2..=1,
        };
        near.map(|days| day.naive_utc() + Duration::days(days)).any(|day| self.matches_day(day))
    }

    fn matches(&self, at: NaiveDateTime) -> bool {
        self.minutes.has(at.minute()) && self.hours.has(at.hour()) && self.matches_day(at)
    }

    /// Where both day fields are restricted, either will do.
    fn matches_day(&self, at: NaiveDateTime) -> bool {
        let day = self.days.has(at.day());
        let weekday = self.weekdays.has(at.weekday().num_days_from_sunday());
        let either = !self.days.is_all(DAY) && !self.weekdays.is_all(WEEKDAY);
        self.months.has(at.month()) && if either { day || weekday } else { day && weekday }
    }
}

/// Whether a clock that was set back had shown this time before.
fn is_repeated(zone: Tz, local: NaiveDateTime, at: DateTime<Utc>) -> bool {
    matches!(zone.from_local_datetime(&local), LocalResult::Ambiguous(first, _) if first.with_timezone(&Utc) < at)
}

/// The beginning of this minute.
pub(crate) fn floor(at: DateTime<Utc>) -> DateTime<Utc> {
    let into = Duration::seconds(i64::from(at.second())) + Duration::nanoseconds(i64::from(at.nanosecond()));
    at - into
}

/// This time if it is the beginning of a minute, or the next beginning.
pub(crate) fn ceiling(at: DateTime<Utc>) -> DateTime<Utc> {
    match floor(at) {
        floor if floor == at => at,
        floor => floor + Duration::minutes(1),
    }
}

#[cfg(test)]
pub(super) mod tests;
