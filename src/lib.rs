//! Graphile Worker's job queue as one synchronous engine: OS threads, blocking calls, no async.
#![warn(missing_docs)]

mod backoff;
mod claim;
mod config;
mod db;
pub mod devdb;
mod enqueue;
mod error;
mod job;
mod migrate;
mod options;
mod running;
mod schema;
mod shutdown;
mod signals;
mod spec;
mod stats;
mod store;
mod task;
mod utils;
mod worker;

pub use db::pool::{Connection, ConnectionPool};
pub use error::{Error, ErrorKind, Result};
pub use job::Job;
pub use options::WorkerOptions;
pub use running::Worker;
pub use schema::Schema;
pub use shutdown::ShutdownSignal;
pub use spec::{JobKeyMode, JobSpec, RawJob, TaskName};
pub use stats::WorkerStats;
pub use task::{IntoTaskHandlerResult, TaskHandler, WorkerContext};
pub use utils::{Executor, WorkerUtils};
