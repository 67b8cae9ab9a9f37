//! Batch tasks: one job with a list of items. A retry contains only the items that failed.

use crate::error::{Error, ErrorKind, Result};
use crate::job::spec::RawJob;
use crate::tasks::{JobDefinition, WorkerContext};
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::value::RawValue;
use std::fmt::Display;

/// A batch task: the type of one item, the name of the task in the database, and the function that runs a list of
/// items.
///
/// A job's payload is a JSON array of `Self`. If the handler returns one result for each item, the items that succeeded
/// are done, and the next attempt has only the others. If the handler returns one error for all items, or panics, the
/// attempt fails with all its items. The same happens if the number of results differs from the number of items. See
/// the deployment guide, section Worker Process (docs/deployment-guide.async.md).
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
///         let send = |item: Self| if item.to.is_empty() { Err("no recipient") } else { Ok(()) };
///         items.into_iter().map(send).collect::<Vec<_>>()
///     }
/// }
/// ```
pub trait BatchTaskHandler: Serialize + DeserializeOwned + Send + 'static {
    /// The task's name in the database: 1..=128 characters.
    const IDENTIFIER: &'static str;

    /// Runs one job. Called on a worker thread, and may block. All items of a job share its attempts.
    fn run_batch(items: Vec<Self>, ctx: WorkerContext) -> impl IntoBatchTaskHandlerResult;

    /// Returns the task as a value, as [`JobDefinition::of_batch`] does.
    fn definition() -> JobDefinition {
        JobDefinition::of_batch::<Self>()
    }
}

/// The result of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchTaskResult {
    /// Every item is done.
    Complete,
    /// No item is done. The text is the error.
    Failed(String),
    /// One result for each item, in the order of the items.
    Items(Vec<Result<(), String>>),
}

/// The return type of a batch handler: `()`, one `Result` for all items, a `Vec` with one `Result` for each item, or a
/// [`BatchTaskResult`]. Error types must implement `Display`.
pub trait IntoBatchTaskHandlerResult {
    /// Converts the value into the result of the batch.
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

/// Runs one batch job. Returns the text of the error if it fails.
pub(crate) fn run<T: BatchTaskHandler>(ctx: WorkerContext) -> Result<(), String> {
    let unfit = |error: Error| texts(&ctx).err().unwrap_or_else(|| error.to_string());
    let items: Vec<T> = ctx.job().payload_as().map_err(unfit)?;
    match T::run_batch(items, ctx.clone()).into_batch_result() {
        BatchTaskResult::Complete => Ok(()),
        BatchTaskResult::Failed(text) => Err(text),
        BatchTaskResult::Items(results) => outcome(&ctx, &results),
    }
}

/// The JSON text of each item, so that an item that is retried stays the same byte for byte.
fn texts(ctx: &WorkerContext) -> Result<Vec<Box<RawValue>>, String> {
    serde_json::from_slice(ctx.payload())
        .map_err(|_| format!("the payload of a job of batch task {} must be a JSON array", ctx.job().task_identifier()))
}

/// Returns the result of a batch job from the results of its items. The next attempt gets only the items that failed.
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
/// `Config` if there is no item. `Payload` if an item cannot be serialized.
pub(crate) fn payload<T: BatchTaskHandler>(items: &[T]) -> Result<String> {
    if items.is_empty() {
        return Err(Error::config(format!("items of batch task {}: empty; give at least one", T::IDENTIFIER)));
    }
    serde_json::to_string(items)
        .map_err(|e| Error::new(ErrorKind::Payload, "the payload does not serialize to JSON").caused_by(e))
}

/// Checks that the payload of a batch job is still a list of items after the hooks ran.
///
/// # Errors
/// `JobScheduleFailed` if it is not. The text names the task.
pub(crate) fn check(job: &RawJob) -> Result<()> {
    match serde_json::from_str::<Vec<IgnoredAny>>(&job.payload) {
        Ok(items) if !items.is_empty() => Ok(()),
        _ => {
            let text = format!(
                "items of batch task {}: after the hooks, the payload is not a list with items; nothing was added",
                job.identifier
            );
            Err(Error::new(ErrorKind::JobScheduleFailed, text))
        }
    }
}
