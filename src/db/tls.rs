//! stand-in
pub(crate) type Tls = tokio_postgres::NoTls;
pub(crate) trait New { fn new(_: &super::conninfo::TlsOptions) -> crate::error::Result<tokio_postgres::NoTls> { Ok(tokio_postgres::NoTls) } }
impl New for tokio_postgres::NoTls {}
