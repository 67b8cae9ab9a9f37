//! Adding jobs by the type of their task, with [`WorkerUtils`] or inside the caller's transaction.
//! Knows nothing of statements; the client adds jobs by their name.

use super::TaskHandler;
use super::batch::{self, BatchTaskHandler};
use crate::client::{Executor, WorkerUtils, json};
use crate::db::refuse_async_context;
use crate::error::{Error, Result};
use crate::job::spec::{JobSpec, RawJob};
use crate::job::{Job, trace};
use postgres::GenericClient;

impl WorkerUtils {
    /// Adds a job of task `T`.
    ///
    /// # Errors
    /// `Config` if a field is outside its limit (nothing was sent); `Payload` if the payload cannot be serialized;
    /// `JobScheduleSkipped` or `JobScheduleFailed` if a hook decides so (nothing was sent);
    /// `Connect` or `Timeout` if the database could not be reached in time: the job was not added;
    /// `UnknownOutcome` if the reply to the commit was lost and the database could not be asked for the outcome in
    /// time:
    /// the job may or may not have been added.
    pub fn add_job<T: TaskHandler>(&self, payload: T, spec: JobSpec) -> Result<Job> {
        self.add_typed(payload, spec, None)
    }

    /// Adds a job. If the spec names no trace, the job joins the trace `within`.
    pub(crate) fn add_typed<T: TaskHandler>(&self, payload: T, spec: JobSpec, within: Option<&str>) -> Result<Job> {
        let job = typed(&payload, spec, within)?;
        self.add_one(RawJob::checked(&job.identifier, job.payload, job.spec)?)
    }

    /// Adds one job of batch task `T` with all of these items.
    ///
    /// See the deployment guide, section Worker Process (docs/deployment-guide.async.md).
    ///
    /// # Errors
    /// As [`add_job`](Self::add_job); `Config` if there is no item.
    pub fn add_batch_job<T: BatchTaskHandler>(&self, items: Vec<T>, spec: JobSpec) -> Result<Job> {
        let job = self.hooks().schedule(RawJob::checked(T::IDENTIFIER, batch::payload(&items)?, spec)?)?;
        batch::check(&job)?;
        self.send_one(job)
    }

    /// Adds many jobs of task `T`, all or none. Returns them in the order of the request.
    ///
    /// # Errors
    /// As [`add_job`](Self::add_job), also if a hook refuses only one of them; `Config` with the key if a key occurs
    /// twice.
    pub fn add_jobs<T: TaskHandler>(&self, jobs: Vec<(T, JobSpec)>) -> Result<Vec<Job>> {
        let jobs = jobs.into_iter().map(|(payload, spec)| typed(&payload, spec, None));
        self.add_raw_jobs(jobs.collect::<Result<_>>()?)
    }
}

impl<C: GenericClient> Executor<'_, C> {
    /// As [`WorkerUtils::add_job`].
    ///
    /// # Errors
    /// As there. `Conflict` at once if the transaction is REPEATABLE READ or SERIALIZABLE and a worker has taken the
    /// keyed job since it began: only a new transaction can see that.
    pub fn add_job<T: TaskHandler>(&mut self, payload: T, spec: JobSpec) -> Result<Job> {
        let job = typed(&payload, spec, None)?;
        self.add_one(RawJob::checked(&job.identifier, job.payload, job.spec)?)
    }

    /// As [`WorkerUtils::add_batch_job`].
    ///
    /// # Errors
    /// As there, and as [`add_job`](Self::add_job).
    pub fn add_batch_job<T: BatchTaskHandler>(&mut self, items: Vec<T>, spec: JobSpec) -> Result<Job> {
        refuse_async_context()?;
        self.utils.refuse_dry_run("add jobs")?;
        let job = self.utils.hooks().schedule(RawJob::checked(T::IDENTIFIER, batch::payload(&items)?, spec)?)?;
        batch::check(&job)?;
        Ok(self.send(&[job])?.remove(0))
    }

    /// As [`WorkerUtils::add_jobs`].
    ///
    /// # Errors
    /// As [`add_job`](Self::add_job).
    pub fn add_jobs<T: TaskHandler>(&mut self, jobs: Vec<(T, JobSpec)>) -> Result<Vec<Job>> {
        let jobs = jobs.into_iter().map(|(payload, spec)| typed(&payload, spec, None));
        self.add_raw_jobs(jobs.collect::<Result<_>>()?)
    }
}

/// Serializes a job of task `T`. Its trace context goes into the payload.
fn typed<T: TaskHandler>(payload: &T, mut spec: JobSpec, within: Option<&str>) -> Result<RawJob> {
    let mut text = json(payload)?;
    if let Some(traceparent) = spec.traceparent.take() {
        trace::check(&traceparent)?;
        text = trace::carry(&text, &traceparent)
            .ok_or_else(|| Error::config("traceparent: only a payload that is a JSON object can carry one"))?;
    } else if let Some(traceparent) = within {
        text = trace::carry(&text, traceparent).unwrap_or(text);
    }
    Ok(RawJob { identifier: T::IDENTIFIER.to_owned(), payload: text, spec })
}
