//! `WorkerUtils`: adding and removing jobs, on a pool or inside the caller's transaction.
//! Knows the shared functions' arguments and their races; nothing of workers.

use crate::backoff::{Backoff, random_unit};
use crate::db::pool::{Connection, ConnectionPool};
use crate::db::session::Interrupt;
use crate::db::{Database, refuse_async_context};
use crate::error::{Error, ErrorKind, Result};
use crate::job::Job;
use crate::migrate;
use crate::schema::Schema;
use crate::spec::{JobKeyMode, JobSpec, TaskName};
use crate::task::TaskHandler;
use chrono::{DateTime, SubsecRound, Utc};
use log::debug;
use postgres::GenericClient;
use postgres::types::{ToSql, Type};
use serde::Serialize;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a keyed enqueue is tried that lost against a worker taking the same job.
const KEYED_TRIES: u32 = 20;

/// How long a call waits for the database unless told otherwise.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

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

/// Adds and removes jobs. Cheap to clone, usable from any thread; every call blocks.
///
/// ```no_run
/// use graphile_worker::{JobSpec, WorkerUtils};
/// # fn main() -> graphile_worker::Result<()> {
/// let utils = WorkerUtils::connect("postgres://localhost/app")?;
/// utils.add_raw_job("send_email", &serde_json::json!({"to": "ada"}), JobSpec::new())?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct WorkerUtils {
    database: Database,
    schema: Schema,
}

impl WorkerUtils {
    /// Utilities on a pool of their own, of at most 10 connections, in the schema `graphile_worker`.
    /// Connects once, so that a wrong address or password is told at once.
    ///
    /// # Errors
    /// `Config` if the string does not parse, `Connect`, `Auth` or `Tls` if the database cannot be used.
    pub fn connect(database_url: &str) -> Result<Self> {
        refuse_async_context()?;
        let database = Database::open(database_url, 10, DEADLINE)?;
        database.session("utils", &Interrupt::new())?;
        Ok(Self::on(database, Schema::default()))
    }

    /// Utilities on the caller's pool.
    pub fn new(pool: impl ConnectionPool, schema: Schema) -> Self {
        let database = Database::with_pool(Arc::new(pool), None, DEADLINE).expect("no string to parse");
        Self::on(database, schema)
    }

    pub(crate) fn on(database: Database, schema: Schema) -> Self {
        Self { database, schema }
    }

    /// The same, with calls that wait for the database no longer than `timeout`. Defaults to 10
    /// seconds, or to the worker's `database_timeout`.
    ///
    /// ```no_run
    /// # fn main() -> graphile_worker::Result<()> {
    /// let utils = graphile_worker::WorkerUtils::connect("postgres://localhost/app")?;
    /// let hurried = utils.timeout(std::time::Duration::from_secs(1));
    /// # Ok(()) }
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.database = self.database.with_deadline(timeout);
        self
    }

    /// The same, in another schema.
    pub fn schema(mut self, schema: Schema) -> Self {
        self.schema = schema;
        self
    }

    /// Installs the schema, or takes over the one that is there. Safe to call at every start, by many at once.
    ///
    /// # Errors
    /// `Schema` if the schema is older than Graphile Worker's migration 18, or newer than we understand.
    pub fn migrate(&self) -> Result<()> {
        refuse_async_context()?;
        let mut session = self.database.session("migrate", &Interrupt::new())?;
        migrate::migrate(&mut session, &self.schema).map(drop)
    }

    /// Borrows a connection of the pool.
    ///
    /// # Errors
    /// `Connect` if none came free in time.
    pub fn connection(&self) -> Result<Connection> {
        self.database.connection()
    }

    /// Adds a job of task `T`.
    ///
    /// # Errors
    /// `Config` if a field is outside its limit (nothing was sent); `Payload` if it does not serialize;
    /// `UnknownOutcome` if the connection broke and the job has no key: it may or may not have been added.
    pub fn add_job<T: TaskHandler>(&self, payload: T, spec: JobSpec) -> Result<Job> {
        self.add_raw_job(T::IDENTIFIER, &payload, spec)
    }

    /// Adds a job by its task's name.
    ///
    /// # Errors
    /// As [`add_job`](Self::add_job).
    pub fn add_raw_job(&self, identifier: &str, payload: &(impl Serialize + ?Sized), spec: JobSpec) -> Result<Job> {
        let job = checked(identifier, json(payload)?, spec)?;
        let keyed = job.spec.job_key.is_some();
        let mut added = self.send(vec![job], keyed)?;
        Ok(added.remove(0))
    }

    /// Adds many jobs of task `T`, all or none. The answer is in the order of the request.
    ///
    /// # Errors
    /// As [`add_job`](Self::add_job); `Config` if a key occurs twice, naming it.
    pub fn add_jobs<T: TaskHandler>(&self, jobs: Vec<(T, JobSpec)>) -> Result<Vec<Job>> {
        let jobs = jobs.into_iter().map(|(payload, spec)| {
            Ok(RawJob { identifier: T::IDENTIFIER.to_owned(), payload: json(&payload)?, spec })
        });
        self.add_raw_jobs(jobs.collect::<Result<_>>()?)
    }

    /// Adds many jobs, all or none. The answer is in the order of the request.
    ///
    /// # Errors
    /// As [`add_jobs`](Self::add_jobs).
    pub fn add_raw_jobs(&self, jobs: Vec<RawJob>) -> Result<Vec<Job>> {
        let jobs = checked_all(jobs)?;
        let repeatable = jobs.iter().all(|job| job.spec.job_key.is_some());
        self.send(jobs, repeatable)
    }

    /// Removes the job with this key. One that runs now goes on, and is not tried again.
    /// Answers whether there was one.
    ///
    /// # Errors
    /// `Config` if the key is outside its limit; database errors.
    pub fn remove_job(&self, job_key: &str) -> Result<bool> {
        let key = checked_key(job_key)?;
        let schema = self.schema.clone();
        let end = Instant::now() + self.database.deadline();
        self.database.run(end, move |client| remove(client, &schema, &key))?
    }

    /// The same functions on a client or inside a transaction of the caller: the job exists if, and
    /// only if, the transaction commits.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let utils = graphile_worker::WorkerUtils::connect("")?;
    /// # let mut client = postgres::Client::connect("", postgres::NoTls)?;
    /// use graphile_worker::JobSpec;
    /// let mut transaction = client.transaction()?;
    /// transaction.execute("insert into users (name) values ('ada')", &[])?;
    /// utils.with_executor(&mut transaction).add_raw_job("welcome", &"ada", JobSpec::new())?;
    /// transaction.commit()?;
    /// # Ok(()) }
    /// ```
    pub fn with_executor<'a, C: GenericClient>(&'a self, client: &'a mut C) -> Executor<'a, C> {
        Executor { client, schema: &self.schema }
    }

    /// Sends checked jobs on a pooled connection; once more, if the connection broke and that is safe.
    /// All of it ends by one deadline.
    fn send(&self, jobs: Vec<RawJob>, repeatable: bool) -> Result<Vec<Job>> {
        let jobs = Arc::new(jobs);
        // A millisecond more for each job: a hundred thousand in one call is a fair use.
        let end = Instant::now() + self.database.deadline() + Duration::from_millis(jobs.len() as u64);
        let send = || {
            let (schema, jobs) = (self.schema.clone(), jobs.clone());
            self.database.run(end, move |client| add(client, &schema, &jobs))?.map_err(|e| outcome_unknown(e, repeatable))
        };
        match send() {
            Err(error) if repeatable && error.kind() == ErrorKind::Connect => send(),
            answer => answer,
        }
    }
}

/// [`WorkerUtils`]' functions on the caller's own client or transaction; see
/// [`with_executor`](WorkerUtils::with_executor). Deadlines are those of the client.
pub struct Executor<'a, C> {
    client: &'a mut C,
    schema: &'a Schema,
}

impl<C: GenericClient> Executor<'_, C> {
    /// As [`WorkerUtils::add_job`].
    ///
    /// # Errors
    /// As there. `Conflict` at once if the transaction is REPEATABLE READ or SERIALIZABLE and a worker
    /// has taken the keyed job since it began: only a new transaction can see that.
    pub fn add_job<T: TaskHandler>(&mut self, payload: T, spec: JobSpec) -> Result<Job> {
        self.add_raw_job(T::IDENTIFIER, &payload, spec)
    }

    /// As [`WorkerUtils::add_raw_job`].
    ///
    /// # Errors
    /// As [`add_job`](Self::add_job).
    pub fn add_raw_job(&mut self, identifier: &str, payload: &(impl Serialize + ?Sized), spec: JobSpec) -> Result<Job> {
        let job = checked(identifier, json(payload)?, spec)?;
        refuse_async_context()?;
        let mut added = add(self.client, self.schema, &[job])?;
        Ok(added.remove(0))
    }

    /// As [`WorkerUtils::add_jobs`].
    ///
    /// # Errors
    /// As [`add_job`](Self::add_job).
    pub fn add_jobs<T: TaskHandler>(&mut self, jobs: Vec<(T, JobSpec)>) -> Result<Vec<Job>> {
        let jobs = jobs.into_iter().map(|(payload, spec)| {
            Ok(RawJob { identifier: T::IDENTIFIER.to_owned(), payload: json(&payload)?, spec })
        });
        self.add_raw_jobs(jobs.collect::<Result<_>>()?)
    }

    /// As [`WorkerUtils::add_raw_jobs`].
    ///
    /// # Errors
    /// As [`add_job`](Self::add_job).
    pub fn add_raw_jobs(&mut self, jobs: Vec<RawJob>) -> Result<Vec<Job>> {
        let jobs = checked_all(jobs)?;
        refuse_async_context()?;
        add(self.client, self.schema, &jobs)
    }

    /// As [`WorkerUtils::remove_job`].
    ///
    /// # Errors
    /// As there.
    pub fn remove_job(&mut self, job_key: &str) -> Result<bool> {
        let key = checked_key(job_key)?;
        refuse_async_context()?;
        remove(self.client, self.schema, &key)
    }
}

fn json(payload: &(impl Serialize + ?Sized)) -> Result<String> {
    serde_json::to_string(payload)
        .map_err(|e| Error::new(ErrorKind::Payload, "the payload does not serialize to JSON").caused_by(e))
}

fn checked(identifier: &str, payload: String, mut spec: JobSpec) -> Result<RawJob> {
    TaskName::new(identifier)?;
    spec.check()?;
    // PostgreSQL keeps microseconds; so does whoever compares with what comes back.
    spec.run_at = spec.run_at.map(|at| at.trunc_subsecs(6));
    Ok(RawJob { identifier: identifier.to_owned(), payload, spec })
}

fn checked_all(jobs: Vec<RawJob>) -> Result<Vec<RawJob>> {
    let mut keys: HashMap<&str, usize> = HashMap::new();
    for (place, job) in jobs.iter().enumerate() {
        if let Some(first) = job.spec.job_key.as_deref().and_then(|key| keys.insert(key, place)) {
            let key = job.spec.job_key.as_deref().unwrap_or_default();
            return Err(Error::config(format!("job_key {key:?}: occurs twice in one call, at {first} and {place}")));
        }
    }
    drop(keys);
    let checked = jobs.into_iter().enumerate().map(|(place, job)| {
        checked(&job.identifier, job.payload, job.spec).map_err(|e| e.context(format_args!("job {place}")))
    });
    checked.collect()
}

fn checked_key(job_key: &str) -> Result<String> {
    JobSpec::new().job_key(job_key).check()?;
    Ok(job_key.to_owned())
}

/// A connection that broke under an enqueue without a key leaves open whether it happened.
fn outcome_unknown(error: Error, repeatable: bool) -> Error {
    if repeatable || !matches!(error.kind(), ErrorKind::Connect | ErrorKind::Timeout) {
        return error;
    }
    let text = format!("the jobs may or may not have been added (a job_key would make it safe to repeat): {error}");
    Error::new(ErrorKind::UnknownOutcome, text).caused_by(error)
}

fn remove<C: GenericClient>(client: &mut C, schema: &Schema, key: &str) -> Result<bool> {
    let sql = schema.fill(include_str!("sql/remove_job.sql"));
    let rows = client.query_typed(&sql, &[(&key, Type::TEXT)])?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

/// Adds checked jobs, and answers them in the order asked for: the database's order is its own.
fn add<C: GenericClient>(client: &mut C, schema: &Schema, jobs: &[RawJob]) -> Result<Vec<Job>> {
    let mut answers: Vec<Option<Job>> = vec![None; jobs.len()];
    match jobs {
        [] => {}
        [job] => answers[0] = Some(add_one(client, schema, job)?),
        _ => {
            // All or none. Locks are taken in one order everywhere: by key, then by queue.
            let mut transaction = client.transaction()?;
            let mut order: Vec<usize> = (0..jobs.len()).collect();
            order.sort_by_key(|&place| {
                let spec = &jobs[place].spec;
                (spec.job_key.clone(), spec.queue_name.clone(), jobs[place].identifier.clone())
            });
            for mode in [JobKeyMode::Replace, JobKeyMode::PreserveRunAt] {
                let places: Vec<usize> =
                    order.iter().copied().filter(|&place| jobs[place].spec.job_key_mode.unwrap_or_default() == mode).collect();
                add_many(&mut transaction, schema, jobs, &places, mode, &mut answers)?;
            }
            // What is left had a key and lost its race, or asks to be left alone if it exists.
            for &place in &order {
                if answers[place].is_none() {
                    answers[place] = Some(add_one(&mut transaction, schema, &jobs[place])?);
                }
            }
            transaction.commit()?;
        }
    }
    Ok(answers.into_iter().map(|job| job.expect("each was added above, or we left with its error")).collect())
}

/// One call of `add_job`, repeated while a worker keeps taking the job of the same key from under it.
fn add_one<C: GenericClient>(client: &mut C, schema: &Schema, job: &RawJob) -> Result<Job> {
    let sql = schema.fill(include_str!("sql/add_job.sql"));
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
        )?;
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
        format!("job_key {key:?}: a worker took the job of this key meanwhile; nothing was added, try again in a new transaction"),
    ))
}

/// One call of `add_jobs`; places whose keyed job was taken by a worker meanwhile stay empty.
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
    let rows = client.query_typed(&schema.fill(include_str!("sql/add_jobs.sql")), &params)?;

    // Jobs that ask for the very same thing are interchangeable; a key is unique in the call.
    let mut waiting: HashMap<Likeness, VecDeque<usize>> = HashMap::new();
    for &place in places {
        waiting.entry(Likeness::of_spec(&jobs[place])).or_default().push_back(place);
    }
    let names = Names::of(client, schema, &rows)?;
    for row in &rows {
        let job = Job::from_row(row, names.task(row.get("task_id"))?)?;
        let queue = job.queue_id.map(|id| names.queue(id)).transpose()?;
        // A run_at of just now was left out, or, by chance, given as it is.
        let given = Likeness::of_row(&job, queue.clone(), Some(job.run_at));
        let left_out = Likeness::of_row(&job, queue, None);
        let just_now: bool = row.get("just_now");
        let mut take = |like: &Likeness| waiting.get_mut(like).and_then(VecDeque::pop_front);
        let place = just_now.then(|| take(&left_out)).flatten().or_else(|| take(&given)).ok_or_else(|| {
            Error::new(ErrorKind::Database, format!("job {}: the database added a job that was not asked for", job.id))
        })?;
        answers[place] = Some(job);
    }
    let missing: Vec<usize> = places.iter().copied().filter(|&place| answers[place].is_none()).collect();
    if missing.iter().any(|&place| jobs[place].spec.job_key.is_none()) {
        return Err(Error::new(ErrorKind::Database, "add_jobs left out a job without a key; nothing was added"));
    }
    if !missing.is_empty() && !sees_new_rows(client)? {
        let text = "a worker took a job of one of the keys meanwhile; nothing was added, try again in a new transaction";
        return Err(Error::new(ErrorKind::Conflict, text));
    }
    Ok(())
}

/// The names behind the ids of one call's rows.
struct Names(HashMap<(bool, i32), Arc<str>>);

impl Names {
    fn of<C: GenericClient>(client: &mut C, schema: &Schema, rows: &[postgres::Row]) -> Result<Self> {
        let tasks: BTreeSet<i32> = rows.iter().map(|row| row.get("task_id")).collect();
        let queues: BTreeSet<i32> = rows.iter().filter_map(|row| row.get("job_queue_id")).collect();
        let (tasks, queues) = (Vec::from_iter(tasks), Vec::from_iter(queues));
        let sql = schema.fill(include_str!("sql/names.sql"));
        let names = client.query_typed(&sql, &[(&tasks, Type::INT4_ARRAY), (&queues, Type::INT4_ARRAY)])?;
        let named = names.iter().map(|row| ((row.get("is_task"), row.get("id")), row.get::<_, &str>("name").into()));
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

/// What tells the jobs of one call apart.
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

/// Whether a repeated statement can see what others committed meanwhile.
fn sees_new_rows<C: GenericClient>(client: &mut C) -> Result<bool> {
    let rows = client.query_typed(include_str!("sql/isolation.sql"), &[])?;
    let level: Option<&str> = rows.first().map(|row| row.get(0));
    // Spread the next try, so that adders which collided do not collide again.
    std::thread::sleep(Duration::from_millis(2).mul_f64(random_unit()));
    Ok(matches!(level, Some("read committed" | "read uncommitted")))
}
