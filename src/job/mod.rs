//! A job as the database stores it. Knows nothing of how jobs are claimed and settled.

pub(crate) mod active;
pub(crate) mod series;
pub(crate) mod spec;
pub(crate) mod trace;

use crate::error::{Error, ErrorKind, Result};
use crate::text::{Look, Text};
use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Type};

/// One job: a row of the queue, as it was when it was claimed or added.
///
/// The payload is kept as the bytes that PostgreSQL stores. [`payload_as`](Job::payload_as) deserializes them.
#[derive(Clone)]
pub struct Job {
    pub(crate) id: i64,
    pub(crate) task_identifier: Arc<str>,
    pub(crate) queue_id: Option<i32>,
    pub(crate) payload: Vec<u8>,
    pub(crate) priority: i16,
    pub(crate) run_at: DateTime<Utc>,
    pub(crate) attempts: i16,
    pub(crate) max_attempts: i16,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) key: Option<String>,
    pub(crate) revision: i32,
    pub(crate) flags: Option<String>,
}

#[cfg(test)]
impl Job {
    /// A job for tests of what holds jobs.
    pub(crate) fn example(id: i64) -> Self {
        Self {
            id,
            task_identifier: "t".into(),
            queue_id: None,
            payload: b"{}".to_vec(),
            priority: 0,
            run_at: DateTime::UNIX_EPOCH,
            attempts: 1,
            max_attempts: 25,
            created_at: DateTime::UNIX_EPOCH,
            key: None,
            revision: 0,
            flags: None,
        }
    }
}

impl Job {
    /// Reads a job from a row with the columns `id … flags`, by name. Other columns are ignored. A null payload was
    /// left out by the statement and becomes empty. In key and flags, bytes that are not valid UTF-8 become U+FFFD.
    pub(crate) fn from_row(row: &Row, task_identifier: Arc<str>) -> Result<Self> {
        Ok(Self {
            id: row.try_get("id")?,
            task_identifier,
            queue_id: row.try_get("job_queue_id")?,
            payload: row.try_get::<_, Option<Bytes>>("payload")?.map(|bytes| bytes.0).unwrap_or_default(),
            priority: row.try_get("priority")?,
            run_at: row.try_get::<_, DbTime>("run_at")?.0,
            attempts: row.try_get("attempts")?,
            max_attempts: row.try_get("max_attempts")?,
            created_at: row.try_get::<_, DbTime>("created_at")?.0,
            key: row.try_get::<_, Option<Text>>("key")?.map(|key| key.0),
            revision: row.try_get("revision")?,
            flags: row.try_get::<_, Option<Text>>("flags")?.map(|flags| flags.0),
        })
    }

    /// The columns of a job row that contain text.
    pub(crate) const TEXTS: [&str; 3] = ["payload", "key", "flags"];

    /// Returns the text columns for which `wrong` is true.
    pub(crate) fn texts(row: &Row, wrong: fn(&Look) -> bool) -> Result<Vec<&'static str>> {
        let mut found = Vec::new();
        for column in Self::TEXTS {
            if row.try_get::<_, Option<Look>>(column)?.is_some_and(|look| wrong(&look)) {
                found.push(column);
            }
        }
        Ok(found)
    }

    /// The row's id, unique in its schema.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// The name of the task that runs the job.
    pub fn task_identifier(&self) -> &str {
        &self.task_identifier
    }

    /// The id of the job's named queue, if it has one.
    pub fn job_queue_id(&self) -> Option<i32> {
        self.queue_id
    }

    /// The payload: JSON text, byte for byte as PostgreSQL stores it.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Deserializes the payload as `T`.
    ///
    /// # Errors
    /// [`ErrorKind::Payload`] if the payload does not have the shape of `T`. The text contains line and column, but
    /// nothing of the payload.
    pub fn payload_as<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.payload).map_err(|e| {
            let text =
                format!("the payload of job {} does not fit task {}: {}", self.id, self.task_identifier, place(&e));
            Error::new(ErrorKind::Payload, text).caused_by(e)
        })
    }

    /// The priority: -32768..=32767, a lower number runs first. Defaults to 0.
    pub fn priority(&self) -> i16 {
        self.priority
    }

    /// The job does not start before this time. A time outside the years 1 to 9999, such as `infinity`, is returned as
    /// the nearest time within them.
    pub fn run_at(&self) -> DateTime<Utc> {
        self.run_at
    }

    /// The number of attempts so far. While the job runs, this is the number of the current attempt, counted from 1.
    pub fn attempts(&self) -> i16 {
        self.attempts
    }

    /// After this many failed attempts the job fails permanently.
    pub fn max_attempts(&self) -> i16 {
        self.max_attempts
    }

    /// When the job was first added.
    pub fn created_at(&self) -> DateTime<Utc> {
        self.created_at
    }

    /// The job key that the job was added with, if any.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// How often the job was added again with its key.
    pub fn revision(&self) -> i32 {
        self.revision
    }

    /// The flags of the job, in no particular order.
    pub fn flags(&self) -> Vec<String> {
        flags_of(self.flags.as_deref())
    }
}

/// The names of the flags in the `flags` column, which is a JSON object.
pub(crate) fn flags_of(object: Option<&str>) -> Vec<String> {
    match object.and_then(|text| serde_json::from_str(text).ok()) {
        Some(serde_json::Value::Object(flags)) => flags.into_iter().map(|(flag, _)| flag).collect(),
        _ => Vec::new(),
    }
}

impl fmt::Debug for Job {
    /// Leaves out the payload, which may contain secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("id", &self.id)
            .field("task", &self.task_identifier)
            .field("attempt", &self.attempts)
            .field("max_attempts", &self.max_attempts)
            .field("priority", &self.priority)
            .field("run_at", &self.run_at)
            .field("key", &self.key)
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

/// Describes a JSON error and its position. serde's own text is not used, because it may quote the payload.
fn place(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Data => "a value has another type than the task expects, or a field is missing",
        serde_json::error::Category::Syntax => "it cannot be decoded",
        serde_json::error::Category::Eof => "it ends too early",
        serde_json::error::Category::Io => "it could not be read",
    };
    format!("{what} (line {}, column {})", error.line(), error.column())
}

/// Text or JSON as bytes, in the encoding in which the server sent it.
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl<'a> FromSql<'a> for Bytes {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self(raw.to_vec()))
    }

    fn accepts(kind: &Type) -> bool {
        matches!(*kind, Type::JSON | Type::TEXT)
    }
}

/// The first time that RFC 3339 and the standard libraries of all supported languages can represent.
pub(crate) const FIRST: DateTime<Utc> = micros(-62_135_596_800_000_000);

/// The last such time, to the microsecond.
pub(crate) const LAST: DateTime<Utc> = micros(253_402_300_799_999_999);

const fn micros(since_1970: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(since_1970).expect("a moment of the calendar")
}

/// A timestamp of the database. A time before the year 1 and `-infinity` become [`FIRST`]. A time after the year 9999
/// and `infinity` become [`LAST`]. An error instead would fail a whole claim or list because of one row.
pub(crate) struct DbTime(pub(crate) DateTime<Utc>);

impl<'a> FromSql<'a> for DbTime {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        // PostgreSQL counts microseconds from 2000-01-01.
        let since_1970 = i64::from_be_bytes(raw.try_into()?).saturating_add(946_684_800_000_000);
        let time = since_1970.clamp(FIRST.timestamp_micros(), LAST.timestamp_micros());
        Ok(Self(micros(time)))
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::TIMESTAMPTZ
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(micros: i64, expected: DateTime<Utc>) {
        assert_eq!(DbTime::from_sql(&Type::TIMESTAMPTZ, &micros.to_be_bytes()).unwrap().0, expected);
    }

    #[test]
    fn timestamps_outside_years_1_to_9999_are_clamped() {
        check(0, "2000-01-01T00:00:00Z".parse().unwrap());
        check(-1, "1999-12-31T23:59:59.999999Z".parse().unwrap());
        check(252_455_615_999_999_999, "9999-12-31T23:59:59.999999Z".parse().unwrap());
        check(252_455_616_000_000_000, "9999-12-31T23:59:59.999999Z".parse().unwrap());
        check(-63_082_281_600_000_000, "0001-01-01T00:00:00Z".parse().unwrap());
        check(-63_082_281_600_000_001, "0001-01-01T00:00:00Z".parse().unwrap());
        check(i64::MAX, LAST); // infinity
        check(i64::MIN, FIRST); // -infinity
    }
}
