//! Reads connection strings, environment variables and defaults as libpq does: where the database is, and which role
//! connects. Opens no socket. Reads nothing but the environment that it is given, the service file and the password
//! file.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::warn;
use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, LoadBalanceHosts, SslNegotiation, TargetSessionAttrs};

pub(super) use self::parameters::WHERE;
use self::parameters::{PARAMETERS, Parameter, Rule, SETTINGS, find};
use super::tls::{Roots, SslMode, TlsOptions, Versions};
use crate::backoff::random_bits;
use crate::error::{Error, Result};

/// A connection string, completed as libpq would. Never shows its password.
#[derive(Clone)]
pub(crate) struct ConnInfo {
    /// The settings that are the same for every server.
    config: Config,
    tls: TlsOptions,
    servers: Vec<Server>,
    application: Option<String>,
}

/// One entry of the list of hosts.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) host: String,
    /// The address of the host, if the connection string gives one.
    pub(crate) address: Option<IpAddr>,
    pub(crate) port: u16,
    password: Option<String>,
}

impl ConnInfo {
    /// Reads a URL or a key=value string. What it leaves open is filled from the service file, then from the `PG*`
    /// variables, then from the password file, then from libpq's defaults. An empty string leaves everything open.
    pub(crate) fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let mut given = Given::default();
        let text = text.trim();
        match ["postgres://", "postgresql://"].iter().find_map(|scheme| text.strip_prefix(scheme)) {
            Some(rest) => given.read_url(rest)?,
            None if text.split(['=', '\'', ' ']).next().is_some_and(|start| start.contains("://")) => {
                return Err(Error::config("a connection URL starts with postgres:// or postgresql://"));
            }
            None => given.read_pairs(text)?,
        }
        let home = env("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        given.read_service(env, home.as_deref())?;
        given.fill_from(env);

        let mut servers = given.servers()?;
        let tls = given.tls(home.as_deref(), &servers)?;
        given.refuse_unsupported(&servers, tls.mode)?;
        let mut config = Config::new();
        let user = match given.text("user") {
            Some(user) => user.to_owned(),
            None => whoami::username().map_err(|e| {
                Error::config("user: none given, and the operating system does not name the current user").caused_by(e)
            })?,
        };
        let dbname = given.text("dbname").unwrap_or(&user).to_owned();
        given.find_passwords(home.as_deref(), &mut servers, &dbname, &user);
        config.user(user).dbname(dbname).ssl_mode(tls.mode.on_the_wire());
        given.set_behaviour(&mut config, tls.mode, env)?;
        let application = given.text("application_name").or(given.text("fallback_application_name"));
        let application = application.map(str::to_owned);
        Ok(Self { config, tls, servers, application })
    }

    /// The configuration with which tokio-postgres connects to one server. Also needs a `Tls` made from
    /// [`tls`](Self::tls).
    pub(crate) fn config(&self, server: &Server, address: Option<IpAddr>, role: &str) -> Config {
        let mut config = self.config.clone();
        config.host(&server.host).port(server.port).application_name(self.session_name(role));
        if let Some(address) = address {
            config.hostaddr(address);
        }
        if let Some(password) = &server.password {
            config.password(password);
        }
        if server.is_socket() {
            config.ssl_mode(SslMode::Disable.on_the_wire());
        }
        config
    }

    /// The caller's `application_name` and the role of the session, within the 63 bytes that PostgreSQL keeps.
    fn session_name(&self, role: &str) -> String {
        let own = format!("graphile-worker:{role}");
        let Some(application) = &self.application else { return own };
        // PostgreSQL replaces such characters too, each by up to four others.
        let plain = application.chars().map(|c| if matches!(c, ' '..='~') { c } else { '?' });
        let room = 62_usize.saturating_sub(own.len());
        format!("{} {own}", plain.take(room).collect::<String>().trim_end())
    }

    /// The TLS parameters of the connection.
    pub(crate) fn tls(&self) -> &TlsOptions {
        &self.tls
    }

    /// The servers, in the order in which to try them.
    pub(crate) fn servers(&self) -> Vec<&Server> {
        let mut servers: Vec<_> = self.servers.iter().collect();
        self.order(&mut servers);
        servers
    }

    /// Puts servers, or the addresses of one, into the order in which to try them.
    pub(crate) fn order<T>(&self, list: &mut [T]) {
        if self.config.get_load_balance_hosts() == LoadBalanceHosts::Random {
            for last in (1..list.len()).rev() {
                list.swap(last, random_bits() as usize % (last + 1));
            }
        }
    }

    /// The time limit for one server, if there is one.
    pub(crate) fn connect_timeout(&self) -> Option<Duration> {
        self.config.get_connect_timeout().copied()
    }

    /// For messages: `host:port` or the path of the socket, for every host.
    pub(crate) fn host(&self) -> String {
        self.servers.iter().map(Server::to_string).collect::<Vec<_>>().join(", ")
    }
}

/// `postgres://user:***@host:5432/db`
impl fmt::Display for ConnInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = if self.servers.iter().any(|server| server.password.is_some()) { ":***" } else { "" };
        let user = self.config.get_user().unwrap_or_default();
        let dbname = self.config.get_dbname().unwrap_or_default();
        write!(f, "postgres://{user}{secret}@{}/{dbname}", self.host().replace(", ", ","))
    }
}

impl fmt::Debug for ConnInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnInfo({self} sslmode={})", self.tls.mode.name())
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            path if self.is_socket() => write!(f, "{path}/.s.PGSQL.{}", self.port),
            v6 if v6.contains(':') => write!(f, "[{v6}]:{}", self.port),
            name => write!(f, "{name}:{}", self.port),
        }
    }
}

impl Server {
    pub(crate) fn is_socket(&self) -> bool {
        self.host.starts_with('/')
    }
}

/// The parameters as written: the value, and the name that an error uses for it.
#[derive(Default)]
struct Given(HashMap<&'static str, (String, Cow<'static, str>)>);

impl Given {
    fn put(&mut self, key: &str, value: String) -> Result<()> {
        let Some(&Parameter { name: key, .. }) = find(key) else {
            let is_word = key.len() <= 32 && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
            let shown = if is_word { key } else { "(not a word)" };
            return Err(Error::config(format!("unknown connection parameter: {shown}")));
        };
        if value.contains('\0') {
            return Err(Error::config(format!("{key} must not contain a zero byte")));
        }
        if key == "requiressl" {
            let mode = if value.starts_with('1') { "require" } else { "prefer" };
            return self.put("sslmode", mode.to_owned());
        }
        self.0.insert(key, (value, key.into()));
        Ok(())
    }

    /// Fills in the parameters that a service gives and the connection string leaves open.
    fn read_service(&mut self, env: &dyn Fn(&str) -> Option<String>, home: Option<&Path>) -> Result<()> {
        let written = |key, variable| self.0.get(key).map(|(value, _)| value.clone()).or_else(|| env(variable));
        let Some(service) = written("service", "PGSERVICE").filter(|service| !service.is_empty()) else {
            return Ok(());
        };
        let file = written("servicefile", "PGSERVICEFILE").filter(|file| !file.is_empty());
        let system = env("PGSYSCONFDIR").filter(|folder| !folder.is_empty());
        let (parameters, file) = service::find(&service, file.as_deref(), home, system.as_deref())?;
        let mut of_service = Self::default();
        for (key, value) in parameters {
            // If a key occurs several times, its first line counts.
            if !find(&key).is_some_and(|parameter| of_service.0.contains_key(parameter.name)) {
                of_service.put(&key, value)?;
            }
        }
        for (key, (value, _)) in of_service.0 {
            let name = format!("{key} of service {service:?} in {file:?}");
            self.0.entry(key).or_insert((value, name.into()));
        }
        Ok(())
    }

    fn fill_from(&mut self, env: &dyn Fn(&str) -> Option<String>) {
        for Parameter { name, variable, .. } in PARAMETERS.iter().filter(|parameter| !parameter.variable.is_empty()) {
            if !self.0.contains_key(name) {
                if let Some(value) = env(variable) {
                    self.0.insert(name, (value, (*variable).into()));
                }
            }
        }
    }

    fn refuse_unsupported(&self, servers: &[Server], mode: SslMode) -> Result<()> {
        for Parameter { name, rule, .. } in PARAMETERS {
            let Some(value) = self.text(name) else { continue };
            let (harmless, advice): (&[&str], _) = match rule {
                Rule::Only(harmless, advice) => (harmless, advice),
                Rule::NotWithTls(advice) if mode != SslMode::Disable => (&[], advice),
                Rule::NotOnSockets(advice) if servers.iter().any(Server::is_socket) => (&[], advice),
                _ => continue,
            };
            if !harmless.contains(&value) {
                let but =
                    if harmless.is_empty() { String::new() } else { format!(" except as {}", harmless.join(" or ")) };
                return Err(Error::config(format!("{} is not supported{but}: {advice}", self.name(name))));
            }
        }
        Ok(())
    }

    /// The value. An empty value means the default, as in libpq.
    fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|(value, _)| value.as_str()).filter(|value| !value.is_empty())
    }

    fn name<'a>(&'a self, key: &'a str) -> &'a str {
        self.0.get(key).map_or(key, |(_, name)| name)
    }

    fn number(&self, key: &'static str) -> Result<Option<i64>> {
        let Some(text) = self.text(key) else { return Ok(None) };
        match text.trim().parse::<i32>() {
            Ok(number) => Ok(Some(number.into())),
            Err(_) => Err(Error::config(format!("{} must be a whole number", self.name(key)))),
        }
    }

    /// A positive number of units. Zero or less turns the setting off, as in libpq.
    fn duration(&self, key: &'static str, default: u64, unit: fn(u64) -> Duration) -> Result<Option<Duration>> {
        let length = self.number(key)?.map_or(default, |number| u64::try_from(number).unwrap_or(0));
        Ok(Some(unit(length)).filter(|length| !length.is_zero()))
    }

    fn choice<T: Copy>(&self, key: &'static str, allowed: &[(&str, T)]) -> Result<Option<T>> {
        let Some(text) = self.text(key) else { return Ok(None) };
        match allowed.iter().find(|(name, _)| *name == text) {
            Some((_, value)) => Ok(Some(*value)),
            None => {
                let names: Vec<_> = allowed.iter().map(|(name, _)| *name).collect();
                Err(Error::config(format!("{} must be one of {}", self.name(key), names.join(", "))))
            }
        }
    }

    fn list(&self, key: &str) -> Vec<&str> {
        self.text(key).map(|text| text.split(',').map(str::trim).collect()).unwrap_or_default()
    }

    fn servers(&self) -> Result<Vec<Server>> {
        let (hosts, addresses, ports) = (self.list("host"), self.list("hostaddr"), self.list("port"));
        let count = hosts.len().max(addresses.len()).max(1);
        if !hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len() {
            return Err(Error::config(format!("host has {} entries and hostaddr {}", hosts.len(), addresses.len())));
        }
        if ports.len() > 1 && ports.len() != count {
            return Err(Error::config(format!("port has {} entries for {count} hosts", ports.len())));
        }
        let server = |i: usize| {
            let port =
                match ports.get(i).or(ports.first().filter(|_| ports.len() == 1)) {
                    None | Some(&"") => 5432,
                    Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
                        Error::config(format!("{} must be a number from 1 to 65535", self.name("port")))
                    })?,
                };
            let address = match addresses.get(i) {
                None | Some(&"") => None,
                Some(address) => Some(address.parse::<IpAddr>().map_err(|_| {
                    Error::config(format!("{} must be numeric addresses, one for every host", self.name("hostaddr")))
                })?),
            };
            let host = match (hosts.get(i).filter(|host| !host.is_empty()), address) {
                (Some(host), Some(_)) if !host.starts_with('/') => (*host).to_owned(),
                (_, Some(address)) => address.to_string(),
                (Some(host), None) => (*host).to_owned(),
                (None, None) => default_host(port),
            };
            // A leading @ means a socket without a file, which tokio-postgres cannot reach. No other host has an @.
            if host.contains('@') {
                return Err(Error::config(format!("{} must not contain an @", self.name("host"))));
            }
            Ok(Server { host, address, port, password: None })
        };
        (0..count).map(server).collect()
    }

    fn tls(&self, home: Option<&Path>, servers: &[Server]) -> Result<TlsOptions> {
        let system = self.text("sslrootcert") == Some("system");
        // Sockets have no TLS; libpq ignores the mode there.
        let asked = match self.choice("sslmode", &SslMode::NAMES)? {
            None if self.text("requiressl").is_some_and(|text| text.starts_with('1')) => Some(SslMode::Require),
            asked => asked,
        };
        let mode = match asked {
            _ if servers.iter().all(Server::is_socket) => SslMode::Disable,
            Some(mode) if system && mode != SslMode::VerifyFull => {
                let name = mode.name();
                return Err(Error::config(format!("sslrootcert=system needs sslmode=verify-full, not {name}")));
            }
            Some(SslMode::Prefer) if self.text("sslmode") == Some("allow") => {
                warn!("sslmode=allow is not supported; using prefer, which tries TLS first");
                SslMode::Prefer
            }
            Some(mode) => mode,
            None if system => SslMode::VerifyFull,
            None => SslMode::Prefer,
        };
        if mode > SslMode::Prefer && servers.iter().any(Server::is_socket) {
            let name = mode.name();
            return Err(Error::config(format!("sslmode={name} cannot be used for a list of hosts with a socket")));
        }
        if mode == SslMode::VerifyFull && servers.iter().any(|s| s.address.is_some_and(|a| a.to_string() == s.host)) {
            return Err(Error::config("sslmode=verify-full needs the name in host beside the address in hostaddr"));
        }
        let roots = match self.text("sslrootcert") {
            None => Roots::Default,
            Some(_) if system => Roots::System,
            Some(file) => Roots::File(file.into()),
        };
        let file = |key| self.text(key).map(PathBuf::from);
        let shows_certificate = self.choice("sslcertmode", &[("allow", true), ("disable", false)])?.unwrap_or(true);
        let names_host = self.choice("sslsni", &[("1", true), ("0", false)])?.unwrap_or(true);
        let floors = [("TLSv1", false), ("TLSv1.1", false), ("TLSv1.2", false), ("TLSv1.3", true)];
        let only_13 = self.choice("ssl_min_protocol_version", &floors)?.unwrap_or(false);
        let ceilings = [("TLSv1.2", true), ("TLSv1.3", false)];
        let only_12 = self.choice("ssl_max_protocol_version", &ceilings)?.unwrap_or(false);
        let versions = match (only_12, only_13) {
            (true, true) => {
                return Err(Error::config("ssl_min_protocol_version is above ssl_max_protocol_version"));
            }
            (true, false) => Versions::Only12,
            (false, true) => Versions::Only13,
            (false, false) => Versions::All,
        };
        Ok(TlsOptions {
            mode,
            roots,
            shows_certificate,
            names_host,
            versions,
            cert: file("sslcert"),
            key: file("sslkey"),
            folder: home.map(|h| h.join(".postgresql")),
        })
    }

    /// Sets the password of each server: the one given, or the one that the password file has for it.
    fn find_passwords(&self, home: Option<&Path>, servers: &mut [Server], dbname: &str, user: &str) {
        if let Some(password) = self.text("password") {
            servers.iter_mut().for_each(|server| server.password = Some(password.to_owned()));
            return;
        }
        let path = match self.text("passfile") {
            Some(path) => Some(PathBuf::from(path)),
            None => home.map(|home| home.join(".pgpass")),
        };
        let Some(text) = path.and_then(|path| passfile::read(&path)) else { return };
        for server in servers {
            let host = if SOCKET_FOLDERS.contains(&server.host.as_str()) { "localhost" } else { &server.host };
            let found = passfile::look_up(&text, [host, &server.port.to_string(), dbname, user]);
            server.password = found.filter(|password| !password.is_empty());
        }
    }

    fn set_behaviour(&self, config: &mut Config, mode: SslMode, env: &dyn Fn(&str) -> Option<String>) -> Result<()> {
        let mut options: Vec<String> = self.text("options").map(str::to_owned).into_iter().collect();
        for (variable, setting) in SETTINGS {
            let value = env(variable).filter(|value| !value.is_empty() && !value.eq_ignore_ascii_case("default"));
            options.extend(value.map(|value| format!("-c {setting}={}", escaped(&value))));
        }
        if !options.is_empty() {
            config.options(options.join(" "));
        }
        if let Some(timeout) = self.duration("connect_timeout", 0, Duration::from_secs)? {
            config.connect_timeout(timeout);
        }
        if let Some(timeout) = self.duration("tcp_user_timeout", 30_000, Duration::from_millis)? {
            config.tcp_user_timeout(timeout);
        }
        config.keepalives(self.number("keepalives")? != Some(0));
        if let Some(idle) = self.duration("keepalives_idle", 30, Duration::from_secs)? {
            config.keepalives_idle(idle);
        }
        if let Some(interval) = self.duration("keepalives_interval", 10, Duration::from_secs)? {
            config.keepalives_interval(interval);
        }
        if let Some(count) = self.number("keepalives_count")?.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0) {
            config.keepalives_retries(count);
        }
        use TargetSessionAttrs::{Any, ReadOnly, ReadWrite};
        let sessions = [("any", Any), ("read-write", ReadWrite), ("read-only", ReadOnly), ("primary", ReadWrite)];
        if let Some(attrs) = self.choice("target_session_attrs", &sessions)? {
            config.target_session_attrs(attrs);
        }
        let orders = [("disable", LoadBalanceHosts::Disable), ("random", LoadBalanceHosts::Random)];
        if let Some(order) = self.choice("load_balance_hosts", &orders)? {
            config.load_balance_hosts(order);
        }
        let bindings = [
            ("disable", ChannelBinding::Disable),
            ("prefer", ChannelBinding::Prefer),
            ("require", ChannelBinding::Require),
        ];
        if let Some(binding) = self.choice("channel_binding", &bindings)? {
            config.channel_binding(binding);
        }
        let negotiations = [("postgres", SslNegotiation::Postgres), ("direct", SslNegotiation::Direct)];
        if let Some(negotiation) = self.choice("sslnegotiation", &negotiations)? {
            if negotiation == SslNegotiation::Direct && mode == SslMode::Prefer {
                return Err(Error::config("sslnegotiation=direct needs sslmode require, verify-ca or verify-full"));
            }
            config.ssl_negotiation(negotiation);
        }
        Ok(())
    }
}

/// Escapes a value for `options`, where a space ends it.
fn escaped(value: &str) -> String {
    value.chars().flat_map(|c| matches!(c, ' ' | '\\').then_some('\\').into_iter().chain([c])).collect()
}

/// Where distributions and PostgreSQL itself put the server's socket.
const SOCKET_FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

fn default_host(port: u16) -> String {
    let has_socket = |folder: &&&str| Path::new(folder).join(format!(".s.PGSQL.{port}")).exists();
    SOCKET_FOLDERS.iter().find(has_socket).map_or("localhost", |folder| folder).to_owned()
}

mod parameters;
mod passfile;
mod service;
mod syntax;
#[cfg(test)]
mod tests;
