//! Sends the statements of an operator's call, and reads their replies: lists of jobs, queues and workers, and changes
//! by hand. Knows nothing of pools and deadlines. Cleanup is in `cleanup.rs`.

use crate::client::admin::{
    ForceUnlockResult, JobStats, ListJobsOptions, ListedJob, LockedWorkerRow, QueueRow, RescheduleJobOptions,
};
use crate::db::schema::Schema;
use crate::error::Result;
use crate::job::DbTime;
use crate::text::{Fitting, Text, named};
use postgres::fallible_iterator::FallibleIterator;
use postgres::types::{ToSql, Type};
use postgres::{GenericClient, Row, Transaction};
use std::time::Duration;

/// Runs `work` in this transaction or savepoint. Rolls it back at the end if `keep` is false.
pub(crate) fn transact<T>(
    mut transaction: Transaction,
    keep: bool,
    work: impl FnOnce(&mut Transaction) -> Result<T>,
) -> Result<T> {
    let answer = work(&mut transaction)?;
    match keep {
        true => transaction.commit()?,
        false => transaction.rollback()?,
    }
    Ok(answer)
}

/// Makes the server send this transaction's texts in the database's own encoding, for a character that UTF-8 does not
/// have. What is not UTF-8 is replaced as it is read. Texts among the parameters must be ASCII.
pub(crate) const UNCONVERTED: &str = "set local client_encoding = 'SQL_ASCII'";

/// Lets the server end a statement for which its caller has stopped waiting.
pub(crate) fn limit<C: GenericClient>(transaction: &mut C, statement: Duration, lock: Duration) -> Result<()> {
    let milliseconds = |time: Duration| time.as_millis().clamp(1, i32::MAX as u128).to_string();
    let (statement, lock) = (milliseconds(statement), milliseconds(lock));
    let params: [(&(dyn ToSql + Sync), Type); 2] = [(&statement, Type::TEXT), (&lock, Type::TEXT)];
    transaction.query_typed(include_str!("../../sql/admin/call_limits.sql"), &params)?;
    Ok(())
}

/// Lists jobs by id. Calls `came` for each job that arrives, because all of them may take long.
pub(crate) fn list<C: GenericClient>(
    client: &mut C,
    schema: &Schema,
    ids: Option<&[i64]>,
    options: &ListJobsOptions,
    came: &dyn Fn(),
) -> Result<Vec<ListedJob>> {
    let params: [(&(dyn ToSql + Sync), Type); 6] = [
        (&ids, Type::INT8_ARRAY),
        (&options.identifier, Type::TEXT),
        (&options.queue, Type::TEXT),
        (&options.state.map(|state| state.as_str()), Type::TEXT),
        (&options.limit, Type::INT8),
        (&options.offset, Type::INT8),
    ];
    let asked = [("identifier", options.identifier.as_deref()), ("queue", options.queue.as_deref())];
    let mut rows = client
        .query_typed_raw(&schema.fill(include_str!("../../sql/admin/list_jobs.sql")), params)
        .map_err(|e| named(e.into(), asked.into_iter().filter_map(|(name, text)| Some((name, text?)))))?;
    let mut jobs = Vec::new();
    while let Some(row) = rows.next()? {
        jobs.push(ListedJob::from_row(&row)?);
        came();
    }
    Ok(jobs)
}

pub(crate) fn stats<C: GenericClient>(client: &mut C, schema: &Schema) -> Result<JobStats> {
    let row = client.query_typed_one(&schema.fill(include_str!("../../sql/admin/job_stats.sql")), &[])?;
    Ok(JobStats {
        total: row.try_get("total")?,
        ready: row.try_get("ready")?,
        scheduled: row.try_get("scheduled")?,
        locked: row.try_get("locked")?,
        failed: row.try_get("failed")?,
    })
}

pub(crate) fn queues<C: GenericClient>(client: &mut C, schema: &Schema) -> Result<Vec<QueueRow>> {
    let rows = client.query_typed(&schema.fill(include_str!("../../sql/admin/list_queues.sql")), &[])?;
    let queue = |row: &Row| -> Result<QueueRow> {
        Ok(QueueRow {
            id: row.try_get("id")?,
            queue_name: row.try_get::<_, Text>("queue_name")?.0,
            locked_at: row.try_get::<_, Option<DbTime>>("locked_at")?.map(|time| time.0),
            locked_by: row.try_get::<_, Option<Text>>("locked_by")?.map(|worker| worker.0),
            job_count: row.try_get("job_count")?,
            ready_count: row.try_get("ready_count")?,
        })
    };
    rows.iter().map(queue).collect()
}

pub(crate) fn locked_workers<C: GenericClient>(client: &mut C, schema: &Schema) -> Result<Vec<LockedWorkerRow>> {
    let rows = client.query_typed(&schema.fill(include_str!("../../sql/admin/locked_workers.sql")), &[])?;
    let worker = |row: &Row| -> Result<LockedWorkerRow> {
        Ok(LockedWorkerRow {
            worker_id: row.try_get::<_, Text>("worker_id")?.0,
            locked_jobs: row.try_get("locked_jobs")?,
            locked_queues: row.try_get("locked_queues")?,
        })
    };
    rows.iter().map(worker).collect()
}

pub(crate) fn complete<C: GenericClient>(transaction: &mut C, schema: &Schema, ids: &[i64]) -> Result<Vec<ListedJob>> {
    unlock_stale(transaction, schema, ids)?;
    let sql = schema.fill(include_str!("../../sql/admin/complete_jobs.sql"));
    listed(transaction.query_typed(&sql, &[(&ids, Type::INT8_ARRAY)])?)
}

/// Fails jobs permanently. If `reason` is empty, the shared function sets one. What the database cannot store of it is
/// escaped.
pub(crate) fn permanently_fail<C: GenericClient>(
    transaction: &mut C,
    schema: &Schema,
    ids: &[i64],
    reason: &str,
) -> Result<Vec<ListedJob>> {
    unlock_stale(transaction, schema, ids)?;
    let mut reason = Some(reason).filter(|reason| !reason.is_empty()).map(str::to_owned);
    let sql = schema.fill(include_str!("../../sql/admin/permanently_fail_jobs.sql"));
    let mut fitting = Fitting::new();
    loop {
        // A failure inside a savepoint does not end the transaction.
        transaction.batch_execute("savepoint fitting")?;
        match transaction.query_typed(&sql, &[(&ids, Type::INT8_ARRAY), (&reason, Type::TEXT)]) {
            Ok(rows) => return listed(rows),
            Err(error) => {
                let error = error.into();
                if !fitting.escape(&error, reason.as_mut()) {
                    return Err(error);
                }
                transaction.batch_execute("rollback to savepoint fitting")?;
            }
        }
    }
}

pub(crate) fn reschedule<C: GenericClient>(
    transaction: &mut C,
    schema: &Schema,
    ids: &[i64],
    options: &RescheduleJobOptions,
) -> Result<Vec<ListedJob>> {
    unlock_stale(transaction, schema, ids)?;
    let params: [(&(dyn ToSql + Sync), Type); 6] = [
        (&ids, Type::INT8_ARRAY),
        (&options.run_at, Type::TIMESTAMPTZ),
        (&options.now, Type::BOOL),
        (&options.priority, Type::INT4),
        (&options.attempts, Type::INT4),
        (&options.max_attempts, Type::INT4),
    ];
    let sql = schema.fill(include_str!("../../sql/admin/reschedule_jobs.sql"));
    let jobs = listed(transaction.query_typed(&sql, &params)?)?;
    forget_recoveries(transaction, schema, ids)?;
    announce(transaction, jobs.len())?;
    Ok(jobs)
}

pub(crate) fn force_unlock<C: GenericClient>(
    transaction: &mut C,
    schema: &Schema,
    worker_ids: &[String],
) -> Result<ForceUnlockResult> {
    let params: [(&(dyn ToSql + Sync), Type); 1] = [(&worker_ids, Type::TEXT_ARRAY)];
    let held = transaction
        .query_typed_one(&schema.fill(include_str!("../../sql/admin/locked_by.sql")), &params)
        .map_err(|e| named(e.into(), worker_ids.iter().map(|id| ("worker id", id.as_str()))))?;
    transaction.query_typed(&schema.fill(include_str!("../../sql/admin/force_unlock_workers.sql")), &params)?;
    let unlocked = ForceUnlockResult { jobs: held.try_get("jobs")?, queues: held.try_get("queues")? };
    announce(transaction, unlocked.jobs.max(unlocked.queues) as usize)?;
    Ok(unlocked)
}

/// Unlocks those of the jobs that the shared functions treat as unlocked, because their locks are four hours old.
fn unlock_stale<C: GenericClient>(transaction: &mut C, schema: &Schema, ids: &[i64]) -> Result<()> {
    let sql = schema.fill(include_str!("../../sql/admin/unlock_stale.sql"));
    transaction.execute_typed(&sql, &[(&ids, Type::INT8_ARRAY)])?;
    Ok(())
}

fn forget_recoveries<C: GenericClient>(transaction: &mut C, schema: &Schema, ids: &[i64]) -> Result<()> {
    let known: bool = transaction
        .query_typed_one(include_str!("../../sql/admin/knows_recoveries.sql"), &[(&schema.name(), Type::TEXT)])?
        .try_get(0)?;
    if known {
        let sql = schema.fill(include_str!("../../sql/admin/forget_recoveries.sql"));
        transaction.execute_typed(&sql, &[(&ids, Type::INT8_ARRAY)])?;
    }
    Ok(())
}

fn announce<C: GenericClient>(transaction: &mut C, count: usize) -> Result<()> {
    if count > 0 {
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        transaction.query_typed(include_str!("../../sql/admin/notify_workers.sql"), &[(&count, Type::INT4)])?;
    }
    Ok(())
}

fn listed(rows: Vec<Row>) -> Result<Vec<ListedJob>> {
    rows.iter().map(ListedJob::from_row).collect()
}
