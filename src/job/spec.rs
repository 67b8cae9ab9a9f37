//! The options of a job to add. They are checked before anything is sent to the database. No IO.

use crate::error::{Error, Result};
use crate::job::{FIRST, LAST};
use chrono::{DateTime, SubsecRound, Utc};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// What an enqueue does if a waiting job has the same job key. This is Graphile Worker's `job_key_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum JobKeyMode {
    /// The new job's values replace all values of the waiting job. Its attempts start over.
    #[default]
    Replace,
    /// Like `Replace`, but a job that was never attempted keeps its `run_at`.
    PreserveRunAt,
    /// If any job has the key, nothing changes, even if that job is running or has failed permanently.
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

/// The options of one enqueue. An option that is not set takes the default of the database.
///
/// ```
/// use graphile_worker::JobSpec;
/// let spec = JobSpec::new().queue_name("user-42").priority(-5).job_key("welcome-42");
/// assert_eq!(spec.priority, Some(-5));
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JobSpec {
    /// The name of the queue. Jobs of one queue run one after the other. At most 128 characters. Default: no queue, the
    /// job runs in parallel with others.
    pub queue_name: Option<String>,
    /// The job does not start before this time. Must be in the years 1 to 9999. Default: now.
    pub run_at: Option<DateTime<Utc>>,
    /// After this many failed attempts the job fails permanently. 1..=32767. Default: 25.
    pub max_attempts: Option<i32>,
    /// A key that at most one waiting job has; see [`JobKeyMode`]. 1..=512 characters. Default: no key.
    pub job_key: Option<String>,
    /// What happens if a waiting job has the same key. Default: [`JobKeyMode::Replace`].
    pub job_key_mode: Option<JobKeyMode>,
    /// The priority: -32768..=32767, a lower number runs first. Default: 0.
    pub priority: Option<i32>,
    /// The flags of the job. Workers can be configured to leave jobs with certain flags to other workers. Default:
    /// none.
    pub flags: Option<Vec<String>>,
    /// The W3C trace context of the job. Default: none, or, if a handler adds the job, the trace context of the
    /// handler's job.
    pub traceparent: Option<String>,
}

impl JobSpec {
    /// Creates a spec in which no option is set.
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

    /// Sets [`traceparent`](Self::traceparent). Typed jobs store it as `_trace.traceparent` in their payload, which
    /// must be a JSON object. Their handlers read it with
    /// [`WorkerContext::traceparent`](crate::WorkerContext::traceparent). A raw payload is stored unchanged, so adding
    /// a raw job with this option is an error.
    pub fn traceparent(mut self, traceparent: impl Into<String>) -> Self {
        self.traceparent = Some(traceparent.into());
        self
    }

    /// Checks every field against its limit.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config). The text names the field and the limit.
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

/// A job to add, with an untyped payload: its task, its payload as JSON text, and its options.
#[derive(Debug, Clone, PartialEq)]
pub struct RawJob {
    /// The name of the task that runs the job. 1..=128 characters.
    pub identifier: String,
    /// JSON text, stored byte for byte.
    pub payload: String,
    /// The options of the job.
    pub spec: JobSpec,
}

impl RawJob {
    /// Checks name and options, before anything is sent to the database.
    pub(crate) fn checked(identifier: &str, payload: String, mut spec: JobSpec) -> Result<RawJob> {
        TaskName::new(identifier)?;
        spec.check()?;
        if spec.traceparent.is_some() {
            return Err(Error::config(
                "traceparent: a raw payload is stored unchanged; add a typed job, or put _trace.traceparent into the payload",
            ));
        }
        // PostgreSQL stores microseconds. Callers that compare `run_at` with the stored value must find them equal.
        spec.run_at = spec.run_at.map(|at| at.trunc_subsecs(6));
        Ok(RawJob { identifier: identifier.to_owned(), payload, spec })
    }
}

/// Checks the jobs of one call: each of them, and that no two have the same job key.
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

/// The name of a task: 1..=128 characters without NUL. It is checked once, on creation. Cloning is cheap.
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

    /// The name as text.
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

/// Checks a `run_at`: every supported language must be able to represent it.
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
