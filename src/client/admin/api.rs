//! `WorkerUtils` for operators and their tools: lists, changes by hand, cleanup.
//! The statements are in `statements.rs` and `cleanup.rs`.

use crate::backoff::Backoff;
use crate::client::admin::cleanup::{self, NameKind};
use crate::client::admin::statements;
use crate::client::admin::{
    CleanupResult, CleanupTask, ForceUnlockResult, JobStats, ListJobsOptions, ListedJob, LockedWorkerRow, QueueRow,
    RescheduleJobOptions,
};
use crate::client::{Executor, WorkerUtils};
use crate::db::access::{Known, Need, needs};
use crate::db::refuse_async_context;
use crate::db::schema::Schema;
use crate::error::Result;
use crate::job::spec::check_text;
use crate::text::is_untranslatable;
use postgres::{Client, GenericClient, Transaction};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Runs `work`. If a text cannot be converted to UTF-8, runs it again with texts in the database's own encoding.
fn converting<T>(client: &mut Client, ascii: bool, work: impl Fn(&mut Client) -> Result<T>) -> Result<T> {
    match work(client) {
        Err(error) if ascii && is_untranslatable(&error) => {
            client.batch_execute(&format!("begin read only; {}", statements::UNCONVERTED))?;
            let answer = work(client);
            client.batch_execute("rollback")?;
            answer
        }
        answer => answer,
    }
}

impl WorkerUtils {
    /// Returns utilities for a dry run: calls that change jobs return what they would do, and roll it back. These are
    /// [`complete_jobs`](Self::complete_jobs), [`permanently_fail_jobs`](Self::permanently_fail_jobs),
    /// [`reschedule_jobs`](Self::reschedule_jobs), [`remove_job`](Self::remove_job),
    /// [`force_unlock_workers`](Self::force_unlock_workers), [`cleanup`](Self::cleanup) and the sweeps. Calls that add
    /// jobs or migrate fail with `Misuse`.
    ///
    /// ```no_run
    /// # fn main() -> graphile_worker::Result<()> {
    /// let utils = graphile_worker::WorkerUtils::connect("postgres://localhost/app")?;
    /// println!("would unlock {:?}", utils.dry_run().force_unlock_workers(&["worker-7"])?);
    /// # Ok(()) }
    /// ```
    pub fn dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }

    /// Returns utilities whose [`cleanup`](Self::cleanup) also keeps these tasks, with or without jobs. Utilities of
    /// [`Worker::create_utils`](crate::Worker::create_utils) keep the worker's own tasks. Corresponds to Graphile
    /// Worker's `taskIdentifiersToKeep`.
    pub fn keeping_tasks<S: Into<String>>(mut self, identifiers: impl IntoIterator<Item = S>) -> Self {
        Arc::make_mut(&mut self.tasks_to_keep).extend(identifiers.into_iter().map(Into::into));
        self
    }

    /// Lists jobs in their current state, by id.
    ///
    /// ```no_run
    /// use graphile_worker::{JobState, ListJobsOptions, WorkerUtils};
    /// # fn main() -> graphile_worker::Result<()> {
    /// let utils = WorkerUtils::connect("postgres://localhost/app")?;
    /// for job in utils.list_jobs(&ListJobsOptions { state: Some(JobState::Failed), ..Default::default() })? {
    ///     println!("{} {}: {}", job.id, job.task_identifier, job.last_error.unwrap_or_default());
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `Config` if limit or offset is negative; database errors.
    pub fn list_jobs(&self, options: &ListJobsOptions) -> Result<Vec<ListedJob>> {
        options.check()?;
        let options = options.clone();
        self.list(None, options)
    }

    /// Returns one job in its current state; `None` if there is no job with this id.
    ///
    /// # Errors
    /// Database errors.
    pub fn job(&self, id: i64) -> Result<Option<ListedJob>> {
        Ok(self.list(Some(vec![id]), ListJobsOptions::default())?.pop())
    }

    /// Lists jobs with their payloads. The deadline applies to each job that arrives, because all of them may take
    /// long.
    fn list(&self, ids: Option<Vec<i64>>, options: ListJobsOptions) -> Result<Vec<ListedJob>> {
        let (schema, known) = (self.schema.clone(), self.known.clone());
        let ascii = options.identifier.iter().chain(&options.queue).all(|name| name.is_ascii());
        let answer = self.database.run_in_steps(move |client, came| {
            known.check(client, &schema, needs::LIST)?;
            converting(client, ascii, |client| statements::list(client, &schema, ids.as_deref(), &options, came))
        });
        answer.map_err(|error| self.explained(error, needs::LIST, Instant::now() + self.database.deadline()))
    }

    /// Counts the jobs in each state.
    ///
    /// # Errors
    /// Database errors.
    pub fn stats(&self) -> Result<JobStats> {
        self.look(needs::STATS, true, statements::stats)
    }

    /// Lists the named queues, by name.
    ///
    /// # Errors
    /// Database errors.
    pub fn queues(&self) -> Result<Vec<QueueRow>> {
        self.look(needs::QUEUE_ROWS, true, statements::queues)
    }

    /// Lists the workers of any kind that hold jobs or queues, by their id.
    /// [`list_active_workers`](Self::list_active_workers) lists the workers with a heartbeat.
    ///
    /// # Errors
    /// Database errors.
    pub fn locked_workers(&self) -> Result<Vec<LockedWorkerRow>> {
        self.look(needs::QUEUE_ROWS, true, statements::locked_workers)
    }

    /// Deletes jobs as if they had succeeded, and returns them as they were. Leaves running jobs alone, and does not
    /// return them. A job that has been locked for more than four hours does not count as running, and its queue is
    /// freed. Corresponds to Graphile Worker's `complete_jobs`.
    ///
    /// # Errors
    /// `UnknownOutcome` as in [`add_job`](Self::add_job), which applies to all calls that change jobs; database errors.
    pub fn complete_jobs(&self, ids: &[i64]) -> Result<Vec<ListedJob>> {
        let ids = ids.to_vec();
        self.transact(needs::COMPLETE, true, move |client, schema, _| statements::complete(client, schema, &ids))
    }

    /// Fails jobs permanently, with a reason, and returns them. An empty reason becomes `Manually marked as failed`.
    /// Leaves running jobs alone, as [`complete_jobs`](Self::complete_jobs) does. Corresponds to Graphile Worker's
    /// `permanently_fail_jobs`.
    ///
    /// # Errors
    /// `Config` if the reason contains NUL or is longer than 65536 characters; database errors.
    pub fn permanently_fail_jobs(&self, ids: &[i64], reason: &str) -> Result<Vec<ListedJob>> {
        check_reason(reason)?;
        let (ids, reason) = (ids.to_vec(), reason.to_owned());
        self.transact(needs::FAIL, reason.is_ascii(), move |client, schema, _| {
            statements::permanently_fail(client, schema, &ids, &reason)
        })
    }

    /// Changes when, with which priority and how often jobs are tried, and returns them. Notifies workers at once.
    /// Leaves running jobs alone, as [`complete_jobs`](Self::complete_jobs) does. Resets how often the jobs were
    /// recovered from dead workers. Corresponds to Graphile Worker's `reschedule_jobs`.
    ///
    /// ```no_run
    /// use graphile_worker::{RescheduleJobOptions, WorkerUtils};
    /// # fn main() -> graphile_worker::Result<()> {
    /// let utils = WorkerUtils::connect("postgres://localhost/app")?;
    /// utils.reschedule_jobs(&[42], RescheduleJobOptions { now: true, attempts: Some(0), ..Default::default() })?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `Config` with the field and its limit, or if nothing is to be changed; database errors.
    pub fn reschedule_jobs(&self, ids: &[i64], options: RescheduleJobOptions) -> Result<Vec<ListedJob>> {
        options.check()?;
        let ids = ids.to_vec();
        self.transact(needs::RESCHEDULE, true, move |client, schema, _| {
            statements::reschedule(client, schema, &ids, &options)
        })
    }

    /// Unlocks the jobs and queues of these workers. Their jobs may run again at once, with the attempt spent. Use it
    /// for workers that are known to be dead: a live worker continues its jobs, and their outcome is lost.
    /// Corresponds to Graphile Worker's `force_unlock_workers`.
    ///
    /// # Errors
    /// Database errors.
    pub fn force_unlock_workers(&self, worker_ids: &[impl AsRef<str>]) -> Result<ForceUnlockResult> {
        let ids = owned(worker_ids)?;
        self.change(needs::FORCE_UNLOCK, move |client, schema, _| statements::force_unlock(client, schema, &ids))
    }

    /// Deletes rows that are not needed, and returns how many. Safe beside workers and enqueues: a job that is added
    /// meanwhile keeps its task and its queue. Enqueues wait for it for moments; workers do not.
    ///
    /// Failed jobs are deleted in batches. Each batch has the deadline, so that one call can delete millions.
    ///
    /// A transaction of the caller at REPEATABLE READ or SERIALIZABLE, which began before the cleanup and adds a job
    /// after it, still sees the deleted names. Do not add jobs in such transactions beside a cleanup of tasks or
    /// queues.
    ///
    /// ```no_run
    /// use graphile_worker::{CleanupTask, WorkerUtils};
    /// # fn main() -> graphile_worker::Result<()> {
    /// let utils = WorkerUtils::connect("postgres://localhost/app")?;
    /// let deleted = utils.cleanup(&[CleanupTask::DeletePermanentlyFailedJobs, CleanupTask::GcJobQueues])?;
    /// println!("{} jobs, {} queues", deleted.jobs, deleted.queues);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `Timeout` if a transaction that adds jobs stays open for the whole deadline (what was deleted before
    /// stays deleted); database errors.
    pub fn cleanup(&self, tasks: &[CleanupTask]) -> Result<CleanupResult> {
        let mut result = CleanupResult::default();
        // Failed jobs are deleted first, whatever the order of `tasks`, because that leaves more names unused.
        let without_failed = tasks.contains(&CleanupTask::DeletePermanentlyFailedJobs);
        if without_failed {
            result.jobs = self.delete_failed_jobs()?;
        }
        // A dry run deletes no failed job, so the later steps must count them as deleted.
        let without_failed = without_failed && self.dry_run;
        if tasks.contains(&CleanupTask::GcTaskIdentifiers) {
            result.tasks = self.delete_unused(NameKind::Tasks, result.jobs, without_failed)?;
        }
        if tasks.contains(&CleanupTask::GcJobQueues) {
            result.queues = self.delete_unused(NameKind::Queues, result.jobs, without_failed)?;
        }
        Ok(result)
    }

    fn delete_failed_jobs(&self) -> Result<i64> {
        if self.dry_run {
            return Ok(self.stats()?.failed);
        }
        let mut deleted = 0;
        loop {
            let batch =
                self.change(needs::DELETE_JOBS, |client, schema, _| cleanup::delete_failed_jobs(client, schema))?;
            deleted += batch;
            if batch < cleanup::BATCH {
                return Ok(deleted);
            }
        }
    }

    fn delete_unused(&self, kind: NameKind, deleted_jobs: i64, without_failed: bool) -> Result<i64> {
        let end = Instant::now() + self.database.deadline();
        let mut pause = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let needs = match kind {
            NameKind::Tasks => needs::DELETE_TASKS,
            NameKind::Queues => needs::DELETE_QUEUES,
        };
        loop {
            let keep = self.tasks_to_keep.clone();
            let ids = self.look(needs, false, move |client, schema| {
                cleanup::unused(client, schema, kind, &keep, without_failed)
            })?;
            if ids.is_empty() || self.dry_run {
                return Ok(ids.len() as i64);
            }
            let deleted = self.change(needs, move |client, schema, end| {
                cleanup::delete(client, schema, kind, &ids, end.saturating_duration_since(Instant::now()))
            });
            // If a lock was not available, the transaction ends with a rollback, even if it commits.
            if let Some(deleted) = deleted? {
                return Ok(deleted);
            }
            let pause = pause.next();
            if Instant::now() + pause >= end {
                return Err(cleanup::never_quiet(kind, deleted_jobs));
            }
            std::thread::sleep(pause);
        }
    }

    /// Reads the tables, on a pooled connection. `ascii`: whether all texts that it sends are ASCII, see
    /// [`UNCONVERTED`](statements::UNCONVERTED).
    fn look<T: Send + 'static>(
        &self,
        needs: &'static [Need],
        ascii: bool,
        work: impl Fn(&mut Client, &Schema) -> Result<T> + Send + Sync + 'static,
    ) -> Result<T> {
        let (schema, known) = (self.schema.clone(), self.known.clone());
        let timeout = self.database.deadline();
        let end = Instant::now() + timeout;
        let answer = self.database.look(timeout, move |client| {
            known.check(client, &schema, needs)?;
            converting(client, ascii, |client| work(client, &schema))
        });
        answer.map_err(|error| self.explained(error, needs, end))
    }

    /// Changes the tables, in a transaction that the server ends when the caller has stopped waiting.
    pub(in crate::client) fn change<T: Clone + Send + 'static>(
        &self,
        needs: &'static [Need],
        work: impl Fn(&mut Client, &Schema, Instant) -> Result<T> + Send + Sync + 'static,
    ) -> Result<T> {
        self.transact(needs, false, work)
    }

    /// As [`change`](Self::change); `ascii` as in [`look`](Self::look).
    fn transact<T: Clone + Send + 'static>(
        &self,
        needs: &'static [Need],
        ascii: bool,
        work: impl Fn(&mut Client, &Schema, Instant) -> Result<T> + Send + Sync + 'static,
    ) -> Result<T> {
        let (work, timeout) = (Arc::new(work), self.database.deadline());
        let end = Instant::now() + timeout;
        let attempt = |unconverted: bool| {
            let (schema, work, known) = (self.schema.clone(), work.clone(), self.known.clone());
            let work = move |client: &mut Client, end| {
                if unconverted {
                    client.batch_execute(statements::UNCONVERTED)?;
                }
                known.check(client, &schema, needs)?;
                work(client, &schema, end)
            };
            self.database.change(timeout, !self.dry_run, work, |_, _, _| Ok(false))
        };
        let answer = match attempt(false) {
            Err(error) if ascii && is_untranslatable(&error) => attempt(true),
            answer => answer,
        };
        answer.map_err(|error| self.explained(error, needs, end))
    }
}

impl<C: GenericClient> Executor<'_, C> {
    /// As [`WorkerUtils::complete_jobs`].
    ///
    /// # Errors
    /// As there.
    pub fn complete_jobs(&mut self, ids: &[i64]) -> Result<Vec<ListedJob>> {
        self.change(needs::COMPLETE, |transaction, schema| statements::complete(transaction, schema, ids))
    }

    /// As [`WorkerUtils::permanently_fail_jobs`].
    ///
    /// # Errors
    /// As there.
    pub fn permanently_fail_jobs(&mut self, ids: &[i64], reason: &str) -> Result<Vec<ListedJob>> {
        check_reason(reason)?;
        self.change(needs::FAIL, |transaction, schema| statements::permanently_fail(transaction, schema, ids, reason))
    }

    /// As [`WorkerUtils::reschedule_jobs`].
    ///
    /// # Errors
    /// As there.
    pub fn reschedule_jobs(&mut self, ids: &[i64], options: RescheduleJobOptions) -> Result<Vec<ListedJob>> {
        options.check()?;
        self.change(needs::RESCHEDULE, |transaction, schema| statements::reschedule(transaction, schema, ids, &options))
    }

    /// As [`WorkerUtils::force_unlock_workers`].
    ///
    /// # Errors
    /// As there.
    pub fn force_unlock_workers(&mut self, worker_ids: &[impl AsRef<str>]) -> Result<ForceUnlockResult> {
        let ids = owned(worker_ids)?;
        self.change(needs::FORCE_UNLOCK, |transaction, schema| statements::force_unlock(transaction, schema, &ids))
    }

    pub(in crate::client) fn change<T>(
        &mut self,
        needs: &[Need],
        work: impl FnOnce(&mut Transaction, &Schema) -> Result<T>,
    ) -> Result<T> {
        refuse_async_context()?;
        let schema = &self.utils.schema;
        statements::transact(self.client.transaction()?, !self.utils.dry_run, |transaction| {
            // The caller's role may differ from the pool's, so an earlier check of the pool does not apply.
            Known::default().check(transaction, schema, needs)?;
            work(transaction, schema)
        })
    }
}

fn check_reason(reason: &str) -> Result<()> {
    check_text("reason", reason, 0..=65_536)
}

fn owned(worker_ids: &[impl AsRef<str>]) -> Result<Vec<String>> {
    let ids = worker_ids.iter().map(|id| {
        check_text("worker id", id.as_ref(), 1..=usize::MAX)?;
        Ok(id.as_ref().to_owned())
    });
    ids.collect()
}
