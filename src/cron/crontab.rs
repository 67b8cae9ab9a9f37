//! `Cron`: an entry, written with types or as a line of crontab text. Knows no clock and no database.

use super::payload::{Fault, Members, is_space, quoted};
use super::schedule::{DAY, Field, HOUR, MINUTE, MONTH, Schedule, ValueSet, WEEKDAY};
use crate::error::{Error, ErrorKind, Result};
use crate::job::spec::{JobKeyMode, JobSpec, RawJob, TaskName, check_text};
use crate::tasks::TaskHandler;
use chrono::{DateTime, Utc, Weekday};
use serde::Serialize;
use serde_json::json;
use std::collections::HashMap;
use std::time::Duration;

/// How far back missed ticks can be made up for.
const LONGEST_FILL: Duration = Duration::from_secs(10 * 366 * 86_400);

/// One entry of a crontab: a task, when a job of it is added, and what that job is like.
///
/// Times are UTC unless [`tz`](Self::tz) says otherwise. Where day of month and day of week are both
/// restricted, either is enough. Each tick adds exactly one job, however many workers have the entry;
/// its payload is [`payload`](Self::payload) and, under `_cron`, the tick's time `ts` and whether it
/// was `backfilled`. A task's payload type must therefore be readable from an object: an empty struct
/// is written `struct Report {}`.
///
/// ```
/// use graphile_worker::{Cron, CrontabFill};
/// # use graphile_worker::{IntoTaskHandlerResult, TaskHandler, WorkerContext};
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct Report { kind: String }
/// # impl TaskHandler for Report {
/// #     const IDENTIFIER: &'static str = "report";
/// #     fn run(self, _ctx: WorkerContext) -> impl IntoTaskHandlerResult {}
/// # }
/// # fn main() -> graphile_worker::Result<()> {
/// let daily = Cron::daily_at::<Report>(8, 0)?
///     .fill(CrontabFill::hours(1))
///     .payload(Report { kind: "sales".into() })?;
/// let after = "2026-03-01T12:00:00Z".parse().expect("a time");
/// assert_eq!(daily.next_runs_after(after, 1)[0].to_rfc3339(), "2026-03-02T08:00:00+00:00");
///
/// let text = Cron::parse("0 8 * * * report ?fill=1h {kind: 'sales'}")?;
/// assert_eq!(text, [daily]);
/// # Ok(()) }
/// ```
/// Source: the guide, Cron.
#[derive(Clone, PartialEq)]
pub struct Cron {
    task: String,
    id: Option<String>,
    pub(crate) schedule: Schedule,
    pub(crate) fill: CrontabFill,
    pub(crate) spec: JobSpec,
    payload: Members,
}

/// How far back an entry makes up for ticks that were missed while no worker ran. Default: not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CrontabFill(Duration);

impl CrontabFill {
    /// So many weeks, days, hours, minutes and seconds together.
    pub fn new(weeks: u32, days: u32, hours: u32, minutes: u32, seconds: u32) -> Self {
        let [weeks, days, hours, minutes, seconds] = [weeks, days, hours, minutes, seconds].map(u64::from);
        Self(Duration::from_secs(weeks * 604_800 + days * 86_400 + hours * 3600 + minutes * 60 + seconds))
    }

    /// So many seconds.
    pub fn seconds(seconds: u32) -> Self {
        Self::new(0, 0, 0, 0, seconds)
    }

    /// So many minutes.
    pub fn minutes(minutes: u32) -> Self {
        Self::new(0, 0, 0, minutes, 0)
    }

    /// So many hours.
    pub fn hours(hours: u32) -> Self {
        Self::new(0, 0, hours, 0, 0)
    }

    /// So many days.
    pub fn days(days: u32) -> Self {
        Self::new(0, days, 0, 0, 0)
    }

    /// So many weeks.
    pub fn weeks(weeks: u32) -> Self {
        Self::new(weeks, 0, 0, 0, 0)
    }

    pub(crate) fn duration(self) -> Duration {
        self.0
    }
}

impl Cron {
    fn of<T: TaskHandler>(schedule: Schedule) -> Self {
        Self {
            task: T::IDENTIFIER.to_owned(),
            id: None,
            schedule,
            fill: CrontabFill::default(),
            spec: JobSpec::new(),
            payload: Members::default(),
        }
    }

    /// Every minute.
    pub fn every_minute<T: TaskHandler>() -> Self {
        Self::of::<T>(Schedule::every_minute())
    }

    /// Every hour at the minutes 0, `n`, 2 `n` and so on.
    ///
    /// # Errors
    /// `Config` unless `n` is 1 to 60.
    pub fn every_n_minutes<T: TaskHandler>(n: u32) -> Result<Self> {
        within("every_n_minutes", n, 1, 60)?;
        Ok(Self::of::<T>(Schedule { minutes: ValueSet::stepped(0..=59, n as usize), ..Schedule::every_minute() }))
    }

    /// Every hour at this minute.
    ///
    /// # Errors
    /// `Config` unless it is 0 to 59.
    pub fn hourly_at<T: TaskHandler>(minute: u32) -> Result<Self> {
        Ok(Self::of::<T>(Schedule { minutes: only(MINUTE, minute)?, ..Schedule::every_minute() }))
    }

    /// Every day at this hour and minute.
    ///
    /// # Errors
    /// `Config` naming the number that is outside its field.
    pub fn daily_at<T: TaskHandler>(hour: u32, minute: u32) -> Result<Self> {
        let mut cron = Self::hourly_at::<T>(minute)?;
        cron.schedule.hours = only(HOUR, hour)?;
        Ok(cron)
    }

    /// Every week on this day, at this hour and minute.
    ///
    /// # Errors
    /// As [`daily_at`](Self::daily_at).
    pub fn weekly_on<T: TaskHandler>(weekday: Weekday, hour: u32, minute: u32) -> Result<Self> {
        let mut cron = Self::daily_at::<T>(hour, minute)?;
        cron.schedule.weekdays = ValueSet::one(weekday.num_days_from_sunday());
        Ok(cron)
    }

    /// Every month that has this day, at this hour and minute.
    ///
    /// # Errors
    /// As [`daily_at`](Self::daily_at).
    pub fn monthly_on<T: TaskHandler>(day: u32, hour: u32, minute: u32) -> Result<Self> {
        let mut cron = Self::daily_at::<T>(hour, minute)?;
        cron.schedule.days = only(DAY, day)?;
        Ok(cron)
    }

    /// Every year that has this day, at this hour and minute.
    ///
    /// # Errors
    /// As [`daily_at`](Self::daily_at).
    pub fn yearly_on<T: TaskHandler>(month: u32, day: u32, hour: u32, minute: u32) -> Result<Self> {
        let mut cron = Self::monthly_on::<T>(day, hour, minute)?;
        cron.schedule.months = only(MONTH, month)?;
        Ok(cron)
    }

    /// Reads crontab text: lines of five fields, a task, options and a payload, as Node's
    /// graphile-worker has them, and `tz=Area/City` beside its options. Lines that are empty or begin
    /// with `#` are left out.
    ///
    /// A task's name of letters, digits, `_`, `:`, `/`, `-` and `.` that begins with a letter or `_` stands as it is,
    /// any other in quotes: `* * * * * "9 to 5"`. A payload is an object of JSON5. Its numbers keep their digits;
    /// `Infinity` and `NaN` are refused, as JSON does not have them.
    ///
    /// # Errors
    /// `Config` with line and column of the first mistake; nothing of the text is used then.
    pub fn parse(text: &str) -> Result<Vec<Self>> {
        let mut entries = Vec::new();
        let mut lines: HashMap<String, usize> = HashMap::new();
        for (place, whole) in text.strip_prefix('\u{feff}').unwrap_or(text).split('\n').enumerate() {
            let line = Line { number: place + 1, whole };
            let trimmed = whole.trim_matches(is_space);
            if trimmed.is_empty() || trimmed.starts_with('#') {
                continue;
            }
            let entry = line.parse(trimmed)?;
            if let Some(earlier) = lines.insert(entry.identifier().to_owned(), line.number) {
                let text = format!(
                    "identifier {:?} stands in line {earlier} already; give one of them another with ?id=",
                    entry.identifier()
                );
                return Err(line.error(trimmed, text));
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// How far back missed ticks are made up for. Default: not at all; a pause of up to five minutes
    /// between two schedulers loses no tick in any case. At most ten years.
    pub fn fill(mut self, fill: CrontabFill) -> Self {
        self.fill = fill;
        self
    }

    /// The name under which the database remembers the entry; needed when a task has several. 1 to
    /// 512 characters. Default: the task's name. An entry with another name is a new one.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// The queue of its jobs; see [`JobSpec::queue_name`].
    pub fn queue(mut self, name: impl Into<String>) -> Self {
        self.spec.queue_name = Some(name.into());
        self
    }

    /// The priority of its jobs; see [`JobSpec::priority`].
    pub fn priority(mut self, priority: i32) -> Self {
        self.spec.priority = Some(priority);
        self
    }

    /// How often its jobs are tried; see [`JobSpec::max_attempts`].
    pub fn max_attempts(mut self, attempts: i32) -> Self {
        self.spec.max_attempts = Some(attempts);
        self
    }

    /// The key of its jobs: a tick takes over a job of an earlier one that still waits.
    pub fn job_key(mut self, key: impl Into<String>) -> Self {
        self.spec.job_key = Some(key.into());
        self
    }

    /// What happens to a job of the key that still waits: `Replace`, the default, or `PreserveRunAt`.
    pub fn job_key_mode(mut self, mode: JobKeyMode) -> Self {
        self.spec.job_key_mode = Some(mode);
        self
    }

    /// What its jobs carry beside `_cron`. Default: nothing.
    ///
    /// # Errors
    /// `Payload` if it does not serialize, or not to an object.
    pub fn payload(mut self, payload: impl Serialize) -> Result<Self> {
        let text = serde_json::to_string(&payload)
            .map_err(|e| Error::new(ErrorKind::Payload, "the payload does not serialize to JSON").caused_by(e))?;
        if !text.starts_with('{') {
            return Err(Error::new(ErrorKind::Payload, "the payload of a crontab entry must be an object"));
        }
        self.payload = Members::parse(&text)
            .map_err(|fault| Error::new(ErrorKind::Payload, format!("the payload {}", fault.why)))?;
        Ok(self)
    }

    /// The time zone in which the fields are meant, as `Europe/Berlin`. Default: UTC.
    ///
    /// An entry of every hour follows the clock as it shows. Any other runs each of its times once a
    /// day: one that the clock shows twice at the first, one that the clock leaves out as long after
    /// the change as it would have been into the gap (02:30 becomes 03:30): the rule of RFC 5545.
    /// Two that fall on one minute in this way are one tick.
    ///
    /// # Errors
    /// `Config` if nobody knows the zone.
    pub fn tz(mut self, zone: &str) -> Result<Self> {
        self.schedule.zone = Some(zone.parse().map_err(|_| Error::config(unknown_zone(zone)))?);
        Ok(self)
    }

    /// The name under which the database remembers the entry.
    pub fn identifier(&self) -> &str {
        self.id.as_deref().unwrap_or(&self.task)
    }

    /// The task of its jobs.
    pub fn task_identifier(&self) -> &str {
        &self.task
    }

    /// A preview: the next `n` ticks by this machine's clock. Fewer if there are no more.
    pub fn next_runs(&self, n: usize) -> Vec<DateTime<Utc>> {
        self.next_runs_after(Utc::now(), n)
    }

    /// A preview: the first `n` ticks after a time.
    pub fn next_runs_after(&self, after: DateTime<Utc>, n: usize) -> Vec<DateTime<Utc>> {
        let first = self.schedule.next_after(after);
        std::iter::successors(first, |tick| self.schedule.next_after(*tick)).take(n).collect()
    }

    /// Checks every option against its limit.
    pub(crate) fn check(&self) -> Result<()> {
        let check = || {
            TaskName::new(&self.task)?;
            check_text("id", self.identifier(), 1..=512)?;
            if self.spec.job_key_mode == Some(JobKeyMode::UnsafeDedupe) {
                return Err(Error::config("job_key_mode: a crontab entry takes replace or preserve_run_at"));
            }
            if self.fill.duration() > LONGEST_FILL {
                return Err(Error::config("fill: is longer than ten years"));
            }
            self.spec.check()
        };
        check().map_err(|e| e.context(format_args!("crontab entry {:?}", self.identifier())))
    }

    /// What of it the database is to hold, each text with the name of its field.
    pub(crate) fn texts(&self) -> Vec<(String, String)> {
        let mut texts = vec![("id", self.identifier().to_owned()), ("task name", self.task.clone())];
        texts.extend(self.spec.queue_name.clone().map(|name| ("queue", name)));
        texts.extend(self.spec.job_key.clone().map(|key| ("job_key", key)));
        texts.push(("payload", self.payload.text()));
        let of = |field| format!("crontab entry {:?}: {field}", self.identifier());
        texts.into_iter().map(|(field, text)| (of(field), text)).collect()
    }

    /// The job of one tick.
    pub(crate) fn job_at(&self, tick: DateTime<Utc>, backfilled: bool) -> RawJob {
        let mut payload = self.payload.clone();
        let ts = tick.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        payload.set("_cron", json!({ "ts": ts, "backfilled": backfilled }).to_string());
        RawJob {
            identifier: self.task.clone(),
            payload: payload.text(),
            spec: JobSpec { run_at: Some(tick), ..self.spec.clone() },
        }
    }
}

/// Two entries of one name would take each other's ticks.
pub(crate) fn check_all(entries: &[Cron]) -> Result<()> {
    let mut tasks: HashMap<&str, &str> = HashMap::new();
    for entry in entries {
        entry.check()?;
        if tasks.insert(entry.identifier(), &entry.task).is_some() {
            return Err(Error::config(format!(
                "crontab entry {:?}: occurs twice; give one of them another id",
                entry.identifier()
            )));
        }
    }
    Ok(())
}

/// Without the payload, which may hold secrets.
impl std::fmt::Debug for Cron {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Cron");
        shown.field("identifier", &self.identifier()).field("task", &self.task).field("schedule", &self.schedule);
        shown.field("fill", &self.fill).field("spec", &self.spec).finish_non_exhaustive()
    }
}

fn within(name: &str, number: u32, least: u32, most: u32) -> Result<()> {
    match (least..=most).contains(&number) {
        true => Ok(()),
        false => Err(Error::config(format!("{name}: {number} is outside {least} to {most}"))),
    }
}

fn only(field: Field, number: u32) -> Result<ValueSet> {
    within(field.name, number, field.least, field.most)?;
    Ok(ValueSet::one(number))
}

fn unknown_zone(zone: &str) -> String {
    format!("time zone {zone:?} is not known; write it as Europe/Berlin")
}

/// A line of the text. What is found wrong is a piece of it, which tells the column.
#[derive(Clone, Copy)]
struct Line<'a> {
    number: usize,
    whole: &'a str,
}

impl<'a> Line<'a> {
    /// An error at the beginning of `piece`, which is a slice of this line.
    fn error(self, piece: &str, text: impl std::fmt::Display) -> Error {
        let before = (piece.as_ptr() as usize).saturating_sub(self.whole.as_ptr() as usize).min(self.whole.len());
        let column = self.whole.get(..before).map_or(0, |before| before.chars().count()) + 1;
        self.error_at(column, text)
    }

    fn error_at(self, column: usize, text: impl std::fmt::Display) -> Error {
        Error::config(format!("crontab line {}, column {column}: {text}", self.number))
    }

    fn parse(self, text: &'a str) -> Result<Cron> {
        let mut rest = text;
        let mut sets = [ValueSet::EMPTY; 5];
        for (set, field) in sets.iter_mut().zip([MINUTE, HOUR, DAY, MONTH, WEEKDAY]) {
            let (word, after) = word(rest);
            if word.is_empty() {
                return Err(
                    self.error(rest, format!("the {} is missing; a line has five fields and a task", field.name))
                );
            }
            *set = self.field(word, field)?;
            rest = after;
        }
        let [minutes, hours, days, months, weekdays] = sets;
        let (task, after) = self.task(rest)?;
        let mut entry = Cron {
            task,
            id: None,
            schedule: Schedule { minutes, hours, days, months, weekdays, zone: None },
            fill: CrontabFill::default(),
            spec: JobSpec::new(),
            payload: Members::default(),
        };
        rest = after.trim_start_matches(is_space);
        if rest.starts_with('?') {
            let (options, after) = word(rest);
            self.options(&mut entry, &options[1..])?;
            rest = after;
        }
        if rest.starts_with('{') {
            entry.payload = self.payload(rest)?;
        } else if !rest.is_empty() {
            let text =
                "here ?options, a {payload} or the end of the line is expected; a comment needs a line of its own";
            return Err(self.error(rest, text));
        }
        Ok(entry)
    }

    /// A task's name, and what follows it.
    fn task(self, text: &'a str) -> Result<(String, &'a str)> {
        let (task, after) = if text.starts_with(['"', '\'']) {
            let (task, end) = quoted(text).map_err(|Fault { at, why }| {
                // The reader of payloads says it of those.
                let why = why.trim_start_matches("is not an object of JSON5: ");
                self.error(&text[at..], format!("the task's name in quotes: {why}"))
            })?;
            (task, &text[end..])
        } else {
            let (task, after) = text.split_at(text.find(|c| !is_plain(c)).unwrap_or(text.len()));
            if !task.starts_with(|c: char| c == '_' || c.is_alphabetic()) {
                let text = "here a task's name is expected: a letter or _, then letters, digits, _ : / - and .; \
                     any other name stands in quotes";
                return Err(self.error(task, text));
            }
            (task.to_owned(), after)
        };
        TaskName::new(&task).map_err(|e| self.error(text, e))?;
        Ok((task, after))
    }

    /// A list of numbers, ranges, `*` and `*/step`.
    fn field(self, text: &str, field: Field) -> Result<ValueSet> {
        let Field { name, least, most } = field;
        let mut set = ValueSet::EMPTY;
        for part in text.split(',') {
            let refuse = |text: String| Err(self.error(part, text));
            let number = |text: &str| match text.bytes().all(|c| c.is_ascii_digit()) {
                // What is too long to be read is outside as well.
                true if !text.is_empty() => Some(text.parse::<u32>().unwrap_or(u32::MAX)),
                _ => None,
            };
            // 7 is another Sunday.
            let top = if field == WEEKDAY { 7 } else { most };
            let outside = |n: u32| !(least..=top).contains(&n);
            let one = |n: u32| ValueSet::one(if field == WEEKDAY { n % 7 } else { n });
            let bounds = || format!("allowed are {least} to {top}");
            set = set.with(if part == "*" {
                ValueSet::all(field)
            } else if let Some(step) = part.strip_prefix("*/") {
                match number(step) {
                    Some(step) if step > 0 => ValueSet::stepped(least..=most, step as usize),
                    _ => return refuse(format!("{name}: the step {step:?} is not a number from 1")),
                }
            } else if let Some((first, last)) = part.split_once('-') {
                match (number(first), number(last)) {
                    (Some(first), Some(last)) if outside(first) || outside(last) => {
                        return refuse(format!("{name}: the range {part:?} leaves the field; {}", bounds()));
                    }
                    (Some(first), Some(last)) if first < last => {
                        (first..=last).fold(ValueSet::EMPTY, |set, n| set.with(one(n)))
                    }
                    (Some(_), Some(_)) => {
                        return refuse(format!("{name}: the range {part:?} must end after its beginning"));
                    }
                    _ => return refuse(format!("{name}: {part:?} is not a range as 1-5")),
                }
            } else {
                match number(part) {
                    Some(n) if outside(n) => {
                        return refuse(format!("{name}: {part} is outside the field; {}", bounds()));
                    }
                    Some(n) => one(n),
                    None => return refuse(format!("{name}: {part:?} is not a number, a range, * or */step")),
                }
            });
        }
        Ok(set)
    }

    /// `key=value` pairs with `&` between them, encoded as in a URL.
    fn options(self, entry: &mut Cron, text: &str) -> Result<()> {
        if text.is_empty() {
            return Err(self.error(text, "after ? an option is expected"));
        }
        let mut seen: Vec<String> = Vec::new();
        for part in text.split('&').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let (Some(key), Some(value)) = (decode(key), decode(value)) else {
                return Err(self.error(part, "the bytes written with % are not UTF-8"));
            };
            // Node's spelling and the async crate's.
            let key = match key.as_str() {
                "jobKey" => "job_key",
                "jobKeyMode" => "job_key_mode",
                other => other,
            };
            if seen.iter().any(|seen| seen == key) {
                return Err(self.error(part, format!("option {key:?} is given twice")));
            }
            seen.push(key.to_owned());
            let refuse = |what: &str| self.error(part, format!("{key}: {value:?} is not {what}"));
            let spec = &mut entry.spec;
            match key {
                "id" => {
                    let starts = value.starts_with(|c: char| c == '_' || c.is_alphabetic());
                    if !(starts && value.chars().all(is_plain)) {
                        return Err(refuse("a letter or _, then letters, digits, _ : / - and ."));
                    }
                    entry.id = Some(value);
                }
                "fill" => {
                    entry.fill = fill(&value).ok_or_else(|| refuse("a time as 1w2d3h4m5s, of at most ten years"))?
                }
                "max" => {
                    let digits = !value.is_empty() && value.bytes().all(|c| c.is_ascii_digit());
                    let max = digits.then(|| value.parse().ok()).flatten();
                    spec.max_attempts = Some(max.ok_or_else(|| refuse("a number from 1 to 32767"))?);
                }
                "queue" => {
                    let written = part.split_once('=').map_or("", |(_, value)| value);
                    if value.is_empty() || !written.chars().all(|c| is_plain(c) || "%+".contains(c)) {
                        return Err(refuse("made of letters, digits, _ : / - and .; write others as %21"));
                    }
                    spec.queue_name = Some(value);
                }
                "job_key" => spec.job_key = Some(value),
                "job_key_mode" => {
                    spec.job_key_mode = Some(match value.as_str() {
                        "replace" => JobKeyMode::Replace,
                        "preserve_run_at" => JobKeyMode::PreserveRunAt,
                        _ => return Err(refuse("replace or preserve_run_at")),
                    });
                }
                "priority" => {
                    let digits = value.strip_prefix('-').unwrap_or(&value);
                    let digits = !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit());
                    let priority = digits.then(|| value.parse().ok()).flatten();
                    spec.priority = Some(priority.ok_or_else(|| refuse("a number from -32768 to 32767"))?);
                }
                "tz" => {
                    entry.schedule.zone = Some(value.parse().map_err(|_| self.error(part, unknown_zone(&value)))?);
                }
                _ => {
                    let text = "is not known; there are id, fill, max, queue, jobKey, jobKeyMode, priority and tz";
                    return Err(self.error(part, format!("option {key:?} {text}")));
                }
            }
            // Node takes a mode without a key, and it means nothing.
            let alone = JobSpec { job_key_mode: None, ..entry.spec.clone() };
            alone.check().map_err(|e| self.error(part, e))?;
        }
        if entry.spec.job_key.is_none() {
            entry.spec.job_key_mode = None;
        }
        Ok(())
    }

    fn payload(self, text: &'a str) -> Result<Members> {
        Members::parse(text).map_err(|Fault { at, why }| self.error(&text[at..], format!("the payload {why}")))
    }
}

/// What a name may consist of where it stands without quotes.
fn is_plain(c: char) -> bool {
    c.is_alphanumeric() || "_:/-.".contains(c)
}

/// The first word, and what follows it and its spaces.
fn word(text: &str) -> (&str, &str) {
    let end = text.find(is_space).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start_matches(is_space))
}

/// As a browser writes a query: `+` is a space, `%20` as well; what is no such code stays. `None` if it is not UTF-8.
fn decode(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = bytes.get(at + 1..at + 3).filter(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        let code = code.and_then(|hex| std::str::from_utf8(hex).ok()).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], code) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 2;
            }
            (b'+', _) => decoded.push(b' '),
            (byte, _) => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8(decoded).ok()
}

/// One or more of `1w`, `2d`, `3h`, `4m`, `5s`, added up.
fn fill(text: &str) -> Option<CrontabFill> {
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let unit = match rest.as_bytes().get(digits)? {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 86_400,
            b'w' => 604_800,
            _ => return None,
        };
        total = total.checked_add(rest[..digits].parse::<u64>().ok()?.checked_mul(unit)?)?;
        rest = &rest[digits + 1..];
    }
    let fill = Duration::from_secs(total);
    (!text.is_empty() && fill <= LONGEST_FILL).then_some(CrontabFill(fill))
}

#[cfg(test)]
mod tests;
