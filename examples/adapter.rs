//! The Rust adapter of tests/conformance: executes commands, one per line, and decides nothing.
//! tests/conformance/README.md lists the commands.

use chrono::{DateTime, Utc};
use graphile_worker::*;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::io::{BufRead, Write};
use std::str::FromStr;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// The reply to a command: the fields after `ok`.
type Reply = Result<Vec<String>, Refusal>;

fn main() -> std::io::Result<()> {
    let mut adapter = Adapter::default();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split('\t').collect();
        if words == ["quit"] {
            break;
        }
        let reply = match adapter.obey(&words) {
            Ok(fields) => [vec!["ok".to_owned()], fields].concat(),
            Err(no) => vec!["error".into(), no.status.into(), no.sqlstate, no.message.replace(['\t', '\n', '\r'], " ")],
        };
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{}", reply.join("\t"))?;
        stdout.flush()?;
    }
    adapter.close();
    Ok(())
}

#[derive(Default)]
struct Adapter {
    client: Option<WorkerUtils>,
    /// The jobs that `and` keeps for `add_many`.
    jobs: Vec<RawJob>,
    /// A worker that is not started yet.
    options: Option<WorkerOptions>,
    running: Option<Running>,
    ran: Notes,
    events: Notes,
}

impl Adapter {
    fn obey(&mut self, words: &[&str]) -> Reply {
        match *words {
            ["client", ref pairs @ ..] => {
                self.client = Some(client(pairs)?);
                done()
            }
            ["add", task, payload, ref pairs @ ..] => {
                let (payload, spec) = (json_text(payload)?, spec(pairs)?);
                let added = match task {
                    // A raw payload is never changed: only a typed task can carry a trace context.
                    "trace" => self.client()?.add_job(Trace(payload), spec)?,
                    _ => self.client()?.add_raw_job(task, &payload, spec)?,
                };
                answer(added.id())
            }
            ["and", task, payload, ref pairs @ ..] => {
                let payload = json_text(payload)?.get().to_owned();
                self.jobs.push(RawJob { identifier: task.to_owned(), payload, spec: spec(pairs)? });
                done()
            }
            ["add_many"] => {
                let jobs = std::mem::take(&mut self.jobs);
                Ok(self.client()?.add_raw_jobs(jobs)?.iter().map(|job| job.id().to_string()).collect())
            }
            ["remove", key] => answer(self.client()?.remove_job(key)?),
            ["job", id] => match self.client()?.job(number("id", id)?)? {
                Some(job) => as_json(job),
                None => answer("none"),
            },
            ["list", options] => as_json(self.client()?.list_jobs(&list_options(options)?)?),
            ["stats"] => as_json(self.client()?.stats()?),
            ["queues"] => as_json(self.client()?.queues()?),
            ["locked_workers"] => as_json(self.client()?.locked_workers()?),
            ["active_workers", ms] => {
                let workers = self.client()?.list_active_workers(millis(ms)?)?;
                let row =
                    |worker: ActiveWorkerRow| json!({ "worker_id": worker.worker_id, "is_stale": worker.is_stale });
                as_json(workers.into_iter().map(row).collect::<Vec<_>>())
            }
            ["complete", list] => as_json(self.client()?.complete_jobs(&ids(list)?)?),
            ["fail", list, reason] => as_json(self.client()?.permanently_fail_jobs(&ids(list)?, reason)?),
            ["reschedule", list, options] => {
                as_json(self.client()?.reschedule_jobs(&ids(list)?, reschedule_options(options)?)?)
            }
            ["unlock", workers] => {
                as_json(self.client()?.force_unlock_workers(&workers.split(',').collect::<Vec<_>>())?)
            }
            ["cleanup", tasks] => as_json(self.client()?.cleanup(&cleanup_tasks(tasks)?)?),
            ["sweep", options] => as_json(self.client()?.sweep_stale_workers(sweep_options(options)?)?),
            ["next_runs", line, after, n] => {
                let entries = Cron::parse(line).map_err(crontab)?;
                let (after, n) = (time(after)?, number("n", n)?);
                let runs = entries.iter().flat_map(|entry| entry.next_runs_after(after, n));
                Ok(runs.map(|run| run.timestamp_micros().to_string()).collect())
            }
            ["worker", ref pairs @ ..] => {
                self.options = Some(self.worker(pairs)?);
                done()
            }
            ["start"] => self.start(Worker::run),
            ["start_once"] => self.start(Worker::run_once),
            ["stop", "graceful"] => {
                self.running()?.worker.request_shutdown();
                done()
            }
            ["stop", "abort"] => {
                self.running()?.worker.abort();
                done()
            }
            ["wait", ms] => {
                let timeout = millis(ms)?;
                self.running()?.wait(timeout)
            }
            ["ran"] => Ok(self.ran.take()),
            ["events"] => Ok(self.events.take()),
            ["worker_stats"] => as_json(counters(&self.running()?.worker.stats())),
            ["worker_id"] => answer(self.running()?.worker.worker_id().ok_or_else(no_worker)?),
            ["close"] => {
                self.close();
                done()
            }
            _ => Err(refusal("GW_ERR_UNSUPPORTED", "unknown command")),
        }
    }

    fn client(&self) -> Result<&WorkerUtils, Refusal> {
        self.client.as_ref().ok_or_else(|| refusal("GW_ERR_STATE", "there is no client"))
    }

    fn running(&mut self) -> Result<&mut Running, Refusal> {
        self.running.as_mut().ok_or_else(no_worker)
    }

    fn worker(&self, pairs: &[&str]) -> Result<WorkerOptions, Refusal> {
        let mut worker = Settings::new();
        for (key, value) in split(pairs) {
            worker.set(key, value, &self.events)?;
        }
        Ok(worker.options().add_extension(self.ran.clone()))
    }

    fn start(&mut self, live: fn(&Worker) -> Result<()>) -> Reply {
        let worker = Arc::new(self.options.take().ok_or_else(no_worker)?.init()?);
        let (result_sender, ended) = channel();
        let runner = worker.clone();
        thread::spawn(move || result_sender.send(live(&runner)));
        self.running = Some(Running { worker, ended, result: None });
        done()
    }

    fn close(&mut self) {
        self.client = None;
        if let Some(mut running) = self.running.take() {
            running.worker.request_shutdown();
            let _ = running.wait(Duration::MAX);
        }
    }
}

/// A worker on a thread of its own.
struct Running {
    worker: Arc<Worker>,
    ended: Receiver<Result<()>>,
    /// How it ended; set by the first `wait` that saw the end.
    result: Option<Result<()>>,
}

impl Running {
    fn wait(&mut self, timeout: Duration) -> Reply {
        if self.result.is_none() {
            self.result = self.ended.recv_timeout(timeout).ok();
        }
        match &self.result {
            None => answer("timeout"),
            Some(Ok(())) => answer("ended"),
            Some(Err(error)) => Err(error.into()),
        }
    }
}

/// The notes of tasks and hooks, in order.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn add(&self, note: impl Into<String>) {
        self.0.lock().expect("no code panics while it holds the notes").push(note.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().expect("no code panics while it holds the notes"))
    }
}

// The standard tasks.

const TASKS: [&str; 11] =
    ["ok", "fail", "throw", "fail_twice", "wait", "sleep", "snooze", "later", "spawn", "batch", "trace"];

const AN_HOUR: Duration = Duration::from_secs(3600);

fn task(name: &str) -> Option<JobDefinition> {
    Some(match name {
        "ok" => JobDefinition::raw(name, |ctx| drop(noted(&ctx))),
        "fail" => JobDefinition::raw(name, |ctx| Err::<(), _>(noted(&ctx))),
        "throw" => JobDefinition::raw(name, |ctx| panic!("{}", noted(&ctx)) as ()),
        "fail_twice" => JobDefinition::raw(name, |ctx| {
            noted(&ctx);
            match ctx.job().attempts() {
                attempt @ ..3 => Err(format!("attempt {attempt}")),
                _ => Ok(()),
            }
        }),
        "wait" => JobDefinition::raw(name, |ctx| {
            noted(&ctx);
            while !ctx.is_cancelled() {
                thread::sleep(Duration::from_millis(2));
            }
            note(&ctx, "wait:cancelled:".into());
            Err::<(), _>("cancelled")
        }),
        "sleep" => JobDefinition::raw(name, |ctx| -> Result<()> {
            noted(&ctx);
            thread::sleep(Duration::from_millis(ctx.job().payload_as()?));
            Ok(())
        }),
        "snooze" => JobDefinition::raw(name, |ctx| {
            noted(&ctx);
            ctx.snooze(AN_HOUR);
        }),
        "later" => JobDefinition::raw(name, |ctx| {
            noted(&ctx);
            ctx.retry_after(AN_HOUR);
            Err::<(), _>("later")
        }),
        "spawn" => JobDefinition::raw(name, |ctx| -> Result<()> {
            noted(&ctx);
            ctx.utils().add_raw_job("ok", &ctx.job().payload_as::<Box<RawValue>>()?, JobSpec::new()).map(drop)
        }),
        "batch" => Item::definition(),
        "trace" => Trace::definition(),
        _ => return None,
    })
}

/// An item of a batch.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Item(i64);

impl BatchTaskHandler for Item {
    const IDENTIFIER: &'static str = "batch";

    fn run_batch(items: Vec<Self>, ctx: WorkerContext) -> impl IntoBatchTaskHandlerResult {
        noted(&ctx);
        items.iter().map(|item| if item.0 < 0 { Err("negative") } else { Ok(()) }).collect::<Vec<_>>()
    }
}

/// Any payload, in a trace.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Trace(Box<RawValue>);

impl TaskHandler for Trace {
    const IDENTIFIER: &'static str = "trace";

    fn run(self, ctx: WorkerContext) -> impl IntoTaskHandlerResult {
        note(&ctx, format!("trace:{}:{}", ctx.job().attempts(), ctx.traceparent().unwrap_or_default()));
    }
}

fn note(ctx: &WorkerContext, text: String) {
    ctx.get_ext::<Notes>().expect("every worker has it").add(text);
}

/// Notes that the job runs; returns the text of its payload.
fn noted(ctx: &WorkerContext) -> String {
    let (job, payload) = (ctx.job(), String::from_utf8_lossy(ctx.payload()).into_owned());
    note(ctx, format!("{}:{}:{payload}", job.task_identifier(), job.attempts()));
    payload
}

// Options as text.

fn client(pairs: &[&str]) -> Result<WorkerUtils, Refusal> {
    let mut url = std::env::var("DATABASE_URL").unwrap_or_default();
    let (mut schema, mut timeout, mut dry_run) = (Schema::default(), None, false);
    for (key, value) in split(pairs) {
        match key {
            "database_url" => url = value.to_owned(),
            "database_timeout" => timeout = Some(duration(key, value)?),
            "schema" => schema = Schema::new(value)?,
            "dry_run" => dry_run = number(key, value)?,
            _ => return Err(no_option(key)),
        }
    }
    let mut client = WorkerUtils::connect(&url)?.schema(schema);
    if let Some(timeout) = timeout {
        client = client.timeout(timeout);
    }
    Ok(if dry_run { client.dry_run() } else { client })
}

/// The options of a worker, some of which are collected before they are set.
struct Settings {
    options: WorkerOptions,
    tasks: Vec<(&'static str, JobDefinition)>,
    recovery: Option<WorkerRecoveryConfig>,
    local_queue: Option<LocalQueueConfig>,
}

impl Settings {
    fn new() -> Self {
        Self {
            options: WorkerOptions::default().database_url(&std::env::var("DATABASE_URL").unwrap_or_default()),
            tasks: TASKS.iter().filter_map(|name| Some((*name, task(name)?))).collect(),
            recovery: None,
            local_queue: None,
        }
    }

    fn set(&mut self, key: &str, value: &str, events: &Notes) -> Result<(), Refusal> {
        let options = std::mem::take(&mut self.options);
        self.options = match key {
            "database_url" => options.database_url(value),
            "max_pg_conn" => options.max_pg_conn(number(key, value)?),
            "database_timeout" => options.database_timeout(duration(key, value)?),
            "schema" => options.schema(value),
            "migrate" => options.migrate(number(key, value)?),
            "concurrency" => options.concurrency(number(key, value)?),
            "poll_interval" => options.poll_interval(duration(key, value)?),
            "use_notification_delivery" => options.use_notification_delivery(number(key, value)?),
            "use_local_time" => options.use_local_time(number(key, value)?),
            "shutdown_grace_period" => options.shutdown_grace_period(duration(key, value)?),
            "shutdown_interrupted_job_retry_delay" => {
                options.shutdown_interrupted_job_retry_delay(duration(key, value)?)
            }
            "complete_job_batch_delay" => options.complete_job_batch_delay(duration(key, value)?),
            "fail_job_batch_delay" => options.fail_job_batch_delay(duration(key, value)?),
            "max_held_bytes" => options.max_held_bytes(number(key, value)?),
            "forbidden_flags" => value.split(',').fold(options, WorkerOptions::add_forbidden_flag),
            "accepted_flags" => value.split(',').fold(options, WorkerOptions::add_accepted_flag),
            "crontab" => options.with_cron(value).map_err(crontab)?,
            "hook" => observe(options, value, events)?,
            _ => {
                self.options = options;
                return self.set_piece(key, value);
            }
        };
        Ok(())
    }

    fn set_piece(&mut self, key: &str, value: &str) -> Result<(), Refusal> {
        let recovery = self.recovery.clone().unwrap_or_default();
        let local_queue = self.local_queue.clone().unwrap_or_default();
        match key {
            "heartbeat_interval" => {
                self.recovery = Some(recovery.heartbeat_interval(duration(key, value)?).enabled(true))
            }
            "sweep_interval" => self.recovery = Some(recovery.sweep_interval(duration(key, value)?).enabled(true)),
            "sweep_threshold" => self.recovery = Some(recovery.sweep_threshold(duration(key, value)?).enabled(true)),
            "recovery_delay" => self.recovery = Some(recovery.recovery_delay(duration(key, value)?).enabled(true)),
            "local_queue_size" => self.local_queue = Some(local_queue.with_size(number(key, value)?)),
            "local_queue_ttl" => self.local_queue = Some(local_queue.with_ttl(duration(key, value)?)),
            "tasks" => self.tasks.retain(|(name, _)| value.split(',').any(|wanted| wanted == *name)),
            _ => return self.set_task(key, value),
        }
        Ok(())
    }

    /// `task.<name>.timeout` and `task.<name>.backoff`.
    fn set_task(&mut self, key: &str, value: &str) -> Result<(), Refusal> {
        let name = key.strip_prefix("task.").and_then(|rest| rest.split_once('.'));
        let (name, option) = name.ok_or_else(|| no_option(key))?;
        let place = self.tasks.iter().position(|(task, _)| *task == name).ok_or_else(|| no_option(key))?;
        let (name, task) = self.tasks.remove(place);
        let task = match option {
            "timeout" => task.timeout(duration(key, value)?),
            "backoff" => task.backoff(backoff(key, value)?),
            _ => return Err(no_option(key)),
        };
        self.tasks.push((name, task));
        Ok(())
    }

    fn options(self) -> WorkerOptions {
        let options = self.recovery.into_iter().fold(self.options, WorkerOptions::worker_recovery);
        let options = self.local_queue.into_iter().fold(options, WorkerOptions::local_queue);
        options.define_jobs(self.tasks.into_iter().map(|(_, task)| task))
    }
}

/// Notes each event of this name.
fn observe(options: WorkerOptions, name: &str, events: &Notes) -> Result<WorkerOptions, Refusal> {
    let events = events.clone();
    macro_rules! observe {
        ($($event:ident)*) => {
            match name {
                $(stringify!($event) => Ok(options.on($event, move |_| events.add(stringify!($event)))),)*
                _ => Err(refusal("GW_ERR_CONFIG", format!("hook: {name:?} is not an event"))),
            }
        };
    }
    observe!(WorkerInit WorkerStart WorkerShutdown WorkerRecovered JobFetch JobStart JobComplete JobFail
        JobPermanentlyFail JobInterrupted JobLost JobTimeout CronTick CronJobScheduled)
}

fn spec(pairs: &[&str]) -> Result<JobSpec, Refusal> {
    let mut spec = JobSpec::new();
    for (key, value) in split(pairs) {
        spec = match key {
            "queue" => spec.queue_name(value),
            "run_at_us" => spec.run_at(time(value)?),
            "max_attempts" => spec.max_attempts(number(key, value)?),
            "priority" => spec.priority(number(key, value)?),
            "key" => spec.job_key(value),
            "key_mode" => spec.job_key_mode(match value {
                "replace" => JobKeyMode::Replace,
                "preserve_run_at" => JobKeyMode::PreserveRunAt,
                "unsafe_dedupe" => JobKeyMode::UnsafeDedupe,
                _ => return Err(no_option("key_mode")),
            }),
            "flag" => {
                let flags = spec.flags.take().unwrap_or_default();
                spec.flags(flags.into_iter().chain([value.to_owned()]))
            }
            "traceparent" => spec.traceparent(value),
            _ => return Err(no_option(key)),
        };
    }
    Ok(spec)
}

fn list_options(text: &str) -> Result<ListJobsOptions, Refusal> {
    #[derive(Deserialize)]
    struct Options {
        task: Option<String>,
        queue: Option<String>,
        state: Option<String>,
        limit: Option<i64>,
        offset: Option<i64>,
    }
    let options: Options = serde_json::from_str(text)?;
    let default = ListJobsOptions::default();
    Ok(ListJobsOptions {
        identifier: options.task,
        queue: options.queue,
        state: options.state.map(|state| state.parse()).transpose()?,
        limit: options.limit.unwrap_or(default.limit),
        offset: options.offset.unwrap_or(default.offset),
    })
}

fn reschedule_options(text: &str) -> Result<RescheduleJobOptions, Refusal> {
    #[derive(Deserialize)]
    struct Options {
        run_at: Option<Value>,
        priority: Option<i32>,
        attempts: Option<i32>,
        max_attempts: Option<i32>,
    }
    let options: Options = serde_json::from_str(text)?;
    let now = options.run_at.as_ref().is_some_and(|at| at == "now");
    let run_at = options.run_at.filter(|_| !now).map(|at| match at.as_str() {
        Some(text) => text.parse().map_err(|e| refusal("GW_ERR_CONFIG", format!("run_at: {e}"))),
        None => time(&at.to_string()),
    });
    let Options { priority, attempts, max_attempts, .. } = options;
    Ok(RescheduleJobOptions { run_at: run_at.transpose()?, now, priority, attempts, max_attempts })
}

fn sweep_options(text: &str) -> Result<SweepStaleWorkersOptions, Refusal> {
    let options: Value = serde_json::from_str(text)?;
    let millis = |key: &str| options[key].as_u64().map(Duration::from_millis);
    Ok(SweepStaleWorkersOptions {
        sweep_threshold: millis("sweep_threshold_ms"),
        recovery_delay: millis("recovery_delay_ms"),
        dry_run: options["dry_run"] == true,
    })
}

fn cleanup_tasks(text: &str) -> Result<Vec<CleanupTask>, Refusal> {
    let tasks = text.split(',').map(|name| match name {
        "delete_permafailed" => Ok(CleanupTask::DeletePermanentlyFailedJobs),
        "gc_tasks" => Ok(CleanupTask::GcTaskIdentifiers),
        "gc_queues" => Ok(CleanupTask::GcJobQueues),
        _ => Err(no_option(name)),
    });
    tasks.collect()
}

fn counters(stats: &WorkerStats) -> Value {
    json!({
        "claimed": stats.claimed, "completed": stats.completed, "failed": stats.failed, "retried": stats.retried,
        "permanently_failed": stats.permanently_failed, "returned": stats.returned, "snoozed": stats.snoozed,
        "timed_out": stats.timed_out, "stuck": stats.stuck, "lost": stats.lost, "reconciled": stats.reconciled,
        "database_errors": stats.database_errors, "held": stats.held, "running": stats.running,
        "in_flight": stats.in_flight, "events_dropped": stats.events_dropped,
    })
}

// Fields.

fn split<'a>(pairs: &[&'a str]) -> impl Iterator<Item = (&'a str, &'a str)> {
    pairs.iter().map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn json_text(text: &str) -> Result<Box<RawValue>, Refusal> {
    Ok(serde_json::from_str(text)?)
}

fn number<T: FromStr>(key: &str, text: &str) -> Result<T, Refusal> {
    text.parse().map_err(|_| refusal("GW_ERR_CONFIG", format!("{key}: {text:?} is not a valid value")))
}

fn ids(list: &str) -> Result<Vec<i64>, Refusal> {
    list.split(',').map(|id| number("id", id)).collect()
}

fn millis(text: &str) -> Result<Duration, Refusal> {
    Ok(Duration::from_millis(number("ms", text)?))
}

fn time(micros: &str) -> Result<DateTime<Utc>, Refusal> {
    let time = DateTime::from_timestamp_micros(number("time", micros)?);
    time.ok_or_else(|| refusal("GW_ERR_CONFIG", "run_at: is out of range"))
}

fn duration(key: &str, text: &str) -> Result<Duration, Refusal> {
    let wrong =
        || refusal("GW_ERR_CONFIG", format!("{key}: {text:?} is not a duration; write 250ms, 30s, 5m, 2h or 1d"));
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let count: u64 = text[..text.len() - unit.len()].parse().map_err(|_| wrong())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" if count == 0 => 0,
        _ => return Err(wrong()),
    };
    Ok(Duration::from_millis(count.saturating_mul(millis)))
}

fn backoff(key: &str, text: &str) -> Result<RetryPolicy, Refusal> {
    let words: Vec<&str> = text.split(' ').collect();
    Ok(match words[..] {
        ["fixed", delay] => RetryPolicy::fixed(duration(key, delay)?),
        ["linear", step, cap] => RetryPolicy::linear(duration(key, step)?, duration(key, cap)?),
        ["exponential", first, cap] => RetryPolicy::exponential(duration(key, first)?, duration(key, cap)?),
        _ => return Err(refusal("GW_ERR_CONFIG", format!("{key}: {text:?} is not one of fixed, linear, exponential"))),
    })
}

// Replies.

fn done() -> Reply {
    Ok(Vec::new())
}

fn answer(value: impl ToString) -> Reply {
    Ok(vec![value.to_string()])
}

fn as_json(value: impl Serialize) -> Reply {
    answer(serde_json::to_string(&value)?)
}

/// The error of a command, with the status of the C library.
struct Refusal {
    status: &'static str,
    sqlstate: String,
    message: String,
}

fn refusal(status: &'static str, message: impl ToString) -> Refusal {
    Refusal { status, sqlstate: "-".into(), message: message.to_string() }
}

fn no_option(key: &str) -> Refusal {
    refusal("GW_ERR_CONFIG", format!("{key}: is not an option"))
}

fn no_worker() -> Refusal {
    refusal("GW_ERR_STATE", "there is no worker")
}

fn crontab(error: Error) -> Refusal {
    Refusal { status: "GW_ERR_CRONTAB", ..error.into() }
}

impl From<serde_json::Error> for Refusal {
    fn from(error: serde_json::Error) -> Self {
        refusal("GW_ERR_JSON", error)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        (&error).into()
    }
}

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Self {
        let status = match error.kind() {
            ErrorKind::Config => "GW_ERR_CONFIG",
            ErrorKind::Connect => "GW_ERR_CONNECT",
            ErrorKind::Auth => "GW_ERR_AUTH",
            ErrorKind::Tls => "GW_ERR_TLS",
            ErrorKind::Database => "GW_ERR_DATABASE",
            ErrorKind::Schema => "GW_ERR_SCHEMA",
            ErrorKind::Timeout => "GW_ERR_DATABASE_TIMEOUT",
            ErrorKind::UnknownOutcome => "GW_ERR_UNKNOWN_OUTCOME",
            ErrorKind::Conflict => "GW_ERR_CONFLICT",
            ErrorKind::JobScheduleSkipped => "GW_ERR_SKIPPED",
            ErrorKind::JobScheduleFailed => "GW_ERR_REFUSED",
            ErrorKind::Payload => "GW_ERR_JSON",
            ErrorKind::Misuse => "GW_ERR_STATE",
            ErrorKind::Stopped => "GW_ERR_STUCK",
            _ => "GW_UNKNOWN",
        };
        let sqlstate = error.sqlstate().unwrap_or("-").to_owned();
        Refusal { status, sqlstate, message: error.to_string() }
    }
}
