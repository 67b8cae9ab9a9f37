//! Why a call failed, and the status that an error of the library has in C.

use super::status::{
    GW_ERR_AUTH, GW_ERR_CONFIG, GW_ERR_CONFLICT, GW_ERR_CONNECT, GW_ERR_DATABASE, GW_ERR_DATABASE_TIMEOUT,
    GW_ERR_INVALID, GW_ERR_JSON, GW_ERR_REFUSED, GW_ERR_SCHEMA, GW_ERR_SKIPPED, GW_ERR_STATE, GW_ERR_STUCK, GW_ERR_TLS,
    GW_ERR_UNKNOWN_OUTCOME, gw_status_t,
};
use crate::{Error, ErrorKind};

/// Why a call failed: the content of an error object.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) status: gw_status_t,
    pub(super) message: String,
    pub(super) sqlstate: Option<String>,
    pub(super) retryable: bool,
}

impl Failure {
    pub(super) fn new(status: gw_status_t, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), sqlstate: None, retryable: false }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(GW_ERR_INVALID, message)
    }

    /// The same, with the place of the error in front.
    pub(super) fn within(mut self, place: impl std::fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    pub(super) fn config(message: impl Into<String>) -> Self {
        Self::new(GW_ERR_CONFIG, message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::Config => GW_ERR_CONFIG,
            ErrorKind::Connect => GW_ERR_CONNECT,
            ErrorKind::Auth => GW_ERR_AUTH,
            ErrorKind::Tls => GW_ERR_TLS,
            ErrorKind::Database => GW_ERR_DATABASE,
            ErrorKind::Schema => GW_ERR_SCHEMA,
            ErrorKind::Timeout => GW_ERR_DATABASE_TIMEOUT,
            ErrorKind::UnknownOutcome => GW_ERR_UNKNOWN_OUTCOME,
            ErrorKind::Conflict => GW_ERR_CONFLICT,
            ErrorKind::JobScheduleSkipped => GW_ERR_SKIPPED,
            ErrorKind::JobScheduleFailed => GW_ERR_REFUSED,
            ErrorKind::Payload => GW_ERR_JSON,
            ErrorKind::Misuse => GW_ERR_STATE,
            ErrorKind::Stopped => GW_ERR_STUCK,
        };
        Self {
            status,
            message: error.to_string(),
            sqlstate: error.sqlstate().map(str::to_owned),
            retryable: error.is_transient(),
        }
    }
}
