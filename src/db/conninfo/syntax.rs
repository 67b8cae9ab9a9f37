//! Parses the two forms of a connection string, URL and key=value, as libpq does.
//! Knows which parameters exist, not what they mean. Its errors never repeat the input.

use std::str::Chars;

use super::{Given, find};
use crate::error::{Error, Result};

const UNENCODED: &str = "the URL cannot be read; in a user name or password \
     write % as %25, / as %2F, @ as %40, ? as %3F and # as %23";
const UNQUOTED: &str = "the connection string cannot be read: it is a list of key=value, \
     in which a value with spaces is in single quotes, with ' and \\ written as \\' and \\\\";

impl Given {
    /// `user:password@host:port,host/database?key=value`, without the scheme.
    pub(super) fn read_url(&mut self, rest: &str) -> Result<()> {
        let mut rest = rest;
        // As in libpq, an @ after the first slash does not end the user's part.
        if let Some(at) = rest.find(['@', '/']).filter(|i| rest[*i..].starts_with('@')) {
            // No host has an @. So a later @ means that the earlier ones belong to the password.
            let end = rest[at..].find(['/', '?']).map_or(rest.len(), |i| at + i);
            let at = rest[..end].rfind('@').unwrap_or(at);
            let (user, password) = rest[..at].split_once(':').unwrap_or((&rest[..at], ""));
            self.put_part("user", user)?;
            self.put_part("password", password)?;
            rest = &rest[at + 1..];
        }
        let (servers, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        // libpq would take the rest of a password for the name of a database, and show it.
        if path.contains('@') {
            return Err(Error::config(UNENCODED));
        }
        let (mut hosts, mut ports) = (Vec::new(), Vec::new());
        for server in servers.split(',') {
            let (host, port) = match server.strip_prefix('[').map(|v6| v6.split_once(']')) {
                Some(Some((v6, ""))) => (v6, ""),
                Some(Some((v6, port))) => (v6, port.strip_prefix(':').ok_or_else(|| Error::config(UNENCODED))?),
                Some(None) => return Err(Error::config("host: the bracket of an IPv6 address is not closed")),
                None => server.split_once(':').unwrap_or((server, "")),
            };
            hosts.push(host);
            ports.push(port);
        }
        self.put_part("host", &hosts.join(","))?;
        self.put_part("port", &ports.join(","))?;
        self.put_part("dbname", path.strip_prefix('/').unwrap_or_default())?;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            // An @ here may end a password with a question mark. Then no name is safe to show.
            self.read_parameter(pair).map_err(|e| if query.contains('@') { Error::config(UNENCODED) } else { e })?;
        }
        Ok(())
    }

    fn read_parameter(&mut self, pair: &str) -> Result<()> {
        let (key, value) = pair.split_once('=').ok_or_else(|| Error::config(UNENCODED))?;
        let key = decode(key).ok_or_else(|| Error::config(UNENCODED))?;
        let value = decode(value).ok_or_else(|| Error::config(UNENCODED))?;
        match (key.as_str(), value.as_str()) {
            ("ssl", "true") => self.put("sslmode", "require".to_owned()),
            ("ssl", _) => Err(Error::config("ssl must be true; use sslmode for anything else")),
            _ => self.put(&key, value),
        }
    }

    /// Puts a part of the URL itself. An empty part is left out, so that the environment can fill it.
    fn put_part(&mut self, key: &'static str, raw: &str) -> Result<()> {
        match decode(raw).ok_or_else(|| Error::config(UNENCODED))? {
            empty if empty.is_empty() => Ok(()),
            value => self.put(key, value),
        }
    }

    pub(super) fn read_pairs(&mut self, text: &str) -> Result<()> {
        let mut chars = text.chars();
        let mut after_password = false;
        loop {
            skip_spaces(&mut chars);
            if chars.as_str().is_empty() {
                return Ok(());
            }
            let rest = chars.as_str();
            let (key, rest) = rest.split_once('=').ok_or_else(|| Error::config(UNQUOTED))?;
            let key = key.trim_end();
            // After an unquoted password this may be a part of it, which must not reach a log.
            if key.contains(char::is_whitespace) || (after_password && find(key).is_none()) {
                return Err(Error::config(UNQUOTED));
            }
            chars = rest.chars();
            let value = read_value(&mut chars).ok_or_else(|| Error::config(UNQUOTED))?;
            after_password = key == "password";
            self.put(key, value)?;
        }
    }
}

/// Decodes percent-encoding. Returns `None` for a % without two digits, and for bytes that are not UTF-8.
fn decode(raw: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut pieces = raw.split('%');
    bytes.extend_from_slice(pieces.next().unwrap_or_default().as_bytes());
    for piece in pieces {
        let digits = piece.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(&piece.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

fn skip_spaces(chars: &mut Chars<'_>) {
    *chars = chars.as_str().trim_start().chars();
}

/// Reads the value after `key =`, quoted or up to the next space, with backslash escapes. Returns `None` if a quote
/// stays open.
fn read_value(chars: &mut Chars<'_>) -> Option<String> {
    skip_spaces(chars);
    let quoted = chars.as_str().starts_with('\'');
    if quoted {
        chars.next();
    }
    let mut value = String::new();
    while let Some(c) = chars.next() {
        match c {
            '\\' => value.extend(chars.next()),
            '\'' if quoted => return Some(value),
            space if !quoted && space.is_whitespace() => break,
            other => value.push(other),
        }
    }
    (!quoted).then_some(value)
}
