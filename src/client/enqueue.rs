//! Sends the statements that add and remove jobs, and reads their replies: the shared functions, their races, their
//! order.
//! Knows nothing of pools and deadlines.

use super::pairing::pair;
use crate::backoff::{Backoff, random_unit};
use crate::db::schema::Schema;
use crate::error::{Error, ErrorKind, Result};
use crate::job::Job;
use crate::job::spec::{JobKeyMode, RawJob};
use crate::text::named;
use chrono::{DateTime, Utc};
use log::debug;
use postgres::GenericClient;
use postgres::types::{ToSql, Type};
use std::time::Duration;

/// How many attempts a keyed enqueue has that loses against a worker that takes the same job.
const KEYED_TRIES: u32 = 20;

/// How many jobs of a call are looked up. The call adds all or none, so one that exists proves that all were added.
const LOOKED_AT: usize = 5;

/// Adds checked jobs. Returns them in the order of the call, since the database has an order of its own. Several jobs
/// need a transaction to be added all or none.
pub(crate) fn add<C: GenericClient>(client: &mut C, schema: &Schema, jobs: &[RawJob]) -> Result<Vec<Job>> {
    add_all(client, schema, jobs).map_err(|mut error| {
        for (place, job) in jobs.iter().enumerate() {
            error = named(error, fields(job));
            if error.kind() == ErrorKind::Config {
                return if jobs.len() > 1 { error.context(format_args!("job {place}")) } else { error };
            }
        }
        error
    })
}

/// The fields of a job that are text.
fn fields(job: &RawJob) -> impl Iterator<Item = (&str, &str)> {
    let spec = &job.spec;
    let options = [("queue_name", spec.queue_name.as_deref()), ("job_key", spec.job_key.as_deref())];
    let flags = spec.flags.iter().flatten().map(|flag| ("flags", flag.as_str()));
    [("task name", job.identifier.as_str()), ("payload", job.payload.as_str())]
        .into_iter()
        .chain(options.into_iter().filter_map(|(name, text)| Some((name, text?))))
        .chain(flags)
}

fn add_all<C: GenericClient>(client: &mut C, schema: &Schema, jobs: &[RawJob]) -> Result<Vec<Job>> {
    let mut answers: Vec<Option<Job>> = vec![None; jobs.len()];
    match jobs {
        [] => {}
        [job] => answers[0] = Some(add_one(client, schema, job)?),
        _ => {
            // Locks are taken in one order everywhere: by key, then by queue.
            let mut order: Vec<usize> = (0..jobs.len()).collect();
            order.sort_by_key(|&place| {
                let spec = &jobs[place].spec;
                (spec.job_key.clone(), spec.queue_name.clone())
            });
            for mode in [JobKeyMode::Replace, JobKeyMode::PreserveRunAt] {
                let places: Vec<usize> = order
                    .iter()
                    .copied()
                    .filter(|&place| jobs[place].spec.job_key_mode.unwrap_or_default() == mode)
                    .collect();
                add_many(client, schema, jobs, &places, mode, &mut answers)?;
            }
            // The rest are keyed jobs that lost their race, and jobs with the key mode `unsafe_dedupe`.
            for &place in &order {
                if answers[place].is_none() {
                    answers[place] = Some(add_one(client, schema, &jobs[place])?);
                }
            }
        }
    }
    Ok(answers.into_iter().map(|job| job.expect("each was added above, or its error was returned")).collect())
}

/// Whether the table shows that a transaction that began at this time added these jobs. If not, they may have run and
/// be deleted.
pub(crate) fn is_added<C: GenericClient>(
    client: &mut C,
    schema: &Schema,
    added: &[Job],
    began: DateTime<Utc>,
) -> Result<bool> {
    let sql = schema.fill(include_str!("../sql/enqueue/added.sql"));
    for job in added.iter().take(LOOKED_AT) {
        if client.query_typed_one(&sql, &[(&job.id, Type::INT8), (&began, Type::TIMESTAMPTZ)])?.try_get(0)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes the job with a key. Returns whether there was one.
pub(crate) fn remove<C: GenericClient>(client: &mut C, schema: &Schema, key: &str) -> Result<bool> {
    let sql = schema.fill(include_str!("../sql/enqueue/remove_job.sql"));
    let rows = client.query_typed(&sql, &[(&key, Type::TEXT)]).map_err(|e| named(e.into(), [("job_key", key)]))?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

/// Calls `add_job` for one job, and repeats it while a worker takes the job of the same key during the call.
fn add_one<C: GenericClient>(client: &mut C, schema: &Schema, job: &RawJob) -> Result<Job> {
    let sql = schema.fill(include_str!("../sql/enqueue/add_job.sql"));
    let spec = &job.spec;
    let mode = spec.job_key.as_ref().map(|_| spec.job_key_mode.unwrap_or_default().as_sql());
    let mut pause = Backoff::new(Duration::from_millis(2), Duration::from_millis(100));
    for _ in 0..KEYED_TRIES {
        let rows = client.query_typed(
            &sql,
            &[
                (&job.identifier, Type::TEXT),
                (&job.payload, Type::TEXT),
                (&spec.queue_name, Type::TEXT),
                (&spec.run_at, Type::TIMESTAMPTZ),
                (&spec.max_attempts, Type::INT4),
                (&spec.job_key, Type::TEXT),
                (&spec.priority, Type::INT4),
                (&spec.flags, Type::TEXT_ARRAY),
                (&mode, Type::TEXT),
            ],
        );
        let rows = rows.map_err(|error| name_unjoinable(error.into(), &[job]))?;
        if let Some(row) = rows.first() {
            return Job::from_row(row, job.identifier.as_str().into());
        }
        if !sees_new_rows(client)? {
            break;
        }
        debug!(job_key = spec.job_key.as_deref().unwrap_or_default(), task = job.identifier.as_str();
            "a worker took the job of this key meanwhile, adding it again");
        std::thread::sleep(pause.next());
    }
    let key = spec.job_key.as_deref().unwrap_or_default();
    Err(Error::new(
        ErrorKind::Conflict,
        format!(
            "job_key {key:?}: a worker took the job of this key meanwhile; nothing was added, try again in a new transaction"
        ),
    ))
}

/// Calls `add_jobs` once. The places of keyed jobs that a worker took meanwhile stay empty.
fn add_many<C: GenericClient>(
    client: &mut C,
    schema: &Schema,
    jobs: &[RawJob],
    places: &[usize],
    mode: JobKeyMode,
    answers: &mut [Option<Job>],
) -> Result<()> {
    if places.is_empty() {
        return Ok(());
    }
    let chosen: Vec<&RawJob> = places.iter().map(|&place| &jobs[place]).collect();
    let column = |read: fn(&RawJob) -> Option<String>| chosen.iter().map(|job| read(job)).collect::<Vec<_>>();
    let identifiers = column(|job| Some(job.identifier.clone()));
    let payloads = column(|job| Some(job.payload.clone()));
    let queues = column(|job| job.spec.queue_name.clone());
    let run_at: Vec<Option<DateTime<Utc>>> = chosen.iter().map(|job| job.spec.run_at).collect();
    let max_attempts: Vec<Option<i32>> = chosen.iter().map(|job| job.spec.max_attempts).collect();
    let keys = column(|job| job.spec.job_key.clone());
    let priorities: Vec<Option<i32>> = chosen.iter().map(|job| job.spec.priority).collect();
    // An array cannot hold arrays of different lengths, so flags travel as JSON text.
    let flags = column(|job| job.spec.flags.as_ref().map(|flags| serde_json::json!(flags).to_string()));
    let preserve = mode == JobKeyMode::PreserveRunAt;
    let params: [(&(dyn ToSql + Sync), Type); 9] = [
        (&identifiers, Type::TEXT_ARRAY),
        (&payloads, Type::TEXT_ARRAY),
        (&queues, Type::TEXT_ARRAY),
        (&run_at, Type::TIMESTAMPTZ_ARRAY),
        (&max_attempts, Type::INT4_ARRAY),
        (&keys, Type::TEXT_ARRAY),
        (&priorities, Type::INT4_ARRAY),
        (&flags, Type::TEXT_ARRAY),
        (&preserve, Type::BOOL),
    ];
    let rows = client.query_typed(&schema.fill(include_str!("../sql/enqueue/add_jobs.sql")), &params);
    let rows = rows.map_err(|error| name_unjoinable(error.into(), &chosen))?;

    pair(client, schema, jobs, places, &rows, answers)?;
    let missing: Vec<usize> = places.iter().copied().filter(|&place| answers[place].is_none()).collect();
    if missing.iter().any(|&place| jobs[place].spec.job_key.is_none()) {
        return Err(Error::new(ErrorKind::Database, "add_jobs left out a job without a key; nothing was added"));
    }
    if !missing.is_empty() && !sees_new_rows(client)? {
        let text =
            "a worker took a job of one of the keys meanwhile; nothing was added, try again in a new transaction";
        return Err(Error::new(ErrorKind::Conflict, text));
    }
    Ok(())
}

/// Names the lists of which one cannot be joined with the waiting list of the same key. That happens only where another
/// worker installed add_jobs: it joins lists through jsonb, which refuses \u0000 and halves of surrogate pairs.
fn name_unjoinable(error: Error, jobs: &[&RawJob]) -> Error {
    let is_keyed_list = |job: &&RawJob| job.spec.job_key.is_some() && job.payload.trim_start().starts_with('[');
    let lists: Vec<&RawJob> = jobs.iter().copied().filter(is_keyed_list).collect();
    if !matches!(error.sqlstate(), Some("22P02" | "22P05")) || lists.is_empty() {
        return error;
    }
    let may_be_refused = |job: &&RawJob| ["\\u0000", "\\ud", "\\uD"].iter().any(|escape| job.payload.contains(escape));
    let candidates: Vec<&RawJob> = lists.iter().copied().filter(may_be_refused).collect();
    // If no list has such an escape, the waiting list cannot be read.
    let named = if candidates.is_empty() { lists } else { candidates };
    let keys: Vec<String> =
        named.iter().filter_map(|job| Some(format!("{:?}", job.spec.job_key.as_deref()?))).collect();
    let text = format!(
        "job_key {}: a list cannot be joined with the waiting list of its key, because another worker's add_jobs refuses \
         \\u0000 and halves of surrogate pairs; nothing was added, leave those out or use another key",
        keys.join(", ")
    );
    Error::new(ErrorKind::Payload, text).caused_by(error)
}

/// Whether a repeated statement can see what other transactions committed meanwhile.
fn sees_new_rows<C: GenericClient>(client: &mut C) -> Result<bool> {
    let rows = client.query_typed(include_str!("../sql/enqueue/isolation.sql"), &[])?;
    let level: Option<&str> = rows.first().map(|row| row.get(0));
    // The pause is random, so that callers that collided do not collide again.
    std::thread::sleep(Duration::from_millis(2).mul_f64(random_unit()));
    Ok(matches!(level, Some("read committed" | "read uncommitted")))
}
