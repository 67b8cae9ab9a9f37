//! Opens connections: engine sessions with deadlines, and the handlers' pool.
//! Knows nothing of the tables, apart from `access` and `migrate`.
//!
//! The files, lowest first. Each imports only files that stand before it; a test in `tests/architecture.rs` checks this.
//!
//! 1. `schema`: the name of a schema.
//! 2. `deadline`: deadlines for calls that have none.
//! 3. `tls`: TLS as libpq does it.
//! 4. `conninfo`: connection strings as libpq reads them.
//! 5. `dial`: tries hosts and addresses in turn.
//! 6. `pool`: pools, and the connections that they lend.
//! 7. `login_process`: the server process that a login named.
//! 8. `session`: one connection of the engine.
//! 9. `pooler`: whether a session keeps its server process.
//! 10. `own_pool`: this library's pool for handlers.
//! 11. `database`: one database, and how to connect to it.
//! 12. `change`: transactions whose outcome can be queried.
//! 13. `reconnecting`: sessions that are opened again after they broke.
//! 14. `access`: the installed schema, and the rights of the role.
//! 15. `migrate`: installs the schema.

pub(crate) mod access;
mod change;
pub(crate) mod conninfo;
mod database;
pub(crate) mod deadline;
mod dial;
mod login_process;
pub(crate) mod migrate;
mod own_pool;
pub(crate) mod pool;
mod pooler;
mod reconnecting;
pub(crate) mod schema;
pub(crate) mod session;
pub(crate) mod tls;

pub(crate) use database::{Database, ENGINE_SESSIONS, ROOM_FOR_TWO_FETCHES, refuse_async_context};
pub(crate) use dial::given_or_environment;
pub(crate) use reconnecting::Reconnecting;
