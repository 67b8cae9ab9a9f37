//! What a caller asks for when adding a job, checked before anything is sent. No IO.

use crate::error::{Error, Result};
use crate::job::{FIRST, LAST};
use chrono::{DateTime, SubsecRound, Utc};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// How an enqueue treats a waiting job of the same key. Source: Graphile Worker's `job_key_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum JobKeyMode {
    /// The waiting job takes over everything of the new one; its attempts start over.
    #[default]
    Replace,
    /// As `Replace`, but a job that was never tried keeps its `run_at`.
    PreserveRunAt,
    /// Nothing changes if any job has the key, even one that is running or has failed for good.
    UnsafeDedupe,
}

impl JobKeyMode {
    pub(crate) fn as_sql(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::PreserveRunAt => "preserve_run_at",
            Self::UnsafeDedupe => "unsafe_dedupe",
        }
    }
}

/// The options of one enqueue. Everything left out takes the database's default.
///
/// ```
/// use graphile_worker::JobSpec;
/// let spec = JobSpec::new().queue_name("user-42").priority(-5).job_key("welcome-42");
/// assert_eq!(spec.priority, Some(-5));
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JobSpec {
    /// Jobs of one queue run one after the other. At most 128 characters. Default: none, in parallel.
    pub queue_name: Option<String>,
    /// Not started earlier. A time of the years 1 to 9999. Default: now.
    pub run_at: Option<DateTime<Utc>>,
    /// 1..=32767. Default: 25.
    pub max_attempts: Option<i32>,
    /// At most one waiting job has a key; see [`JobKeyMode`]. 1..=512 characters.
    pub job_key: Option<String>,
    /// What happens to a waiting job of the same key. Default: [`JobKeyMode::Replace`].
    pub job_key_mode: Option<JobKeyMode>,
    /// -32768..=32767, lower first. Default: 0.
    pub priority: Option<i32>,
    /// Marks by which workers can leave the job to others.
    pub flags: Option<Vec<String>>,
    /// The W3C trace context that the job belongs to. Default: none, or that of the job whose handler
    /// adds it.
    pub traceparent: Option<String>,
}

impl JobSpec {
    /// A spec that leaves everything to the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`queue_name`](Self::queue_name).
    pub fn queue_name(mut self, name: impl Into<String>) -> Self {
        self.queue_name = Some(name.into());
        self
    }

    /// Sets [`run_at`](Self::run_at).
    pub fn run_at(mut self, at: DateTime<Utc>) -> Self {
        self.run_at = Some(at);
        self
    }

    /// Sets [`max_attempts`](Self::max_attempts).
    pub fn max_attempts(mut self, attempts: i32) -> Self {
        self.max_attempts = Some(attempts);
        self
    }

    /// Sets [`job_key`](Self::job_key).
    pub fn job_key(mut self, key: impl Into<String>) -> Self {
        self.job_key = Some(key.into());
        self
    }

    /// Sets [`job_key_mode`](Self::job_key_mode).
    pub fn job_key_mode(mut self, mode: JobKeyMode) -> Self {
        self.job_key_mode = Some(mode);
        self
    }

    /// Sets [`priority`](Self::priority).
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Sets [`flags`](Self::flags).
    pub fn flags<F: Into<String>>(mut self, flags: impl IntoIterator<Item = F>) -> Self {
        self.flags = Some(flags.into_iter().map(Into::into).collect());
        self
    }

    /// Sets [`traceparent`](Self::traceparent). Typed jobs carry it as `_trace.traceparent` of their payload,
    /// which must be a JSON object; their handlers read it with
    /// [`WorkerContext::traceparent`](crate::WorkerContext::traceparent). Raw payloads pass untouched, so an
    /// enqueue of one refuses it.
    pub fn traceparent(mut self, traceparent: impl Into<String>) -> Self {
        self.traceparent = Some(traceparent.into());
        self
    }

    /// Checks every field against its limit.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) naming the field and the limit.
    pub fn check(&self) -> Result<()> {
        if let Some(name) = &self.queue_name {
            check_text("queue_name", name, 0..=128)?;
        }
        if let Some(key) = &self.job_key {
            check_text("job_key", key, 1..=512)?;
        } else if self.job_key_mode.is_some_and(|mode| mode != JobKeyMode::Replace) {
            return Err(Error::config("job_key_mode: needs a job_key"));
        }
        check_range("max_attempts", self.max_attempts, 1..=32767)?;
        check_range("priority", self.priority, -32768..=32767)?;
        if let Some(at) = self.run_at {
            check_run_at(at)?;
        }
        for flag in self.flags.iter().flatten() {
            check_text("flags", flag, 0..=usize::MAX)?;
        }
        Ok(())
    }
}

/// A job to be added in bulk: its task, its payload as JSON text, its options.
#[derive(Debug, Clone, PartialEq)]
pub struct RawJob {
    /// The task that runs it.
    pub identifier: String,
    /// JSON text, stored byte for byte.
    pub payload: String,
    /// Its options.
    pub spec: JobSpec,
}

impl RawJob {
    /// Checks everything, before anything is sent.
    pub(crate) fn checked(identifier: &str, payload: String, mut spec: JobSpec) -> Result<RawJob> {
        TaskName::new(identifier)?;
        spec.check()?;
        if spec.traceparent.is_some() {
            return Err(Error::config(
                "traceparent: a raw payload is stored untouched; add the job typed, or put _trace.traceparent into the payload",
            ));
        }
        // PostgreSQL keeps microseconds; so does whoever compares with what comes back.
        spec.run_at = spec.run_at.map(|at| at.trunc_subsecs(6));
        Ok(RawJob { identifier: identifier.to_owned(), payload, spec })
    }
}

/// Checks the jobs of one call, each and together.
pub(crate) fn check_all(jobs: Vec<RawJob>) -> Result<Vec<RawJob>> {
    let mut keys: HashMap<&str, usize> = HashMap::new();
    for (place, job) in jobs.iter().enumerate() {
        if let Some(first) = job.spec.job_key.as_deref().and_then(|key| keys.insert(key, place)) {
            let key = job.spec.job_key.as_deref().unwrap_or_default();
            return Err(Error::config(format!("job_key {key:?}: occurs twice in one call, at {first} and {place}")));
        }
    }
    drop(keys);
    let checked = jobs.into_iter().enumerate().map(|(place, job)| {
        RawJob::checked(&job.identifier, job.payload, job.spec).map_err(|e| e.context(format_args!("job {place}")))
    });
    checked.collect()
}

/// Checks a job key.
pub(crate) fn check_key(job_key: &str) -> Result<String> {
    JobSpec::new().job_key(job_key).check()?;
    Ok(job_key.to_owned())
}

/// The name of a task: 1..=128 characters, no NUL; checked once, cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskName(Arc<str>);

impl TaskName {
    /// Checks a task name.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if it is empty, longer than 128 characters, or contains NUL.
    pub fn new(name: &str) -> Result<Self> {
        check_text("task name", name, 1..=128)?;
        Ok(Self(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn shared(&self) -> Arc<str> {
        self.0.clone()
    }
}

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Checks a time to run at: one that every language can read back.
pub(crate) fn check_run_at(at: DateTime<Utc>) -> Result<()> {
    match (FIRST..=LAST).contains(&at.trunc_subsecs(6)) {
        true => Ok(()),
        false => Err(Error::config(format!("run_at: year {} is outside 1 to 9999", chrono::Datelike::year(&at)))),
    }
}

pub(crate) fn check_text(field: &str, text: &str, limit: std::ops::RangeInclusive<usize>) -> Result<()> {
    let length = text.chars().count();
    if text.contains('\0') {
        return Err(Error::config(format!("{field}: contains a NUL character, which PostgreSQL cannot hold")));
    }
    if !limit.contains(&length) {
        return Err(Error::config(format!(
            "{field}: has {length} characters, allowed are {} to {}",
            limit.start(),
            limit.end()
        )));
    }
    Ok(())
}

pub(crate) fn check_range(field: &str, value: Option<i32>, limit: std::ops::RangeInclusive<i32>) -> Result<()> {
    match value {
        Some(value) if !limit.contains(&value) => {
            Err(Error::config(format!("{field}: {value} is outside {} to {}", limit.start(), limit.end())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(spec: JobSpec, words: &str) {
        let error = spec.check().expect_err("must be refused").to_string();
        assert!(error.contains(words), "{error}");
    }

    #[test]
    fn fields_beyond_their_limit_are_named_with_the_limit() {
        refused(JobSpec::new().queue_name("q".repeat(129)), "queue_name: has 129 characters, allowed are 0 to 128");
        refused(JobSpec::new().queue_name("a\0b"), "queue_name: contains a NUL");
        refused(JobSpec::new().job_key(""), "job_key: has 0 characters, allowed are 1 to 512");
        refused(JobSpec::new().job_key("ä".repeat(513)), "job_key: has 513 characters");
        refused(JobSpec::new().job_key_mode(JobKeyMode::UnsafeDedupe), "needs a job_key");
        refused(JobSpec::new().max_attempts(0), "max_attempts: 0 is outside 1 to 32767");
        refused(JobSpec::new().max_attempts(32768), "32768 is outside");
        refused(JobSpec::new().priority(40_000), "priority: 40000 is outside -32768 to 32767");
        refused(JobSpec::new().run_at(DateTime::<Utc>::MAX_UTC), "run_at: year");
        refused(JobSpec::new().flags(["a\0"]), "flags: contains a NUL");
    }

    #[test]
    fn limits_count_characters_not_bytes() {
        JobSpec::new().queue_name("ä".repeat(128)).job_key("🦀".repeat(512)).check().unwrap();
        assert!(TaskName::new(&"ä".repeat(128)).is_ok());
        assert!(TaskName::new(&"ä".repeat(129)).is_err());
        assert!(TaskName::new("").is_err());
    }
}
