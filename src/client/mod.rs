//! `WorkerUtils`: adds and removes jobs, on a pool or inside the caller's transaction.
//! The statements and their races are in `enqueue.rs`; deadlines and lost replies are in `db/change.rs`.
//! What operators do with existing jobs is in `admin/api.rs`. Adding jobs by the type of their task is in
//! `tasks/add.rs`.

pub(crate) mod admin;
pub(crate) mod enqueue;
mod pairing;
pub(crate) mod sweep;

use crate::config::WorkerRecoveryConfig;
use crate::db::access::{Known, Need, needs, refused};
use crate::db::migrate;
use crate::db::pool::{Connection, ConnectionPool};
use crate::db::schema::Schema;
use crate::db::session::{Interrupt, Setup};
use crate::db::{Database, refuse_async_context};
use crate::error::{Error, ErrorKind, Result};
use crate::hooks::HookRegistry;
use crate::job::Job;
use crate::job::spec::{self, JobSpec, RawJob};
use postgres::GenericClient;
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};
use sweep::{ActiveWorkerRow, Sweep, SweepStaleWorkersOptions, SweepStaleWorkersResult};

/// How long a call waits for the database by default.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// Adds and removes jobs, and lists and changes them by hand. Cheap to clone, usable from any thread. Every call to the
/// database blocks, and fails with `Misuse` on a thread of a tokio runtime.
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
    /// Called for every job before it is added.
    hooks: Arc<HookRegistry>,
    /// The tasks that a cleanup keeps.
    tasks_to_keep: Arc<Vec<String>>,
    /// Whether changes are rolled back.
    dry_run: bool,
    /// What the last check of the schema and the role's rights found.
    known: Known,
}

impl WorkerUtils {
    /// Connects with a pool of its own, of at most 10 connections, to the schema `graphile_worker`. An empty string
    /// leaves everything to the `PG*` variables and libpq's defaults. Makes one connection at once, so that a wrong
    /// address or password is an error here.
    ///
    /// # Errors
    /// `Config` if the string cannot be parsed; `Connect`, `Auth` or `Tls` if the database cannot be used.
    pub fn connect(database_url: &str) -> Result<Self> {
        Self::connect_with_max_connections(database_url, 10)
    }

    /// As [`connect`](Self::connect), with a pool of at most `max_connections` connections.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); `Config` if `max_connections` is 0.
    pub fn connect_with_max_connections(database_url: &str, max_connections: u32) -> Result<Self> {
        Self::connect_within(database_url, max_connections, DEADLINE)
    }

    /// As [`connect_with_max_connections`](Self::connect_with_max_connections). This call and all later calls wait for
    /// the database at most `timeout`.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); `Config` if `max_connections` is 0; `Timeout` if no server replies in time.
    pub fn connect_within(database_url: &str, max_connections: u32, timeout: Duration) -> Result<Self> {
        refuse_async_context()?;
        if max_connections == 0 {
            return Err(Error::config("max_connections: 0 is fewer than 1"));
        }
        let database = Database::open(database_url, max_connections, timeout)?;
        database.reach()?;
        Ok(Self::on(database, Schema::default()))
    }

    /// Uses the caller's pool and the given schema. Makes no connection yet.
    pub fn new(pool: impl ConnectionPool, schema: Schema) -> Self {
        let database = Database::with_pool(Arc::new(pool), None, DEADLINE).expect("no string to parse");
        Self::on(database, schema)
    }

    pub(crate) fn on(database: Database, schema: Schema) -> Self {
        Self {
            database,
            schema,
            hooks: Arc::default(),
            tasks_to_keep: Arc::default(),
            dry_run: false,
            known: Known::default(),
        }
    }

    /// Returns utilities that call the [`BeforeJobSchedule`](crate::BeforeJobSchedule) hooks of this registry for every
    /// job before it is added. Utilities of [`Worker::create_utils`](crate::Worker::create_utils) call the worker's
    /// hooks.
    ///
    /// ```no_run
    /// use graphile_worker::{BeforeJobSchedule, HookRegistry, JobScheduleResult, WorkerUtils};
    /// # fn main() -> graphile_worker::Result<()> {
    /// let mut hooks = HookRegistry::new();
    /// hooks.on(BeforeJobSchedule, |ctx| match ctx.payload.get("to") {
    ///     Some(_) => JobScheduleResult::Continue(ctx.payload),
    ///     None => JobScheduleResult::Fail("no recipient".into()),
    /// });
    /// let utils = WorkerUtils::connect("postgres://localhost/app")?.with_hooks(hooks.into());
    /// # Ok(()) }
    /// ```
    pub fn with_hooks(mut self, hooks: Arc<HookRegistry>) -> Self {
        self.hooks = hooks;
        self
    }

    pub(crate) fn hooks(&self) -> &Arc<HookRegistry> {
        &self.hooks
    }

    /// Returns utilities whose calls wait for the database at most `timeout`. Defaults to 10 seconds, or to the
    /// worker's `database_timeout`. A call that adds jobs has one millisecond more for each job, and two milliseconds
    /// more for each KiB of payload. The timeout of a call that lists jobs starts again with each job that arrives.
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

    /// Returns utilities for another schema.
    pub fn schema(mut self, schema: Schema) -> Self {
        self.schema = schema;
        self.known = Known::default();
        self
    }

    /// Installs the schema, or uses the one that exists. Safe to call at every start, from many processes at once.
    ///
    /// # Errors
    /// `Schema` if the schema is older than Graphile Worker's migration 18, if a newer worker has changed it so that
    /// this library cannot use it, or if the role lacks a right.
    pub fn migrate(&self) -> Result<()> {
        refuse_async_context()?;
        self.refuse_dry_run("migrate")?;
        let mut session = self.database.session("migrate", &Interrupt::new(), &Setup::default())?;
        self.known.forget();
        migrate::migrate(&mut session, &self.schema, &[]).map(drop)
    }

    /// Lists the workers with a heartbeat, the most recent heartbeat first: those of this library and of the async
    /// crate. Node's workers send no heartbeat. A worker is stale after a silence of `sweep_threshold`, or of three of
    /// its own heartbeat intervals if that is longer.
    ///
    /// # Errors
    /// `Schema` if the role may not read the list; `Connect` or `Database` if the database does not reply.
    pub fn list_active_workers(&self, sweep_threshold: Duration) -> Result<Vec<ActiveWorkerRow>> {
        self.sweeping(needs::LEDGER, |sweep| sweep.workers(sweep_threshold))
    }

    /// Finds dead workers and recovers their jobs, with the default configuration.
    ///
    /// A worker is not dead before three of its own heartbeats are missing. If `sweep_threshold` is shorter than that
    /// for a worker, the sweep applies the longer time and names the worker in the result.
    ///
    /// ```no_run
    /// use graphile_worker::{SweepStaleWorkersOptions, WorkerUtils};
    /// # fn main() -> graphile_worker::Result<()> {
    /// let utils = WorkerUtils::connect("postgres://localhost/app")?;
    /// let look = SweepStaleWorkersOptions { dry_run: true, ..Default::default() };
    /// println!("dead: {:?}", utils.sweep_stale_workers(look)?.worker_ids);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `Schema` if this library's own tables are missing; `Connect` or `Database` if the database does not reply.
    ///
    /// See the deployment guide, section Recovery (docs/deployment-guide.async.md).
    pub fn sweep_stale_workers(&self, options: SweepStaleWorkersOptions) -> Result<SweepStaleWorkersResult> {
        self.sweep_stale_workers_with_config(&WorkerRecoveryConfig::default(), options)
    }

    /// As [`sweep_stale_workers`](Self::sweep_stale_workers), with the given configuration.
    ///
    /// # Errors
    /// As [`sweep_stale_workers`](Self::sweep_stale_workers).
    pub fn sweep_stale_workers_with_config(
        &self,
        config: &WorkerRecoveryConfig,
        options: SweepStaleWorkersOptions,
    ) -> Result<SweepStaleWorkersResult> {
        let options = SweepStaleWorkersOptions { dry_run: options.dry_run || self.dry_run, ..options };
        self.sweeping(needs::SWEEP, |sweep| Ok(sweep.sweep(config, &options)?.0))
    }

    fn sweeping<T>(&self, needs: &[Need], work: impl FnOnce(&mut Sweep) -> Result<T>) -> Result<T> {
        refuse_async_context()?;
        let mut session = self.database.session("utils", &Interrupt::new(), &Setup::default())?;
        let facts = migrate::probe(&mut session, &self.schema, needs)?;
        let (schema, hooks) = (&self.schema, &*self.hooks);
        let answer = work(&mut Sweep {
            session,
            schema,
            facts: &facts,
            hooks,
            worker_id: "worker_utils",
            only_ours: false,
            healthy_for: Duration::MAX,
        });
        answer.map_err(|error| refused(schema, error))
    }

    /// Checks that the database replies.
    ///
    /// # Errors
    /// `Connect` or `Timeout` if it does not reply.
    pub fn ping(&self) -> Result<()> {
        let end = Instant::now() + self.database.deadline();
        self.database.run(end, |client| Ok(client.simple_query("").map(drop)?))
    }

    /// Borrows a connection of the pool, until it is dropped.
    ///
    /// # Errors
    /// `Connect` if none becomes free in time.
    pub fn connection(&self) -> Result<Connection> {
        self.database.connection()
    }

    /// Adds a job by the name of its task.
    ///
    /// # Errors
    /// As [`add_job`](Self::add_job).
    pub fn add_raw_job(&self, identifier: &str, payload: &(impl Serialize + ?Sized), spec: JobSpec) -> Result<Job> {
        self.add_one(RawJob::checked(identifier, json(payload)?, spec)?)
    }

    pub(crate) fn add_one(&self, job: RawJob) -> Result<Job> {
        self.send_one(self.hooks.schedule(job)?)
    }

    pub(crate) fn send_one(&self, job: RawJob) -> Result<Job> {
        Ok(self.send(vec![job])?.remove(0))
    }

    /// Adds many jobs, all or none. Returns them in the order of the request.
    ///
    /// # Errors
    /// As [`add_jobs`](Self::add_jobs).
    pub fn add_raw_jobs(&self, jobs: Vec<RawJob>) -> Result<Vec<Job>> {
        let jobs = self.hooks.schedule_all(spec::check_all(jobs)?)?;
        self.send(jobs)
    }

    /// Removes the job with this key. Returns whether there was one. A job that runs now continues, and is not tried
    /// again.
    ///
    /// # Errors
    /// `Config` if the key is outside its limit; `UnknownOutcome` as in [`add_job`](Self::add_job); database errors.
    pub fn remove_job(&self, job_key: &str) -> Result<bool> {
        let key = spec::check_key(job_key)?;
        self.change(needs::REMOVE, move |client, schema, _| enqueue::remove(client, schema, &key))
    }

    /// Returns the same functions on a client or a transaction of the caller. The job exists if, and only if, the
    /// transaction commits.
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
        Executor { client, utils: self }
    }

    pub(crate) fn refuse_dry_run(&self, doing: &str) -> Result<()> {
        match self.dry_run {
            true => {
                Err(Error::new(ErrorKind::Misuse, format!("these utilities are in dry-run mode and cannot {doing}")))
            }
            false => Ok(()),
        }
    }

    /// Adds checked jobs, all or none.
    fn send(&self, jobs: Vec<RawJob>) -> Result<Vec<Job>> {
        self.refuse_dry_run("add jobs")?;
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        // A millisecond more for each job, because one call may add a hundred thousand. Two more for each KiB, which
        // crosses the link twice: the reply contains it too.
        let bytes: usize = jobs.iter().map(|job| job.payload.len()).sum();
        let timeout = self.database.deadline() + Duration::from_millis((jobs.len() + bytes / 512) as u64);
        let end = Instant::now() + timeout;
        let (schema, schema_of_added, known) = (self.schema.clone(), self.schema.clone(), self.known.clone());
        let answer = self.database.change(
            timeout,
            true,
            move |client, _| {
                known.check(client, &schema, needs::ADD)?;
                enqueue::add(client, &schema, &jobs)
            },
            move |client, added, began| enqueue::is_added(client, &schema_of_added, added, began),
        );
        answer.map_err(|error| self.explained(error, needs::ADD, end))
    }

    /// Replaces the error of a call by the refusal that a new check finds, if any. The last check may be a minute old.
    fn explained(&self, error: Error, needs: &'static [Need], end: Instant) -> Error {
        let about_the_schema =
            matches!(error.sqlstate(), Some("3F000" | "42P01" | "42883" | "42704" | "42703" | "42501"));
        if error.kind() != ErrorKind::Database || !about_the_schema {
            return error;
        }
        self.known.forget();
        let (schema, known) = (self.schema.clone(), self.known.clone());
        match self.database.run(end, move |client| known.check(client, &schema, needs)) {
            Err(refusal) if refusal.kind() == ErrorKind::Schema => refusal.caused_by(error),
            _ => refused(&self.schema, error),
        }
    }
}

/// The functions of [`WorkerUtils`] on the caller's own client or transaction; see
/// [`with_executor`](WorkerUtils::with_executor). The deadlines are those of the client.
pub struct Executor<'a, C> {
    client: &'a mut C,
    pub(crate) utils: &'a WorkerUtils,
}

impl<C: GenericClient> Executor<'_, C> {
    /// As [`WorkerUtils::add_raw_job`].
    ///
    /// # Errors
    /// As [`add_job`](Self::add_job).
    pub fn add_raw_job(&mut self, identifier: &str, payload: &(impl Serialize + ?Sized), spec: JobSpec) -> Result<Job> {
        self.add_one(RawJob::checked(identifier, json(payload)?, spec)?)
    }

    pub(crate) fn add_one(&mut self, job: RawJob) -> Result<Job> {
        refuse_async_context()?;
        self.utils.refuse_dry_run("add jobs")?;
        let job = self.utils.hooks.schedule(job)?;
        Ok(self.send(&[job])?.remove(0))
    }

    /// As [`WorkerUtils::add_raw_jobs`].
    ///
    /// # Errors
    /// As [`add_job`](Self::add_job).
    pub fn add_raw_jobs(&mut self, jobs: Vec<RawJob>) -> Result<Vec<Job>> {
        let jobs = spec::check_all(jobs)?;
        refuse_async_context()?;
        self.utils.refuse_dry_run("add jobs")?;
        let jobs = self.utils.hooks.schedule_all(jobs)?;
        self.send(&jobs)
    }

    pub(crate) fn send(&mut self, jobs: &[RawJob]) -> Result<Vec<Job>> {
        self.utils.known.check(self.client, &self.utils.schema, needs::ADD)?;
        if jobs.len() == 1 {
            return enqueue::add(self.client, &self.utils.schema, jobs);
        }
        let schema = &self.utils.schema;
        crate::client::admin::statements::transact(self.client.transaction()?, true, |transaction| {
            enqueue::add(transaction, schema, jobs)
        })
    }

    /// As [`WorkerUtils::remove_job`].
    ///
    /// # Errors
    /// As there.
    pub fn remove_job(&mut self, job_key: &str) -> Result<bool> {
        let key = spec::check_key(job_key)?;
        self.change(needs::REMOVE, |transaction, schema| enqueue::remove(transaction, schema, &key))
    }
}

/// Serializes a payload.
pub(crate) fn json(payload: &(impl Serialize + ?Sized)) -> Result<String> {
    serde_json::to_string(payload)
        .map_err(|e| Error::new(ErrorKind::Payload, "the payload does not serialize to JSON").caused_by(e))
}
