//! The behaviour of the whole, against a private PostgreSQL: one binary, one module a behaviour.

mod devdb;
mod harness;
mod proxy;
