//! Every connection parameter and environment variable of libpq in PostgreSQL 12 to 18, and how this library treats
//! each.
//! The table of `docs/connecting.md` has the same content; a test compares them.

/// One parameter of a connection string.
pub(super) struct Parameter {
    pub(super) name: &'static str,
    /// The environment variable that is used if the parameter is not given; empty if there is none.
    pub(super) variable: &'static str,
    pub(super) rule: Rule,
}

/// How this library treats a parameter. The error for a refused parameter has its name and a remedy.
pub(super) enum Rule {
    Used,
    /// Accepted with these values, which ask only for what this library does anyway.
    Only(&'static [&'static str], &'static str),
    /// Refused if TLS is used. Without TLS libpq ignores it, and so does this library.
    NotWithTls(&'static str),
    /// Refused if a host is a Unix socket. Otherwise libpq ignores it, and so does this library.
    NotOnSockets(&'static str),
}
use Rule::{NotOnSockets, NotWithTls, Only, Used};

const LOG_IN: &str = "remove it, and log in with a password or a certificate";
const NO_LISTS: &str = "remove it, and take a revoked certificate's root out of sslrootcert";
const PLAIN_KEY: &str = "remove it, and store the key of sslkey without a password, readable by this user alone";
const OWN_FOLDER: &str = "remove it, and let only the server's user write to the folder of the socket; \
                          or connect over TCP with sslmode=verify-full";
const BINDING: &str = "remove it; channel_binding=require with sslmode=verify-full insists on SCRAM";
const ALWAYS_UTF8: &str = "remove it; text is always UTF-8 here";

const fn parameter(name: &'static str, variable: &'static str, rule: Rule) -> Parameter {
    Parameter { name, variable, rule }
}

pub(super) const PARAMETERS: &[Parameter] = &[
    parameter("service", "PGSERVICE", Used),
    parameter("servicefile", "PGSERVICEFILE", Used),
    parameter("host", "PGHOST", Used),
    parameter("hostaddr", "PGHOSTADDR", Used),
    parameter("port", "PGPORT", Used),
    parameter("user", "PGUSER", Used),
    parameter("password", "PGPASSWORD", Used),
    parameter("passfile", "PGPASSFILE", Used),
    parameter("dbname", "PGDATABASE", Used),
    parameter("options", "PGOPTIONS", Used),
    parameter("application_name", "PGAPPNAME", Used),
    parameter("fallback_application_name", "", Used),
    parameter("connect_timeout", "PGCONNECT_TIMEOUT", Used),
    parameter("keepalives", "", Used),
    parameter("keepalives_idle", "", Used),
    parameter("keepalives_interval", "", Used),
    parameter("keepalives_count", "", Used),
    parameter("tcp_user_timeout", "", Used),
    parameter("target_session_attrs", "PGTARGETSESSIONATTRS", Used),
    parameter("load_balance_hosts", "PGLOADBALANCEHOSTS", Used),
    parameter("channel_binding", "PGCHANNELBINDING", Used),
    parameter("sslmode", "PGSSLMODE", Used),
    parameter("requiressl", "PGREQUIRESSL", Used),
    parameter("sslnegotiation", "PGSSLNEGOTIATION", Used),
    parameter("sslrootcert", "PGSSLROOTCERT", Used),
    parameter("sslcert", "PGSSLCERT", Used),
    parameter("sslkey", "PGSSLKEY", Used),
    parameter("sslcertmode", "PGSSLCERTMODE", Used),
    parameter("sslsni", "PGSSLSNI", Used),
    parameter("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", Used),
    parameter("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", Used),
    parameter("sslcompression", "PGSSLCOMPRESSION", Only(&["0", "1"], "remove it")),
    parameter("sslcrl", "PGSSLCRL", NotWithTls(NO_LISTS)),
    parameter("sslcrldir", "PGSSLCRLDIR", NotWithTls(NO_LISTS)),
    parameter("sslpassword", "", NotWithTls(PLAIN_KEY)),
    parameter("sslkeylogfile", "", NotWithTls("remove it")),
    parameter("requirepeer", "PGREQUIREPEER", NotOnSockets(OWN_FOLDER)),
    parameter("require_auth", "PGREQUIREAUTH", Only(&[], BINDING)),
    parameter("gssencmode", "PGGSSENCMODE", Only(&["disable", "prefer"], "use TLS")),
    parameter("gssdelegation", "PGGSSDELEGATION", Only(&["0"], LOG_IN)),
    parameter("gsslib", "PGGSSLIB", Only(&[], LOG_IN)),
    parameter("krbsrvname", "PGKRBSRVNAME", Only(&["postgres"], LOG_IN)),
    parameter("oauth_issuer", "", Only(&[], LOG_IN)),
    parameter("oauth_client_id", "", Only(&[], LOG_IN)),
    parameter("oauth_client_secret", "", Only(&[], LOG_IN)),
    parameter("oauth_scope", "", Only(&[], LOG_IN)),
    parameter("scram_client_key", "", Only(&[], "remove it, and give the password")),
    parameter("scram_server_key", "", Only(&[], "remove it, and give the password")),
    parameter("min_protocol_version", "PGMINPROTOCOLVERSION", Only(&["3.0"], "remove it")),
    parameter("max_protocol_version", "PGMAXPROTOCOLVERSION", Only(&["3.0", "3.2", "latest"], "remove it")),
    parameter("replication", "", Only(&["false", "off", "no", "0"], "remove it; a queue needs an ordinary session")),
    parameter("client_encoding", "PGCLIENTENCODING", Only(&["auto", "utf8", "UTF8", "utf-8", "UTF-8"], ALWAYS_UTF8)),
    parameter("authtype", "PGAUTHTYPE", Only(&[], "remove it; PostgreSQL 14 did so too")),
    parameter("tty", "PGTTY", Only(&[], "remove it; PostgreSQL 14 did so too")),
];

/// Variables that libpq sends as settings of the session.
pub(super) const SETTINGS: [(&str, &str); 3] = [("PGDATESTYLE", "datestyle"), ("PGTZ", "timezone"), ("PGGEQO", "geqo")];

/// Without a connection string, at least one of these variables must be set.
pub(crate) const WHERE: [&str; 6] = ["PGHOST", "PGHOSTADDR", "PGPORT", "PGUSER", "PGDATABASE", "PGSERVICE"];

pub(super) fn find(name: &str) -> Option<&'static Parameter> {
    PARAMETERS.iter().find(|parameter| parameter.name == name)
}
