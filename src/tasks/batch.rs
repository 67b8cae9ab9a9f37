//! Batch tasks: one job with a list of items, of which only those that failed are tried again.

use crate::error::{Error, ErrorKind, Result};
use crate::job::spec::RawJob;
use crate::tasks::{JobDefinition, WorkerContext};
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::value::RawValue;
use std::fmt::Display;

/// A batch task: the type of one item, the name under which its jobs are stored, and what to do with a
/// list of items.
///
/// A job's payload is a JSON array of `Self`. If the handler answers one result for each item, those that
/// succeeded are done, and the next attempt has only the others. An error or a panic of the handler as a
/// whole, or another number of results than there are items, fails the attempt with all of its items.
/// Source: the guide, Worker Process.
///
/// ```
/// use graphile_worker::{BatchTaskHandler, IntoBatchTaskHandlerResult, WorkerContext};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Notification { to: String }
///
/// impl BatchTaskHandler for Notification {
///     const IDENTIFIER: &'static str = "send_notifications";
///     fn run_batch(items: Vec<Self>, _ctx: WorkerContext) -> impl IntoBatchTaskHandlerResult {
///         let send = |item: Self| if item.to.is_empty() { Err("nobody to write to") } else { Ok(()) };
///         items.into_iter().map(send).collect::<Vec<_>>()
///     }
/// }
/// ```
pub trait BatchTaskHandler: Serialize + DeserializeOwned + Send + 'static {
    /// The task's name in the database: 1..=128 characters.
    const IDENTIFIER: &'static str;

    /// Runs one job. Called on a worker thread; may block. All items of a job share its attempts.
    fn run_batch(items: Vec<Self>, ctx: WorkerContext) -> impl IntoBatchTaskHandlerResult;

    /// The task as a value: [`JobDefinition::of_batch`].
    fn definition() -> JobDefinition {
        JobDefinition::of_batch::<Self>()
    }
}

/// How a batch ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchTaskResult {
    /// Every item is done.
    Complete,
    /// None is done, for this reason.
    Failed(String),
    /// One result for each item, in their order.
    Items(Vec<Result<(), String>>),
}

/// What a batch handler may return: nothing; a `Result` for all items; a list with one `Result` for each
/// item; or a [`BatchTaskResult`]. Errors must be displayable.
pub trait IntoBatchTaskHandlerResult {
    /// How the batch ended.
    fn into_batch_result(self) -> BatchTaskResult;
}

impl IntoBatchTaskHandlerResult for BatchTaskResult {
    fn into_batch_result(self) -> BatchTaskResult {
        self
    }
}

impl IntoBatchTaskHandlerResult for () {
    fn into_batch_result(self) -> BatchTaskResult {
        BatchTaskResult::Complete
    }
}

impl<E: Display> IntoBatchTaskHandlerResult for Result<(), E> {
    fn into_batch_result(self) -> BatchTaskResult {
        match self {
            Ok(()) => BatchTaskResult::Complete,
            Err(error) => BatchTaskResult::Failed(format!("{error:#}")),
        }
    }
}

impl<E: Display> IntoBatchTaskHandlerResult for Vec<Result<(), E>> {
    fn into_batch_result(self) -> BatchTaskResult {
        BatchTaskResult::Items(self.into_iter().map(|item| item.map_err(|e| format!("{e:#}"))).collect())
    }
}

/// Runs one batch job; answers the failure's text.
pub(crate) fn run<T: BatchTaskHandler>(ctx: WorkerContext) -> Result<(), String> {
    let unfit = |error: Error| texts(&ctx).err().unwrap_or_else(|| error.to_string());
    let items: Vec<T> = ctx.job().payload_as().map_err(unfit)?;
    match T::run_batch(items, ctx.clone()).into_batch_result() {
        BatchTaskResult::Complete => Ok(()),
        BatchTaskResult::Failed(text) => Err(text),
        BatchTaskResult::Items(results) => outcome(&ctx, &results),
    }
}

/// Each item's own text, so that one that is tried again is the same to the byte.
fn texts(ctx: &WorkerContext) -> Result<Vec<Box<RawValue>>, String> {
    serde_json::from_slice(ctx.payload())
        .map_err(|_| format!("the payload of a job of batch task {} must be a JSON array", ctx.job().task_identifier()))
}

/// What becomes of a batch job whose items ended so: those that failed are left for its next attempt.
pub(crate) fn outcome(ctx: &WorkerContext, results: &[Result<(), String>]) -> Result<(), String> {
    let texts = texts(ctx)?;
    if results.len() != texts.len() {
        return Err(format!("the batch handler returned {} results for {} items", results.len(), texts.len()));
    }
    let failed: Vec<(usize, &str)> =
        results.iter().enumerate().filter_map(|(item, result)| Some((item, result.as_ref().err()?.as_str()))).collect();
    if failed.is_empty() {
        return Ok(());
    }
    let rest: Vec<&str> = failed.iter().map(|&(item, _)| texts[item].get()).collect();
    ctx.keep_only(format!("[{}]", rest.join(",")));
    let reasons: Vec<String> = failed.iter().map(|(item, error)| format!("{item}: {error}")).collect();
    Err(format!("{} of {} batch items failed: {}", failed.len(), texts.len(), reasons.join(", ")))
}

/// The payload of a batch job.
///
/// # Errors
/// `Config` if there is no item; `Payload` if one does not serialize.
pub(crate) fn payload<T: BatchTaskHandler>(items: &[T]) -> Result<String> {
    if items.is_empty() {
        return Err(Error::config(format!("items of batch task {}: empty; give at least one", T::IDENTIFIER)));
    }
    serde_json::to_string(items)
        .map_err(|e| Error::new(ErrorKind::Payload, "the payload does not serialize to JSON").caused_by(e))
}

/// Checks that hooks have left a batch job a list of items.
///
/// # Errors
/// `JobScheduleFailed` naming the task.
pub(crate) fn check(job: &RawJob) -> Result<()> {
    match serde_json::from_str::<Vec<IgnoredAny>>(&job.payload) {
        Ok(items) if !items.is_empty() => Ok(()),
        _ => {
            let text =
                format!("items of batch task {}: a hook left no list with items; nothing was added", job.identifier);
            Err(Error::new(ErrorKind::JobScheduleFailed, text))
        }
    }
}
