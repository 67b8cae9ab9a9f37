//! `Cron`: a crontab entry, built with types or parsed from a line of crontab text. Knows no database.

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

/// The longest time for which `fill` can add the jobs of missed ticks: ten years.
const LONGEST_FILL: Duration = Duration::from_secs(10 * 366 * 86_400);

/// One entry of a crontab: a task, the times at which jobs of it are added, and the options of these jobs.
///
/// Times are UTC unless [`tz`](Self::tz) sets another time zone. If day of month and day of week are both restricted,
/// the entry is due when either matches. Each tick adds exactly one job, even if many workers have the entry. The job's
/// payload is [`payload`](Self::payload) plus the member `_cron`, which contains the tick's time `ts` and the flag
/// `backfilled`. So the payload type of the task must deserialize from an object: write an empty struct as `struct
/// Report {}`.
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
/// See the deployment guide, section Cron (docs/deployment-guide.async.md).
#[derive(Clone, PartialEq)]
pub struct Cron {
    task: String,
    id: Option<String>,
    pub(crate) schedule: Schedule,
    pub(crate) fill: CrontabFill,
    pub(crate) spec: JobSpec,
    payload: Members,
}

/// For how long back an entry adds the jobs of ticks that were missed while no worker ran. Default: zero, which adds
/// none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CrontabFill(Duration);

impl CrontabFill {
    /// The sum of the given weeks, days, hours, minutes and seconds.
    pub fn new(weeks: u32, days: u32, hours: u32, minutes: u32, seconds: u32) -> Self {
        let [weeks, days, hours, minutes, seconds] = [weeks, days, hours, minutes, seconds].map(u64::from);
        Self(Duration::from_secs(weeks * 604_800 + days * 86_400 + hours * 3600 + minutes * 60 + seconds))
    }

    /// The given number of seconds.
    pub fn seconds(seconds: u32) -> Self {
        Self::new(0, 0, 0, 0, seconds)
    }

    /// The given number of minutes.
    pub fn minutes(minutes: u32) -> Self {
        Self::new(0, 0, 0, minutes, 0)
    }

    /// The given number of hours.
    pub fn hours(hours: u32) -> Self {
        Self::new(0, 0, hours, 0, 0)
    }

    /// The given number of days.
    pub fn days(days: u32) -> Self {
        Self::new(0, days, 0, 0, 0)
    }

    /// The given number of weeks.
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

    /// Every hour at the minutes 0, `n`, 2 * `n` and so on, up to 59.
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
    /// `Config` unless `minute` is 0 to 59.
    pub fn hourly_at<T: TaskHandler>(minute: u32) -> Result<Self> {
        Ok(Self::of::<T>(Schedule { minutes: only(MINUTE, minute)?, ..Schedule::every_minute() }))
    }

    /// Every day at this hour and minute.
    ///
    /// # Errors
    /// `Config` if a number is outside its field. The text names the field and the number.
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

    /// Parses crontab text. Each line has five fields, a task, options and a payload, in the format of Node's
    /// graphile-worker. In addition to its options there is `tz=Area/City`. Empty lines and lines that begin with `#`
    /// are ignored.
    ///
    /// A task name needs no quotes if it begins with a letter or `_` and consists of letters, digits, `_`, `:`, `/`,
    /// `-` and `.`. Any other name is written in quotes: `* * * * * "9 to 5"`. A payload is a JSON5 object. Its numbers
    /// keep their digits. `Infinity` and `NaN` are refused, because JSON does not have them.
    ///
    /// # Errors
    /// `Config` with line and column of the first error. No entry is returned then.
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
                    "identifier {:?} is already used in line {earlier}; set another one with ?id=",
                    entry.identifier()
                );
                return Err(line.error(trimmed, text));
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// Sets for how long back the jobs of missed ticks are added. Default: zero. At most ten years. If no scheduler ran
    /// for five minutes or less, no tick is lost in any case.
    pub fn fill(mut self, fill: CrontabFill) -> Self {
        self.fill = fill;
        self
    }

    /// Sets the identifier by which the database knows the entry. Required if a task has several entries. 1 to 512
    /// characters. Default: the task's name. An entry with another identifier is a new entry.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Sets the queue of the jobs; see [`JobSpec::queue_name`].
    pub fn queue(mut self, name: impl Into<String>) -> Self {
        self.spec.queue_name = Some(name.into());
        self
    }

    /// Sets the priority of the jobs; see [`JobSpec::priority`].
    pub fn priority(mut self, priority: i32) -> Self {
        self.spec.priority = Some(priority);
        self
    }

    /// Sets how often the jobs are attempted; see [`JobSpec::max_attempts`].
    pub fn max_attempts(mut self, attempts: i32) -> Self {
        self.spec.max_attempts = Some(attempts);
        self
    }

    /// Sets the job key of the jobs. If the job of an earlier tick still waits, a tick replaces it instead of adding
    /// one.
    pub fn job_key(mut self, key: impl Into<String>) -> Self {
        self.spec.job_key = Some(key.into());
        self
    }

    /// Sets what happens to a waiting job with the same key: `Replace`, the default, or `PreserveRunAt`.
    pub fn job_key_mode(mut self, mode: JobKeyMode) -> Self {
        self.spec.job_key_mode = Some(mode);
        self
    }

    /// Sets the payload of the jobs, to which each tick adds `_cron`. Default: an empty object.
    ///
    /// # Errors
    /// `Payload` if the value cannot be serialized, or is not serialized to an object.
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

    /// Sets the time zone of the fields, for example `Europe/Berlin`. Default: UTC.
    ///
    /// If the hour field allows all hours, the entry is due whenever the local clock shows a matching time. Any other
    /// entry is due once for each of its local times, by the rule of RFC 5545. If the clock shows a time twice, the
    /// entry is due at the first. If the clock skips a time, the entry is due later by the length of the gap (02:30
    /// becomes 03:30). If two times become the same minute in this way, they are one tick.
    ///
    /// # Errors
    /// `Config` if the time zone is unknown.
    pub fn tz(mut self, zone: &str) -> Result<Self> {
        self.schedule.zone = Some(zone.parse().map_err(|_| Error::config(unknown_zone(zone)))?);
        Ok(self)
    }

    /// The identifier by which the database knows the entry.
    pub fn identifier(&self) -> &str {
        self.id.as_deref().unwrap_or(&self.task)
    }

    /// The name of the task of the jobs.
    pub fn task_identifier(&self) -> &str {
        &self.task
    }

    /// Returns a preview: the next `n` ticks by this machine's clock, or fewer if there are no more.
    pub fn next_runs(&self, n: usize) -> Vec<DateTime<Utc>> {
        self.next_runs_after(Utc::now(), n)
    }

    /// Returns a preview: the first `n` ticks after `after`, or fewer if there are no more.
    pub fn next_runs_after(&self, after: DateTime<Utc>, n: usize) -> Vec<DateTime<Utc>> {
        let first = self.schedule.next_after(after);
        std::iter::successors(first, |tick| self.schedule.next_after(*tick)).take(n).collect()
    }

    /// Checks each option against its limit.
    pub(crate) fn check(&self) -> Result<()> {
        let check = || {
            TaskName::new(&self.task)?;
            check_text("id", self.identifier(), 1..=512)?;
            if self.spec.job_key_mode == Some(JobKeyMode::UnsafeDedupe) {
                return Err(Error::config("job_key_mode: a crontab entry allows only replace or preserve_run_at"));
            }
            if self.fill.duration() > LONGEST_FILL {
                return Err(Error::config("fill: is longer than ten years"));
            }
            self.spec.check()
        };
        check().map_err(|e| e.context(format_args!("crontab entry {:?}", self.identifier())))
    }

    /// The texts of the entry that the database stores, each with the name of its field.
    pub(crate) fn texts(&self) -> Vec<(String, String)> {
        let mut texts = vec![("id", self.identifier().to_owned()), ("task name", self.task.clone())];
        texts.extend(self.spec.queue_name.clone().map(|name| ("queue", name)));
        texts.extend(self.spec.job_key.clone().map(|key| ("job_key", key)));
        texts.push(("payload", self.payload.text()));
        let of = |field| format!("crontab entry {:?}: {field}", self.identifier());
        texts.into_iter().map(|(field, text)| (of(field), text)).collect()
    }

    /// Builds the job of one tick.
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

/// Checks all entries, and that no two have the same identifier: they would take each other's ticks.
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

/// Leaves out the payload, which may contain secrets.
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
    format!("time zone {zone:?} is unknown; use a name such as Europe/Berlin")
}

/// One line of crontab text. Errors refer to a slice of it, from which the column is computed.
#[derive(Clone, Copy)]
struct Line<'a> {
    number: usize,
    whole: &'a str,
}

impl<'a> Line<'a> {
    /// Creates an error at the start of `piece`, which is a slice of this line.
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
            let text = "expected ?options, a {payload} or the end of the line; a comment needs its own line";
            return Err(self.error(rest, text));
        }
        Ok(entry)
    }

    /// Parses a task name. Returns it and the rest of the line.
    fn task(self, text: &'a str) -> Result<(String, &'a str)> {
        let (task, after) = if text.starts_with(['"', '\'']) {
            let (task, end) = quoted(text).map_err(|Fault { at, why }| {
                // The payload parser puts this in front of its errors.
                let why = why.trim_start_matches("is not an object of JSON5: ");
                self.error(&text[at..], format!("the task's name in quotes: {why}"))
            })?;
            (task, &text[end..])
        } else {
            let (task, after) = text.split_at(text.find(|c| !is_plain(c)).unwrap_or(text.len()));
            if !task.starts_with(|c: char| c == '_' || c.is_alphabetic()) {
                let text = "expected a task name: a letter or _, then letters, digits, _ : / - and .; \
                     write any other name in quotes";
                return Err(self.error(task, text));
            }
            (task.to_owned(), after)
        };
        TaskName::new(&task).map_err(|e| self.error(text, e))?;
        Ok((task, after))
    }

    /// Parses one field: a list of numbers, ranges, `*` and `*/step`.
    fn field(self, text: &str, field: Field) -> Result<ValueSet> {
        let Field { name, least, most } = field;
        let mut set = ValueSet::EMPTY;
        for part in text.split(',') {
            let refuse = |text: String| Err(self.error(part, text));
            let number = |text: &str| match text.bytes().all(|c| c.is_ascii_digit()) {
                // A number that is too long for u32 is outside the field.
                true if !text.is_empty() => Some(text.parse::<u32>().unwrap_or(u32::MAX)),
                _ => None,
            };
            // 7 is Sunday, as 0 is.
            let top = if field == WEEKDAY { 7 } else { most };
            let outside = |n: u32| !(least..=top).contains(&n);
            let one = |n: u32| ValueSet::one(if field == WEEKDAY { n % 7 } else { n });
            let bounds = || format!("allowed are {least} to {top}");
            set = set.with(if part == "*" {
                ValueSet::all(field)
            } else if let Some(step) = part.strip_prefix("*/") {
                match number(step) {
                    Some(step) if step > 0 => ValueSet::stepped(least..=most, step as usize),
                    _ => return refuse(format!("{name}: the step {step:?} is not a number of at least 1")),
                }
            } else if let Some((first, last)) = part.split_once('-') {
                match (number(first), number(last)) {
                    (Some(first), Some(last)) if outside(first) || outside(last) => {
                        return refuse(format!("{name}: the range {part:?} is outside the field; {}", bounds()));
                    }
                    (Some(first), Some(last)) if first < last => {
                        (first..=last).fold(ValueSet::EMPTY, |set, n| set.with(one(n)))
                    }
                    (Some(_), Some(_)) => {
                        return refuse(format!("{name}: the range {part:?} must end after its start"));
                    }
                    _ => return refuse(format!("{name}: {part:?} is not a range such as 1-5")),
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

    /// Parses options: `key=value` pairs, separated by `&` and encoded as in a URL.
    fn options(self, entry: &mut Cron, text: &str) -> Result<()> {
        if text.is_empty() {
            return Err(self.error(text, "expected an option after ?"));
        }
        let mut seen: Vec<String> = Vec::new();
        for part in text.split('&').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let (Some(key), Some(value)) = (decode(key), decode(value)) else {
                return Err(self.error(part, "the bytes written with % are not UTF-8"));
            };
            // The names on the left are Node's, those on the right the async crate's.
            let key = match key.as_str() {
                "jobKey" => "job_key",
                "jobKeyMode" => "job_key_mode",
                other => other,
            };
            if seen.iter().any(|seen| seen == key) {
                return Err(self.error(part, format!("option {key:?} is given twice")));
            }
            seen.push(key.to_owned());
            self.option(entry, part, key, value)?;
            // As in Node, a mode without a key is allowed and has no effect.
            let alone = JobSpec { job_key_mode: None, ..entry.spec.clone() };
            alone.check().map_err(|e| self.error(part, e))?;
        }
        if entry.spec.job_key.is_none() {
            entry.spec.job_key_mode = None;
        }
        Ok(())
    }

    /// Sets one option. `part` is its text, for errors.
    fn option(self, entry: &mut Cron, part: &str, key: &str, value: String) -> Result<()> {
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
                entry.fill =
                    fill(&value).ok_or_else(|| refuse("a duration such as 1w2d3h4m5s, of at most ten years"))?
            }
            "max" => {
                let digits = !value.is_empty() && value.bytes().all(|c| c.is_ascii_digit());
                let max = digits.then(|| value.parse().ok()).flatten();
                spec.max_attempts = Some(max.ok_or_else(|| refuse("a number from 1 to 32767"))?);
            }
            "queue" => {
                let written = part.split_once('=').map_or("", |(_, value)| value);
                if value.is_empty() || !written.chars().all(|c| is_plain(c) || "%+".contains(c)) {
                    return Err(refuse("made of letters, digits, _ : / - and .; percent-encode others, as %21"));
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
                let text = "is unknown; expected id, fill, max, queue, jobKey, jobKeyMode, priority or tz";
                return Err(self.error(part, format!("option {key:?} {text}")));
            }
        }
        Ok(())
    }

    fn payload(self, text: &'a str) -> Result<Members> {
        Members::parse(text).map_err(|Fault { at, why }| self.error(&text[at..], format!("the payload {why}")))
    }
}

/// Returns true for a character that a name without quotes may contain.
fn is_plain(c: char) -> bool {
    c.is_alphanumeric() || "_:/-.".contains(c)
}

/// Returns the first word, and the rest of the text after it and its white space.
fn word(text: &str) -> (&str, &str) {
    let end = text.find(is_space).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start_matches(is_space))
}

/// Decodes text as in the query of a URL: `+` and `%20` are a space, and an invalid code is left unchanged. Returns
/// `None` if the result is not UTF-8.
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

/// Parses one or more of `1w`, `2d`, `3h`, `4m`, `5s`, and adds them up. `None` if the text is invalid or too long.
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
