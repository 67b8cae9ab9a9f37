//! Graphile Worker's job queue as one synchronous engine: OS threads, blocking calls, no async.
#![warn(missing_docs)]

mod db;
pub mod devdb;
mod error;
mod schema;

pub use error::{Error, ErrorKind, Result};
pub use schema::Schema;
