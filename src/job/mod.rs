//! A job as the database holds it. Words only: how it is claimed and settled stands elsewhere.

pub(crate) mod active;
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
/// The payload stays the bytes that PostgreSQL holds; [`payload_as`](Job::payload_as) reads them.
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

impl Job {
    /// Reads a job row: the columns `id … flags` by name, whatever else the row has. A payload of null was left
    /// out. What is not valid UTF-8 in key and flags is replaced.
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

    /// The columns of a job row that have text.
    pub(crate) const TEXTS: [&str; 3] = ["payload", "key", "flags"];

    /// Those of them in which `wrong` finds something.
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

    /// The task that runs it.
    pub fn task_identifier(&self) -> &str {
        &self.task_identifier
    }

    /// The id of the named queue it belongs to, if any.
    pub fn job_queue_id(&self) -> Option<i32> {
        self.queue_id
    }

    /// The payload: JSON text, byte for byte as PostgreSQL holds it.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The payload read as `T`.
    ///
    /// # Errors
    /// [`ErrorKind::Payload`] if it does not have the shape of `T`; the text says where, never what.
    pub fn payload_as<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.payload).map_err(|e| {
            let text =
                format!("the payload of job {} does not fit task {}: {}", self.id, self.task_identifier, place(&e));
            Error::new(ErrorKind::Payload, text).caused_by(e)
        })
    }

    /// Lower runs first; -32768..=32767, 0 unless said otherwise.
    pub fn priority(&self) -> i16 {
        self.priority
    }

    /// Not started before this time. One outside of the years 1 to 9999, as `infinity`, reads as the nearest within.
    pub fn run_at(&self) -> DateTime<Utc> {
        self.run_at
    }

    /// Which attempt this is, counting from 1 while the job runs.
    pub fn attempts(&self) -> i16 {
        self.attempts
    }

    /// After this many failed attempts the job stays failed for good.
    pub fn max_attempts(&self) -> i16 {
        self.max_attempts
    }

    /// When the job was first added.
    pub fn created_at(&self) -> DateTime<Utc> {
        self.created_at
    }

    /// The job key it was added under, if any.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// How often the job was added again under its key.
    pub fn revision(&self) -> i32 {
        self.revision
    }

    /// The flags that the job carries, in no particular order.
    pub fn flags(&self) -> Vec<String> {
        flags_of(self.flags.as_deref())
    }
}

/// The names in a row's object of flags.
pub(crate) fn flags_of(object: Option<&str>) -> Vec<String> {
    match object.and_then(|text| serde_json::from_str(text).ok()) {
        Some(serde_json::Value::Object(flags)) => flags.into_iter().map(|(flag, _)| flag).collect(),
        _ => Vec::new(),
    }
}

impl fmt::Debug for Job {
    /// Everything but the payload, which may hold secrets.
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

/// What kind of JSON error it is and where, without quoting the payload, which serde's own text does.
fn place(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Data => "a value has another type than the task expects, or a field is missing",
        serde_json::error::Category::Syntax => "it is not JSON that can be read",
        serde_json::error::Category::Eof => "it ends too early",
        serde_json::error::Category::Io => "it could not be read",
    };
    format!("{what} (line {}, column {})", error.line(), error.column())
}

/// Text or JSON as bytes, in whatever encoding it came.
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl<'a> FromSql<'a> for Bytes {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self(raw.to_vec()))
    }

    fn accepts(kind: &Type) -> bool {
        matches!(*kind, Type::JSON | Type::TEXT)
    }
}

/// The first moment that RFC 3339 and the clocks of all languages have.
pub(crate) const FIRST: DateTime<Utc> = micros(-62_135_596_800_000_000);

/// The last one, to the microsecond.
pub(crate) const LAST: DateTime<Utc> = micros(253_402_300_799_999_999);

const fn micros(since_1970: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(since_1970).expect("a moment of the calendar")
}

/// A timestamp of the database. One before the year 1 becomes [`FIRST`], one after the year 9999 [`LAST`], as do
/// `-infinity` and `infinity`: one odd row must not spoil a whole claim, or a list.
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
    fn times_beyond_the_calendar_are_its_ends() {
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
