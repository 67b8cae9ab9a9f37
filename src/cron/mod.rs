//! Crontab entries, and when they are due. Starts no thread and knows no database: `engine/scheduler.rs` adds the jobs.

pub(crate) mod crontab;
mod payload;
pub(crate) mod schedule;
