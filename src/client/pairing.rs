//! Finds out which row of a reply to `add_jobs` belongs to which job of the call: the rows come in any order.

use crate::db::schema::Schema;
use crate::error::{Error, ErrorKind, Result};
use crate::job::Job;
use crate::job::spec::RawJob;
use crate::text::Text;
use chrono::{DateTime, Utc};
use postgres::types::Type;
use postgres::{GenericClient, Row};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// Puts each added job into the place of its request. The places of requests without a row stay empty. Jobs with the same
/// content are interchangeable. A key is unique in the call.
///
/// # Errors
/// `Database` if a row belongs to none of the requests; database errors.
pub(super) fn pair<C: GenericClient>(
    client: &mut C,
    schema: &Schema,
    jobs: &[RawJob],
    places: &[usize],
    rows: &[Row],
    added: &mut [Option<Job>],
) -> Result<()> {
    let mut waiting: HashMap<Likeness, VecDeque<usize>> = HashMap::new();
    for &place in places {
        waiting.entry(Likeness::of_spec(&jobs[place])).or_default().push_back(place);
    }
    let names = NameCache::of(client, schema, rows)?;
    for row in rows {
        let job = Job::from_row(row, names.task(row.get("task_id"))?)?;
        let queue = job.queue_id.map(|id| names.queue(id)).transpose()?;
        // A run_at equal to the transaction's now() was left out. Or, by chance, the caller gave this very time.
        let given = Likeness::of_row(&job, queue.clone(), Some(job.run_at));
        let left_out = Likeness::of_row(&job, queue, None);
        let just_now: bool = row.get("just_now");
        let mut take = |like: &Likeness| waiting.get_mut(like).and_then(VecDeque::pop_front);
        let place = just_now.then(|| take(&left_out)).flatten().or_else(|| take(&given)).ok_or_else(|| {
            Error::new(ErrorKind::Database, format!("job {}: the database added a job that was not requested", job.id))
        })?;
        added[place] = Some(job);
    }
    Ok(())
}

/// The names of the tasks and queues in the rows of one call.
struct NameCache(HashMap<(bool, i32), Arc<str>>);

impl NameCache {
    fn of<C: GenericClient>(client: &mut C, schema: &Schema, rows: &[Row]) -> Result<Self> {
        let tasks: BTreeSet<i32> = rows.iter().map(|row| row.get("task_id")).collect();
        let queues: BTreeSet<i32> = rows.iter().filter_map(|row| row.get("job_queue_id")).collect();
        let (tasks, queues) = (Vec::from_iter(tasks), Vec::from_iter(queues));
        let sql = schema.fill(include_str!("../sql/enqueue/names.sql"));
        let names = client.query_typed(&sql, &[(&tasks, Type::INT4_ARRAY), (&queues, Type::INT4_ARRAY)])?;
        let named = names.iter().map(|row| ((row.get("is_task"), row.get("id")), row.get::<_, Text>("name").0.into()));
        Ok(Self(named.collect()))
    }

    fn task(&self, id: i32) -> Result<Arc<str>> {
        self.0.get(&(true, id)).cloned().ok_or_else(|| Error::new(ErrorKind::Database, format!("task {id} has no row")))
    }

    fn queue(&self, id: i32) -> Result<String> {
        let name = self.0.get(&(false, id)).map(|name| name.to_string());
        name.ok_or_else(|| Error::new(ErrorKind::Database, format!("queue {id} has no row")))
    }
}

/// What distinguishes the jobs of one call.
#[derive(PartialEq, Eq, Hash)]
enum Likeness {
    Key(String),
    Content {
        task: String,
        payload: Vec<u8>,
        queue: Option<String>,
        run_at: Option<DateTime<Utc>>,
        max_attempts: i32,
        priority: i32,
        flags: Vec<String>,
    },
}

impl Likeness {
    fn of_spec(job: &RawJob) -> Self {
        let spec = &job.spec;
        if let Some(key) = &spec.job_key {
            return Self::Key(key.clone());
        }
        Self::Content {
            task: job.identifier.clone(),
            payload: job.payload.clone().into_bytes(),
            queue: spec.queue_name.clone(),
            run_at: spec.run_at,
            max_attempts: spec.max_attempts.unwrap_or(25),
            priority: spec.priority.unwrap_or(0),
            flags: sorted(spec.flags.clone().unwrap_or_default()),
        }
    }

    fn of_row(job: &Job, queue: Option<String>, run_at: Option<DateTime<Utc>>) -> Self {
        if let Some(key) = &job.key {
            return Self::Key(key.clone());
        }
        Self::Content {
            task: job.task_identifier.to_string(),
            payload: job.payload.clone(),
            queue,
            run_at,
            max_attempts: job.max_attempts.into(),
            priority: job.priority.into(),
            flags: sorted(job.flags()),
        }
    }
}

fn sorted(mut flags: Vec<String>) -> Vec<String> {
    flags.sort_unstable();
    flags.dedup();
    flags
}
