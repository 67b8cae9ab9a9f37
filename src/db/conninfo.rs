//! stand-in
use crate::error::{Error, Result};
pub(crate) struct ConnInfo(tokio_postgres::Config);
pub(crate) struct TlsOptions;
impl ConnInfo {
    pub(crate) fn parse(text: &str, _env: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        text.parse().map(Self).map_err(|_| Error::config("bad url"))
    }
    pub(crate) fn config(&self) -> &tokio_postgres::Config { &self.0 }
    pub(crate) fn tls(&self) -> &TlsOptions { &TlsOptions }
    pub(crate) fn host(&self) -> String { format!("{:?}:{:?}", self.0.get_hosts(), self.0.get_ports()) }
}
