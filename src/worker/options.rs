//! `WorkerOptions`: the options of a worker. `init` checks them all and returns the worker.

use crate::client::WorkerUtils;
use crate::client::sweep;
use crate::config::local_queue::LocalQueueConfig;
use crate::config::retry::LONGEST_DELAY;
use crate::config::{Config, Pull, Sweeps, WorkerRecoveryConfig};
use crate::cron::crontab::{self, Cron};
use crate::db::access::{needs, refused};
use crate::db::migrate;
use crate::db::pool::ConnectionPool;
use crate::db::schema::Schema;
use crate::db::session::{Interrupt, Setup};
use crate::db::{Database, ENGINE_SESSIONS, ROOM_FOR_TWO_FETCHES, given_or_environment, refuse_async_context};
use crate::engine::lease::by_id;
use crate::engine::store::{Role, Store};
use crate::error::{Error, Result};
use crate::extensions::Extensions;
use crate::hooks::{Event, HookRegistry, Plugin, WorkerInit, WorkerInitContext};
use crate::shutdown::ShutdownSignal;
use crate::tasks::batch::BatchTaskHandler;
use crate::tasks::{IntoTaskHandlerResult, JobDefinition, Task, TaskHandler, WorkerContext};
use crate::worker::Worker;
use log::{debug, warn};
use std::sync::Arc;
use std::time::Duration;

/// Recovery by default takes a connection only if this many are left for handlers.
const HANDLERS_BESIDE_RECOVERY: u32 = 2;

/// The limit of a batch delay. While an outcome waits, its job stays locked.
const LONGEST_BATCH_DELAY: Duration = Duration::from_secs(60);

/// The options of a worker. Start with [`WorkerOptions::default`], end with [`init`](Self::init).
///
/// A worker prints nothing, not even for a failing job. Install a logger for the `log` crate, such as `env_logger`, or
/// observe [`JobFail`](crate::JobFail).
///
/// ```no_run
/// use graphile_worker::{WorkerContext, WorkerOptions};
/// # fn main() -> graphile_worker::Result<()> {
/// let worker = WorkerOptions::default()
///     .database_url("postgres://localhost/app")
///     .concurrency(8)
///     .define_raw_job("hello", |ctx: WorkerContext| println!("job {}", ctx.job().id()))
///     .init()?;
/// worker.run()
/// # }
/// ```
#[must_use = "options do nothing until init() makes a worker of them"]
pub struct WorkerOptions {
    database_url: Option<String>,
    pool: Option<Arc<dyn ConnectionPool>>,
    max_pg_conn: u32,
    database_timeout: Duration,
    schema: String,
    migrate: bool,
    concurrency: usize,
    threads: Option<usize>,
    pull: Option<Pull>,
    poll_interval: Duration,
    notifications: bool,
    local_time: bool,
    grace_period: Duration,
    interrupted_delay: Duration,
    listen_signals: bool,
    shutdown: Option<ShutdownSignal>,
    complete_delay: Duration,
    fail_delay: Duration,
    local_queue: Option<LocalQueueConfig>,
    max_held_bytes: usize,
    forbidden_flags: Vec<String>,
    accepted_flags: Vec<String>,
    tasks: Vec<JobDefinition>,
    crons: Vec<Cron>,
    extensions: Extensions,
    hooks: HookRegistry,
    /// The recovery options that were set; `None` if none was.
    recovery: Option<WorkerRecoveryConfig>,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            database_url: None,
            pool: None,
            max_pg_conn: 20,
            database_timeout: Duration::from_secs(10),
            schema: "graphile_worker".to_owned(),
            migrate: true,
            concurrency: std::thread::available_parallelism().map_or(1, usize::from),
            threads: None,
            pull: None,
            poll_interval: Duration::from_secs(1),
            notifications: true,
            local_time: false,
            grace_period: Duration::from_secs(5),
            interrupted_delay: Duration::from_secs(30),
            listen_signals: true,
            shutdown: None,
            complete_delay: Duration::ZERO,
            fail_delay: Duration::ZERO,
            local_queue: None,
            max_held_bytes: 64 << 20,
            forbidden_flags: Vec::new(),
            accepted_flags: Vec::new(),
            tasks: Vec::new(),
            crons: Vec::new(),
            extensions: Extensions::default(),
            hooks: HookRegistry::default(),
            recovery: None,
        }
    }
}

impl WorkerOptions {
    /// Where the database is: a libpq URL or a `key=value` string. The `PG*` environment supplies what it leaves out.
    /// TLS follows `sslmode` (default: `prefer`), `sslrootcert`, `sslcert` and `sslkey`, on every connection. This or a
    /// pool is required, unless `PGHOST`, `PGDATABASE` or another `PG*` variable names the database. An empty text
    /// leaves everything to the environment and to libpq's defaults. See the deployment guide, section Database and
    /// Migrations (docs/deployment-guide.async.md).
    ///
    /// # Errors
    /// `init` returns `Config` if it does not parse; the error never contains the password.
    pub fn database_url(mut self, url: &str) -> Self {
        self.database_url = Some(url.to_owned());
        self
    }

    /// Uses the caller's r2d2 pool for handlers; `max_pg_conn` is then ignored. See the deployment guide, section
    /// Database and Migrations (docs/deployment-guide.async.md).
    ///
    /// The engine keeps four sessions of its own, or five if the pool has room for 10 connections. If `database_url` is
    /// given too, they are opened by it. Otherwise they are taken from the pool for as long as the worker runs.
    pub fn pg_pool(mut self, pool: impl ConnectionPool) -> Self {
        self.pool = Some(Arc::new(pool));
        self
    }

    /// The same as [`pg_pool`](Self::pg_pool), by the name that the deployment guide uses.
    pub fn database(self, pool: impl ConnectionPool) -> Self {
        self.pg_pool(pool)
    }

    /// How many connections the worker opens at most. The engine takes 4. From 10 on it takes a fifth one, for a second
    /// claim thread. Handlers have the rest. At least 5. Defaults to 20. See the deployment guide, section Pool and
    /// Concurrency (docs/deployment-guide.async.md).
    pub fn max_pg_conn(mut self, connections: u32) -> Self {
        self.max_pg_conn = connections;
        self
    }

    /// How long the engine waits for any reply of the database before it gives the connection up. While the bytes of a
    /// long reply arrive, it goes on waiting. Defaults to 10 seconds; at least 100 ms.
    pub fn database_timeout(mut self, timeout: Duration) -> Self {
        self.database_timeout = timeout;
        self
    }

    /// The schema of the queue. Defaults to `graphile_worker`. See the deployment guide, section Database and
    /// Migrations (docs/deployment-guide.async.md).
    ///
    /// # Errors
    /// `init` returns `Config` for a name that [`Schema::new`] refuses.
    pub fn schema(mut self, name: &str) -> Self {
        self.schema = name.to_owned();
        self
    }

    /// Whether `init` installs the schema, or migrates an existing one. Defaults to true. If false, the schema must
    /// exist.
    pub fn migrate(mut self, migrate: bool) -> Self {
        self.migrate = migrate;
        self
    }

    /// How many jobs run at once, each on a thread: 1 to 100,000. Defaults to the number of logical CPUs. See the
    /// deployment guide, section Pool and Concurrency (docs/deployment-guide.async.md).
    pub fn concurrency(mut self, jobs: usize) -> Self {
        self.concurrency = jobs;
        self
    }

    /// How many threads start jobs. Defaults to `concurrency`. Fewer are enough if tasks end their jobs on other
    /// threads.
    pub(crate) fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Pull mode: the host takes jobs with `next`, instead of the worker running them on its own threads.
    pub(crate) fn pull(mut self, pull: Pull) -> Self {
        self.pull = Some(pull);
        self
    }

    /// How long to wait between polls when no notification arrives. Defaults to 1 second.
    ///
    /// Polling also finds jobs whose `run_at` has been reached, so it bounds how late they start. While the rows of many
    /// finished jobs cannot be removed, a job that is added before waiting ones may be found this late too. Every
    /// duration of these options counts as at most 100 years. See the deployment guide, section Pool and Concurrency
    /// (docs/deployment-guide.async.md).
    ///
    /// # Errors
    /// `init` returns `Config` if it is shorter than 1 ms.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Whether to listen for notifications of new jobs. Defaults to true. If false, jobs start at the next poll.
    pub fn use_notification_delivery(mut self, listen: bool) -> Self {
        self.notifications = listen;
        self
    }

    /// Whether a job's `run_at` is compared with this machine's clock instead of the database's.
    /// Defaults to false.
    pub fn use_local_time(mut self, local: bool) -> Self {
        self.local_time = local;
        self
    }

    /// How long running jobs may go on after a stop before they are cancelled. Defaults to 5 seconds. See the
    /// deployment guide, section Shutdown Signals (docs/deployment-guide.async.md).
    pub fn shutdown_grace_period(mut self, period: Duration) -> Self {
        self.grace_period = period;
        self
    }

    /// How long a job that a stop interrupted waits for its next run. Defaults to 30 seconds. See the deployment guide,
    /// section Shutdown Signals (docs/deployment-guide.async.md).
    pub fn shutdown_interrupted_job_retry_delay(mut self, delay: Duration) -> Self {
        self.interrupted_delay = delay;
        self
    }

    /// Whether SIGINT, SIGTERM and SIGHUP stop the worker while it runs. Defaults to true. The first signal stops the
    /// worker, the second cancels running jobs at once, the third ends the process. On Linux, a signal stays ignored if
    /// it is ignored when the first worker of the process starts (as under nohup). If the program handles a
    /// signal itself, the worker leaves it alone and logs a warning. See the deployment guide, section Shutdown Signals
    /// (docs/deployment-guide.async.md).
    pub fn listen_os_shutdown_signals(mut self, listen: bool) -> Self {
        self.listen_signals = listen;
        self
    }

    /// A signal of the caller that stops the worker. Defaults to none. See the deployment guide, section Shutdown
    /// Signals (docs/deployment-guide.async.md).
    pub fn shutdown_signal(mut self, signal: ShutdownSignal) -> Self {
        self.shutdown = Some(signal);
        self
    }

    /// How long a completed job waits for others, to be written with them in one statement. Defaults to zero, at most
    /// 60 seconds. A thousand jobs are written at once, whatever the delay. Outcomes that wait while a statement runs
    /// are written by the next one, so groups form without a delay, too. The named queue of a job stays
    /// locked until its outcome is written. A stop does not wait. The async crate has an option of the same name.
    ///
    /// # Errors
    /// `init` returns `Config` if it is longer than 60 seconds.
    pub fn complete_job_batch_delay(mut self, delay: Duration) -> Self {
        self.complete_delay = delay;
        self
    }

    /// How long a failed job waits for others, as with [`complete_job_batch_delay`](Self::complete_job_batch_delay).
    /// Defaults to zero, at most 60 seconds. The async crate has an option of the same name.
    ///
    /// # Errors
    /// `init` returns `Config` if it is longer than 60 seconds.
    pub fn fail_job_batch_delay(mut self, delay: Duration) -> Self {
        self.fail_delay = delay;
        self
    }

    /// Holds a fixed number of jobs ahead of the threads. Defaults to none: the worker then holds the jobs that its
    /// threads can start in the next 20 ms, and needs no tuning. Flags apply as anywhere: the worker does not fetch
    /// jobs that it does not run. See the deployment guide, section Local Queue (docs/deployment-guide.async.md).
    ///
    /// # Errors
    /// `init` returns `Config` for values that [`LocalQueueConfig`] does not allow.
    pub fn local_queue(mut self, config: LocalQueueConfig) -> Self {
        self.local_queue = Some(config);
        self
    }

    /// How many bytes of payloads the worker holds at most for jobs that wait for a thread. Defaults to 64 MiB. A job
    /// with a larger payload is held alone, and runs. The limit applies to a [`local_queue`](Self::local_queue) too.
    /// Running jobs do not count.
    ///
    /// # Errors
    /// `init` returns `Config` if it is 0.
    pub fn max_held_bytes(mut self, bytes: usize) -> Self {
        self.max_held_bytes = bytes;
        self
    }

    /// Leaves jobs that have this flag to other workers. May be called several times. See the deployment guide, section
    /// Worker Process (docs/deployment-guide.async.md).
    pub fn add_forbidden_flag(mut self, flag: impl Into<String>) -> Self {
        self.forbidden_flags.push(flag.into());
        self
    }

    /// Runs only jobs that have this flag, or another accepted one. May be called several times.
    pub fn add_accepted_flag(mut self, flag: impl Into<String>) -> Self {
        self.accepted_flags.push(flag.into());
        self
    }

    /// Registers the task `T`. See the deployment guide, section Worker Process (docs/deployment-guide.async.md).
    pub fn define_job<T: TaskHandler>(self) -> Self {
        self.define_jobs([T::definition()])
    }

    /// Registers the batch task `T`. See the deployment guide, section Worker Process (docs/deployment-guide.async.md).
    pub fn define_batch_job<T: BatchTaskHandler>(self) -> Self {
        self.define_jobs([T::definition()])
    }

    /// Registers tasks by their definitions, which also set how their jobs are retried and how long they may run. See
    /// the deployment guide, section Worker Process (docs/deployment-guide.async.md).
    pub fn define_jobs(mut self, jobs: impl IntoIterator<Item = JobDefinition>) -> Self {
        self.tasks.extend(jobs);
        self
    }

    /// Registers a task by its name and a function that reads the payload itself.
    pub fn define_raw_job<R: IntoTaskHandlerResult>(
        self,
        identifier: &str,
        handler: impl Fn(WorkerContext) -> R + Send + Sync + 'static,
    ) -> Self {
        self.define_jobs([JobDefinition::raw(identifier, handler)])
    }

    /// Adds jobs at given times. Takes a typed [`Cron`] entry, or crontab text, for which it returns a `Result`. A tick
    /// adds one job, however many workers have the entry. If this worker does not have the task, `init` logs a warning,
    /// and another worker may run the job. Takes one more connection. [`run_once`](Worker::run_once) adds no jobs of
    /// crontab entries, and makes up for no missed ones. See the deployment guide, section Cron
    /// (docs/deployment-guide.async.md).
    ///
    /// ```
    /// # fn main() -> graphile_worker::Result<()> {
    /// use graphile_worker::WorkerOptions;
    /// let options = WorkerOptions::default().with_cron("0 8 * * 1-5 report ?tz=Europe/Berlin")?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// For text: `Config` with line and column; no entry of the text is used. `init` returns `Config` if an option of
    /// an entry is outside its limit, or if two entries have the same identifier.
    pub fn with_cron<C: CronSource>(self, cron: C) -> C::Options {
        cron.add_to(self)
    }

    /// Adds several entries, as [`with_cron`](Self::with_cron) does.
    pub fn with_crons(mut self, crons: impl IntoIterator<Item = Cron>) -> Self {
        self.crons.extend(crons);
        self
    }

    /// Adds a value for all handlers, which read it by its type with [`WorkerContext::get_ext`].
    pub fn add_extension<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.extensions.insert(value);
        self
    }

    /// How the jobs of dead workers are recovered. Without this option, `heartbeat_interval`, `sweep_interval`,
    /// `sweep_threshold` and `recovery_delay`, a worker recovers the jobs of this library's dead workers, by the default
    /// configuration. With one of these options it also recovers the jobs of the async crate's dead workers. It recovers
    /// none if the configuration is not [`enabled`](WorkerRecoveryConfig#structfield.enabled):
    /// `worker_recovery(WorkerRecoveryConfig::default())` switches recovery off. Every worker sends
    /// heartbeats, whether it recovers jobs or not.
    ///
    /// A worker is dead if it has sent no heartbeat for `sweep_threshold`, and for three of its own intervals. Its jobs
    /// are given back, the attempt does not count, and they wait for `recovery_delay`. Its queues are freed. Workers
    /// that never sent a heartbeat, such as Node's, lose their locks only after four hours. A job that kills its
    /// workers fails after [`max_recoveries`](WorkerRecoveryConfig#structfield.max_recoveries).
    ///
    /// An option of recovery takes one more connection. Recovery by default takes one only if `max_pg_conn` leaves two
    /// for handlers, and is off otherwise. It is also off if this library's tables are missing or the role may not
    /// write them. See the deployment guide, section Recovery (docs/deployment-guide.async.md).
    ///
    /// # Errors
    /// `init` returns `Config` for a threshold below three heartbeats, and `Schema` if this library's tables are
    /// missing.
    pub fn worker_recovery(mut self, config: WorkerRecoveryConfig) -> Self {
        self.recovery = Some(config);
        self
    }

    /// Changes one field of the configuration, and switches recovery on.
    fn recovers(mut self, change: impl FnOnce(WorkerRecoveryConfig) -> WorkerRecoveryConfig) -> Self {
        self.recovery = Some(change(self.recovery.unwrap_or_default()).enabled(true));
        self
    }

    /// How often this worker sends a heartbeat. Switches recovery on. Defaults to 30 seconds; a longer interval counts
    /// as 30 seconds.
    pub fn heartbeat_interval(self, interval: Duration) -> Self {
        self.recovers(|recovery| recovery.heartbeat_interval(interval))
    }

    /// How often to look for dead workers. Switches recovery on. Defaults to 60 seconds.
    pub fn sweep_interval(self, interval: Duration) -> Self {
        self.recovers(|recovery| recovery.sweep_interval(interval))
    }

    /// After how long without a heartbeat a worker is dead. Switches recovery on. Defaults to 5 minutes; at least three
    /// heartbeats. A worker with a longer interval is dead after three of its own intervals; a warning names it.
    pub fn sweep_threshold(self, threshold: Duration) -> Self {
        self.recovers(|recovery| recovery.sweep_threshold(threshold))
    }

    /// How long a recovered job waits. Switches recovery on. Defaults to 30 seconds; doubled with each recovery of the
    /// same job, and multiplied by a random factor of 0.5 to 1.5.
    pub fn recovery_delay(self, delay: Duration) -> Self {
        self.recovers(|recovery| recovery.recovery_delay(delay))
    }

    /// Registers a hook: a function that is called when `event` happens, and observes it or decides on it.
    ///
    /// Hooks of one event are called in the order of their registration. Observers run on a thread of their own, so a
    /// slow one delays no job. If a thousand events wait for them, the thread that sends a further event of a job waits
    /// up to 100 ms. The event is then dropped and counted in
    /// [`WorkerStats::events_dropped`](crate::WorkerStats::events_dropped), and one warning is logged. A hook that
    /// panics is logged; it never ends the worker. See the deployment guide, section Observability
    /// (docs/deployment-guide.async.md).
    ///
    /// ```
    /// use graphile_worker::{BeforeJobRun, HookResult, JobComplete, WorkerOptions};
    /// let options = WorkerOptions::default()
    ///     .on(JobComplete, |ctx| println!("job {} took {:?}", ctx.job.id(), ctx.duration))
    ///     .on(BeforeJobRun, |ctx| match ctx.job.attempts() > 3 {
    ///         true => HookResult::Fail("given up".into()),
    ///         false => HookResult::Continue,
    ///     });
    /// ```
    pub fn on<E: Event>(mut self, event: E, hook: impl Fn(E::Context) -> E::Output + Send + Sync + 'static) -> Self {
        self.hooks.on(event, hook);
        self
    }

    /// Registers the hooks of a plugin. See the deployment guide, section Observability
    /// (docs/deployment-guide.async.md).
    pub fn add_plugin<P: Plugin>(mut self, plugin: P) -> Self {
        plugin.register(&mut self.hooks);
        self
    }

    /// Checks what can be checked without a database and without tasks. Returns the worker's configuration, and the
    /// database's deadline.
    pub(crate) fn check(&self) -> Result<(Config, Duration)> {
        crontab::check_all(&self.crons)?;
        self.recovery.iter().try_for_each(WorkerRecoveryConfig::check)?;
        let timeout = at_least("database_timeout", self.database_timeout, Duration::from_millis(100))?;
        Ok((self.config()?, timeout))
    }

    /// The worker's configuration, with one claimer.
    fn config(&self) -> Result<Config> {
        let concurrency = in_range("concurrency", self.concurrency, 1, 100_000)?;
        let threads = self.threads.filter(|_| self.pull.is_none()).unwrap_or(concurrency);
        let local_queue = self.local_queue.as_ref().map(|queue| queue.checked(concurrency, self.poll_interval));
        Ok(Config {
            schema: Schema::new(&self.schema)?,
            concurrency,
            threads: in_range("threads", threads, 1, concurrency)?,
            pull: self.pull.clone(),
            claimers: 1,
            poll_interval: at_least("poll_interval", self.poll_interval, Duration::from_millis(1))?.min(LONGEST_DELAY),
            notifications: self.notifications,
            grace_period: self.grace_period.min(LONGEST_DELAY),
            interrupted_delay: self.interrupted_delay.min(LONGEST_DELAY),
            complete_delay: at_most("complete_job_batch_delay", self.complete_delay, LONGEST_BATCH_DELAY)?,
            fail_delay: at_most("fail_job_batch_delay", self.fail_delay, LONGEST_BATCH_DELAY)?,
            local_queue: local_queue.transpose()?,
            held_bytes: match self.max_held_bytes {
                0 => return Err(Error::config("max_held_bytes: 0 is fewer than 1")),
                bytes => bytes,
            },
            forbidden_flags: self.forbidden_flags.clone(),
            accepted_flags: self.accepted_flags.clone(),
            local_time: self.local_time,
            recovery: self.recovery.clone().unwrap_or_default(),
            sweeps: match &self.recovery {
                Some(recovery) if recovery.enabled => Sweeps::All,
                Some(_) => Sweeps::Off,
                None => Sweeps::Ours,
            },
            listen_signals: self.listen_signals,
            shutdown: self.shutdown.clone(),
        })
    }

    /// Checks the options, connects, installs or migrates the schema, and registers the tasks.
    ///
    /// # Errors
    /// `Config` with the option and its limit; `Connect` with host and port; `Auth` or `Tls`; `Schema` if the schema
    /// cannot be used, or if the role lacks a right on it; `Misuse` on a thread of an async runtime.
    pub fn init(self) -> Result<Worker> {
        refuse_async_context()?;
        let (config, timeout) = self.check()?;
        let connections = match (&self.pool, &self.database_url) {
            (Some(_), Some(_)) => u32::MAX,
            (Some(pool), None) => pool.max_size(),
            (None, _) => self.max_pg_conn,
        };
        let fetches = 1 + u32::from(connections >= ROOM_FOR_TWO_FETCHES);
        let asked_for = [(!self.crons.is_empty(), ", cron"), (config.sweeps == Sweeps::All, ", recovery")];
        let asked_for: Vec<&str> = asked_for.into_iter().filter_map(|(asked, role)| asked.then_some(role)).collect();
        let engine = ENGINE_SESSIONS + asked_for.len() as u32;
        let has_room = connections >= engine + (fetches - 1) + 1 + HANDLERS_BESIDE_RECOVERY;
        let recovers_ours = config.sweeps == Sweeps::Ours && has_room;
        let extra = (fetches - 1) + u32::from(recovers_ours);
        let config = Config { claimers: fetches as usize, ..config };
        let tasks = self.tasks.into_iter().map(Task::checked).collect::<Result<Vec<_>>>()?;
        check_tasks(&tasks)?;
        let database = match (self.pool, self.database_url) {
            (Some(pool), url) => Database::with_pool(pool, url.as_deref(), timeout)?,
            (None, url) => {
                let url =
                    given_or_environment(url.as_deref(), "database_url: missing; give a URL, or a pool with pg_pool")?;
                Database::open(url, handlers(self.max_pg_conn, engine, extra, &asked_for.concat())?, timeout)?
            }
        };
        if database.engine_uses_pool() && database.pool_size() <= engine {
            return Err(Error::config(format!(
                "pg_pool: has room for {} connections, but the engine takes {engine} and handlers need 1; \
                 enlarge it, or give database_url too",
                database.pool_size()
            )));
        }

        // If both a pool and a URL are given, handlers have connections of their own.
        let handlers = u32::from(connections != u32::MAX);
        let database = database.needing(engine + handlers);
        let interrupt = Interrupt::new();
        let mut session = database.session("init", &interrupt, &Setup::default())?;
        let needs = [needs::WORK, if self.crons.is_empty() { &[] } else { needs::CRON }].concat();
        let facts = match self.migrate {
            true => migrate::migrate(&mut session, &config.schema, &needs),
            false => migrate::probe(&mut session, &config.schema, &needs),
        }
        .map_err(|e| session.locate(e))?;
        drop(session);
        debug!(schema = config.schema.name(), server_version = facts.server_version, newest_migration = facts.max_id,
            queue_index = facts.has_queue_index, heartbeats = facts.has_private_workers, retirements = facts.has_job_retirements;
            "schema is ready");
        if config.sweeps == Sweeps::All {
            sweep::check(&facts)?;
        }
        let config = match config.sweeps {
            Sweeps::Ours if !(recovers_ours && facts.has_recovery) => {
                debug!(schema = config.schema.name(), has_room, has_tables = facts.has_recovery;
                    "this worker does not recover the jobs of dead workers");
                Config { sweeps: Sweeps::Off, ..config }
            }
            _ => config,
        };
        let names: Vec<String> = tasks.iter().map(|task| task.name.to_string()).collect();
        let mut store = Store::new(&database, &config.schema, "init", Role::Init, &interrupt);
        store.check_texts(&sent_texts(&names, &config, &self.crons))?;
        let ids = store.tasks(&names).map_err(|e| refused(&config.schema, e).context("registering the tasks"))?;
        drop(store);
        let task_ids = by_id(ids, &names);
        for cron in self.crons.iter().filter(|cron| !names.iter().any(|name| name == cron.task_identifier())) {
            warn!(crontab = cron.identifier(), task = cron.task_identifier();
                "crontab entry for a task that this worker does not have: its jobs wait for another worker");
        }
        let utils = WorkerUtils::on(database.clone(), config.schema.clone())
            .with_hooks(Arc::new(self.hooks))
            .keeping_tasks(names);
        utils.hooks().notify::<WorkerInit>(|| WorkerInitContext {
            utils: utils.clone(),
            schema: config.schema.clone(),
            concurrency: config.concurrency,
        });
        Ok(Worker::new(config, database, facts, tasks, task_ids, utils, self.extensions).with_crons(self.crons))
    }
}

/// The caller's texts that the worker sends to the database, each with the name of its field.
fn sent_texts(names: &[String], config: &Config, crons: &[Cron]) -> Vec<(String, String)> {
    let of = |field: &'static str| move |text: &String| (field.to_owned(), text.clone());
    let flags = config.forbidden_flags.iter().map(of("forbidden flag"));
    let flags = flags.chain(config.accepted_flags.iter().map(of("accepted flag")));
    names.iter().map(of("task name")).chain(flags).chain(crons.iter().flat_map(Cron::texts)).collect()
}

#[cfg(test)]
impl WorkerOptions {
    /// Every setting as text, for comparisons.
    pub(crate) fn described(&self) -> String {
        let connections = (&self.database_url, self.max_pg_conn, self.database_timeout, &self.schema, self.migrate);
        let running = (self.concurrency, self.threads, self.poll_interval, self.notifications, self.local_time);
        let stopping = (self.grace_period, self.interrupted_delay, self.listen_signals);
        let holding = (self.complete_delay, self.fail_delay, &self.local_queue, self.max_held_bytes);
        let recovery = self.recovery.clone().unwrap_or_default();
        let choosing = (&self.forbidden_flags, &self.accepted_flags, self.crons.len(), recovery);
        format!("{connections:?} {running:?} {stopping:?} {holding:?} {choosing:?}")
    }
}

/// What `with_cron` takes: a [`Cron`] entry, or crontab text.
pub trait CronSource {
    /// The options, or a `Result` of them if the source may be invalid.
    type Options;

    /// Adds the entries to the options.
    fn add_to(self, options: WorkerOptions) -> Self::Options;
}

impl CronSource for Cron {
    type Options = WorkerOptions;

    fn add_to(self, options: WorkerOptions) -> WorkerOptions {
        options.with_crons([self])
    }
}

impl CronSource for &str {
    type Options = Result<WorkerOptions>;

    fn add_to(self, options: WorkerOptions) -> Result<WorkerOptions> {
        Ok(options.with_crons(Cron::parse(self)?))
    }
}

impl CronSource for String {
    type Options = Result<WorkerOptions>;

    fn add_to(self, options: WorkerOptions) -> Result<WorkerOptions> {
        self.as_str().add_to(options)
    }
}

/// How many connections are left for handlers. `engine` is what the engine needs, including `asked_for`; `extra` is
/// what it takes if there is room.
fn handlers(max_pg_conn: u32, engine: u32, extra: u32, asked_for: &str) -> Result<u32> {
    match max_pg_conn.checked_sub(engine + extra) {
        Some(handlers) if handlers > 0 => Ok(handlers),
        _ => Err(Error::config(format!(
            "max_pg_conn: {max_pg_conn} is fewer than {}: {engine} for the engine (listen, fetch, settle, lease{asked_for}) \
             and 1 for handlers",
            engine + 1,
        ))),
    }
}

fn check_tasks(tasks: &[Task]) -> Result<()> {
    for (place, task) in tasks.iter().enumerate() {
        if tasks[..place].iter().any(|earlier| earlier.name == task.name) {
            return Err(Error::config(format!("task {:?}: is defined twice", task.name)));
        }
    }
    match tasks {
        [] => Err(Error::config("no task is defined; register what this process may run with define_job")),
        _ => Ok(()),
    }
}

fn in_range(option: &str, value: usize, least: usize, most: usize) -> Result<usize> {
    match (least..=most).contains(&value) {
        true => Ok(value),
        false => Err(Error::config(format!("{option}: {value} is outside {least} to {most}"))),
    }
}

fn at_most(option: &str, value: Duration, most: Duration) -> Result<Duration> {
    match value <= most {
        true => Ok(value),
        false => Err(Error::config(format!("{option}: {value:?} is longer than {most:?}"))),
    }
}

fn at_least(option: &str, value: Duration, least: Duration) -> Result<Duration> {
    match value >= least {
        true => Ok(value),
        false => Err(Error::config(format!("{option}: {value:?} is shorter than {least:?}"))),
    }
}
