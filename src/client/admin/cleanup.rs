//! Deletes rows that are not needed, while workers and enqueues go on.
//! Knows nothing of pools and deadlines.
//!
//! `add_job` looks a name up and inserts the job in two statements. It locks neither the task nor the queue that it
//! found. So a row that seems unused may be about to be used: between the two statements, or by a transaction that has
//! not committed. Therefore names are deleted while enqueues are held, after a second check.

use crate::client::admin::statements::limit;
use crate::db::schema::Schema;
use crate::error::{Error, Result};
use postgres::GenericClient;
use postgres::types::{ToSql, Type};
use std::time::Duration;

/// How many failed jobs one statement deletes.
pub(crate) const BATCH: i64 = 10_000;

/// How long enqueues may wait behind a cleanup that waits for older enqueues to end.
const LOCK_TIMEOUT: Duration = Duration::from_millis(100);

/// Which table the names are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameKind {
    Tasks,
    Queues,
}

/// Deletes up to [`BATCH`] jobs that have failed permanently. Returns how many.
pub(crate) fn delete_failed_jobs<C: GenericClient>(transaction: &mut C, schema: &Schema) -> Result<i64> {
    let sql = schema.fill(include_str!("../../sql/admin/delete_failed_jobs.sql"));
    Ok(transaction.execute_typed(&sql, &[(&BATCH, Type::INT8)])? as i64)
}

/// The ids of names that seem unused, or would be without the jobs that have failed permanently. Blocks no session.
pub(crate) fn unused<C: GenericClient>(
    client: &mut C,
    schema: &Schema,
    kind: NameKind,
    keep: &[String],
    without_failed: bool,
) -> Result<Vec<i32>> {
    let without_failed: (&(dyn ToSql + Sync), Type) = (&without_failed, Type::BOOL);
    let rows = match kind {
        NameKind::Tasks => {
            let sql = schema.fill(include_str!("../../sql/admin/unused_tasks.sql"));
            client.query_typed(&sql, &[(&keep, Type::TEXT_ARRAY), without_failed])?
        }
        NameKind::Queues => {
            client.query_typed(&schema.fill(include_str!("../../sql/admin/unused_queues.sql")), &[without_failed])?
        }
    };
    rows.iter().map(|row| Ok(row.try_get("id")?)).collect()
}

/// Deletes those of the names that are still unused. Returns `None` if enqueues under way did not end in time.
pub(crate) fn delete<C: GenericClient>(
    transaction: &mut C,
    schema: &Schema,
    kind: NameKind,
    ids: &[i32],
    left: Duration,
) -> Result<Option<i64>> {
    limit(transaction, left, LOCK_TIMEOUT.min(left))?;
    let mut work = || -> Result<i64> {
        transaction.batch_execute(&schema.fill(include_str!("../../sql/admin/hold_enqueues.sql")))?;
        let sql = match kind {
            NameKind::Tasks => include_str!("../../sql/admin/delete_tasks.sql"),
            NameKind::Queues => include_str!("../../sql/admin/delete_queues.sql"),
        };
        Ok(transaction.execute_typed(&schema.fill(sql), &[(&ids, Type::INT4_ARRAY)])? as i64)
    };
    match work() {
        Ok(deleted) => Ok(Some(deleted)),
        Err(error) if matches!(error.sqlstate(), Some("55P03" | "57014")) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The error of a cleanup that found no moment without an enqueue under way.
pub(crate) fn never_quiet(kind: NameKind, deleted_jobs: i64) -> Error {
    let what = match kind {
        NameKind::Tasks => "tasks",
        NameKind::Queues => "queues",
    };
    let text = format!(
        "a transaction that adds jobs stays open, and no {what} can be deleted beside it; \
         end it, or try again later ({deleted_jobs} failed jobs were deleted)"
    );
    Error::new(crate::error::ErrorKind::Timeout, text)
}
