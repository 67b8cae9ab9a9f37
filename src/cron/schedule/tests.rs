//! Compares the schedule with an oracle that applies the definition minute by minute and shares no code with it.

use super::*;
use crate::cron::crontab::Cron;
use std::collections::BTreeSet;

/// Reproducible random numbers: SplitMix64.
pub(in crate::cron) struct Dice(pub(in crate::cron) u64);

impl Dice {
    pub(in crate::cron) fn roll(&mut self, sides: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % u64::from(sides)) as u32
    }
}

/// How many lines, days and so on are tested. An environment variable can set more, for a release build.
fn many(variable: &str, usual: usize) -> usize {
    std::env::var(variable).ok().and_then(|count| count.parse().ok()).unwrap_or(usual)
}

const BOUNDS: [(u32, u32); 5] = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)];

/// Five random valid fields.
pub(in crate::cron) fn fields(dice: &mut Dice) -> String {
    let field = |dice: &mut Dice, (least, most): (u32, u32)| {
        let parts = 1 + dice.roll(3);
        let part = |dice: &mut Dice| match dice.roll(6) {
            0 | 1 => "*".to_owned(),
            2 => format!("*/{}", 1 + dice.roll(70)),
            3 => {
                let first = least + dice.roll(most - least);
                format!("{first}-{}", first + 1 + dice.roll(most - first))
            }
            _ => (least + dice.roll(most - least + 1)).to_string(),
        };
        (0..parts).map(|_| part(dice)).collect::<Vec<_>>().join(",")
    };
    BOUNDS.map(|bounds| field(dice, bounds)).join(" ")
}

/// The definition: the numbers of each field, and the rule of the two day fields.
struct Oracle([Vec<bool>; 5]);

impl Oracle {
    fn new(line: &str) -> Self {
        let words: Vec<&str> = line.split(' ').collect();
        Self(std::array::from_fn(|at| {
            let (least, most) = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6)][at];
            let mut numbers = vec![false; 60];
            for part in words[at].split(',') {
                let listed: Vec<usize> = if part == "*" {
                    (least..=most).collect()
                } else if let Some(step) = part.strip_prefix("*/") {
                    let step: usize = step.parse().unwrap();
                    (least..=most).filter(|n| (n - least) % step == 0).collect()
                } else if let Some((a, b)) = part.split_once('-') {
                    (a.parse().unwrap()..=b.parse().unwrap()).collect()
                } else {
                    vec![part.parse().unwrap()]
                };
                listed.into_iter().for_each(|n| numbers[if at == 4 && n == 7 { 0 } else { n }] = true);
            }
            numbers
        }))
    }

    fn every_hour(&self) -> bool {
        self.0[1][..24].iter().all(|hour| *hour)
    }

    fn day(&self, at: NaiveDateTime) -> bool {
        let [_, _, days, months, weekdays] = &self.0;
        let date = days[at.day() as usize];
        let weekday = weekdays[at.weekday().num_days_from_sunday() as usize];
        let days_restricted = days[1..=31].contains(&false);
        let weekdays_restricted = weekdays[..=6].contains(&false);
        let right_day = match (days_restricted, weekdays_restricted) {
            (true, true) => date || weekday,
            (true, false) => date,
            (false, true) => weekday,
            (false, false) => true,
        };
        months[at.month() as usize] && right_day
    }

    fn due(&self, at: NaiveDateTime) -> bool {
        self.0[0][at.minute() as usize] && self.0[1][at.hour() as usize] && self.day(at)
    }
}

fn schedule(line: &str) -> Schedule {
    Cron::parse(&format!("{line} t")).unwrap_or_else(|e| panic!("{line}: {e}")).remove(0).schedule
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

#[test]
fn random_lines_match_the_oracle_on_random_days() {
    let mut dice = Dice(20260301);
    let (lines, days) = (many("GW_CRON_LINES", 200), many("GW_CRON_DAYS", 20));
    for _ in 0..lines {
        let line = fields(&mut dice);
        let (schedule, oracle) = (schedule(&line), Oracle::new(&line));
        for _ in 0..days {
            let day = at("2000-01-01T00:00:00Z") + Duration::days(i64::from(dice.roll(36_525)));
            for minute in 0..1440 {
                let at = day + Duration::minutes(minute);
                assert_eq!(schedule.is_due(at), oracle.due(at.naive_utc()), "{line:?} at {at}");
            }
        }
    }
}

#[test]
fn next_runs_of_random_lines_match_the_oracle_for_two_years() {
    let mut dice = Dice(7);
    for _ in 0..many("GW_CRON_PREVIEWS", 4) {
        let line = fields(&mut dice);
        let (schedule, oracle) = (schedule(&line), Oracle::new(&line));
        let (start, end) = (at("2027-06-01T00:00:00Z"), at("2029-06-01T00:00:00Z"));
        let mut next = schedule.next_after(start - Duration::minutes(1));
        let mut minute = start;
        while minute < end {
            if oracle.due(minute.naive_utc()) {
                assert_eq!(next, Some(minute), "{line:?}");
                next = schedule.next_after(minute);
            }
            minute += Duration::minutes(1);
        }
        assert!(next.is_none_or(|next| next >= end), "{line:?} also names {next:?}");
    }
}

#[test]
fn each_time_is_due_once_at_every_clock_change_of_a_year() {
    let lines = ["30 2 * * *", "*/20 0-3,23 * * *", "15 0 1-31 * 1", "0 12 * * *", "30 * * * *"];
    let oracles = lines.map(|line| (schedule(line), Oracle::new(line)));
    // Zones that change their clocks by the same at the same moment are alike around it.
    let (mut found, mut changes) = (0, BTreeSet::new());
    let mut zones = Vec::new();
    for zone in chrono_tz::TZ_VARIANTS {
        let offset = |at: DateTime<Utc>| zone.offset_from_utc_datetime(&at.naive_utc()).fix();
        for day in (0..365).map(|day| at("2026-01-01T00:00:00Z") + Duration::days(day)) {
            if offset(day) != offset(day + Duration::days(1)) {
                let hours = (0..24).map(|hour| day + Duration::hours(hour));
                for hour in hours {
                    let (before, after) = (offset(hour), offset(hour + Duration::hours(1)));
                    found += usize::from(before != after);
                    if before != after && changes.insert((hour, before.local_minus_utc(), after.local_minus_utc())) {
                        zones.push((zone, hour, before, after));
                    }
                }
            }
        }
    }
    assert!(found > 200 && zones.len() > 20, "only {found} changes of {} kinds were found", zones.len());
    for (zone, hour, before, after) in zones {
        for (schedule, oracle) in &oracles {
            let schedule = Schedule { zone: Some(zone), ..schedule.clone() };
            // Two days around the change, in local time.
            let middle = hour.naive_utc() + before;
            let (start, end) = (middle - Duration::days(1), middle + Duration::days(1));
            let wall = (0..2880).map(|minute| start + Duration::minutes(minute));
            let meant = wall.filter(|wall| oracle.due(*wall)).flat_map(|wall| match zone.from_local_datetime(&wall) {
                LocalResult::Single(only) => vec![only.to_utc()],
                LocalResult::Ambiguous(first, second) if oracle.every_hour() => {
                    vec![first.to_utc(), second.to_utc()]
                }
                LocalResult::Ambiguous(first, _) => vec![first.to_utc()],
                LocalResult::None if oracle.every_hour() => vec![],
                LocalResult::None => vec![(wall - before).and_utc()],
            });
            let far = Duration::hours(3);
            let inside =
                |at: &DateTime<Utc>| *at >= (start - before).and_utc() + far && *at < (end - after).and_utc() - far;
            let meant: BTreeSet<_> = meant.filter(inside).collect();
            let minutes = (0..2880).map(|minute| (start - before).and_utc() + Duration::minutes(minute));
            let due: BTreeSet<_> = minutes.filter(inside).filter(|at| schedule.is_due(*at)).collect();
            assert_eq!(due, meant, "{zone} around {hour}");
        }
    }
}

#[test]
fn rules_that_other_implementations_got_wrong() {
    #[track_caller]
    fn check(line: &str, after: &str, expected: &[&str]) {
        let cron = Cron::parse(line).unwrap().remove(0);
        let runs = cron.next_runs_after(at(after), expected.len());
        assert_eq!(runs, expected.iter().map(|run| at(run)).collect::<Vec<_>>(), "{line}");
    }
    let new_year = "2026-01-01T00:00:00Z"; // A Thursday.
    check("0 0 * * 0 t", new_year, &["2026-01-04T00:00:00Z", "2026-01-11T00:00:00Z"]);
    check("0 0 * * 7 t", new_year, &["2026-01-04T00:00:00Z"]);
    check("0 0 * * 5-7 t", new_year, &["2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z", "2026-01-04T00:00:00Z"]);
    // If both day fields are restricted, one match is enough. A field that names every day is not a restriction.
    check("0 0 13 * 1 t", new_year, &["2026-01-05T00:00:00Z", "2026-01-12T00:00:00Z", "2026-01-13T00:00:00Z"]);
    check("0 0 1-31 * 1 t", new_year, &["2026-01-05T00:00:00Z", "2026-01-12T00:00:00Z"]);
    check(
        "0 0 */10 * * t",
        new_year,
        &["2026-01-11T00:00:00Z", "2026-01-21T00:00:00Z", "2026-01-31T00:00:00Z", "2026-02-01T00:00:00Z"],
    );
    check("0 0 * * */2 t", new_year, &["2026-01-03T00:00:00Z", "2026-01-04T00:00:00Z", "2026-01-06T00:00:00Z"]);
    check("0 0 */1 */1 */1 t", new_year, &["2026-01-02T00:00:00Z"]);
    check("0 0 29 2 * t", new_year, &["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"]);
    check("0 0 29 2 * t", "2096-03-01T00:00:00Z", &["2104-02-29T00:00:00Z"]);
    check("0 0 31 2 * t", new_year, &[]);
    // The clock of Berlin skips 02:30 on one day, and shows it twice on another.
    check("30 2 * * * t ?tz=Europe/Berlin", "2026-03-28T12:00:00Z", &["2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"]);
    check("30 2 * * * t ?tz=Europe/Berlin", "2026-10-24T12:00:00Z", &["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
    check(
        "30 * * * * t ?tz=Europe/Berlin",
        "2026-10-25T00:00:00Z",
        &["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"],
    );
    // Samoa skipped this whole day.
    check("0 8 30 12 * t ?tz=Pacific/Apia", "2011-12-29T00:00:00Z", &["2011-12-30T18:00:00Z", "2012-12-29T18:00:00Z"]);
}
