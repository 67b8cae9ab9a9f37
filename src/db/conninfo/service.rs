//! Reads libpq's service files: groups of connection parameters under a name. Knows nothing of connection strings.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The folders in which distributions and PostgreSQL itself put the file of all users.
const SYSTEM_FOLDERS: [&str; 3] = ["/etc/postgresql-common", "/etc/sysconfig/pgsql", "/usr/local/pgsql/etc"];

/// Finds a service in the user's file, or else in the system's file. Returns its parameters in the order of the file,
/// and the path of the file.
///
/// # Errors
/// `Config` if no file has it, or if the file cannot be read. The text repeats no value.
pub(super) fn find(
    service: &str,
    named: Option<&str>,
    home: Option<&Path>,
    system: Option<&str>,
) -> Result<(Vec<(String, String)>, PathBuf)> {
    let users = match named {
        Some(file) => Some(PathBuf::from(file)),
        None => home.map(|home| home.join(".pg_service.conf")).filter(|file| file.exists()),
    };
    let folders = system.map_or(SYSTEM_FOLDERS.as_slice(), |_| &[]).iter().copied();
    let of_all = system.into_iter().chain(folders).map(|folder| Path::new(folder).join("pg_service.conf"));
    for file in users.into_iter().chain(of_all.filter(|file| file.exists()).take(1)) {
        let text = fs::read(&file).map_err(|e| unreadable(&file, &e))?;
        let text = String::from_utf8(text).map_err(|_| Error::config(format!("service file {file:?} is not UTF-8")))?;
        if let Some(found) = look_up(&text, service, &file)? {
            return Ok((found, file));
        }
    }
    Err(Error::config(format!(
        "definition of service {service:?} not found; define it in section [{service}] of the file in PGSERVICEFILE, \
         of ~/.pg_service.conf, or of pg_service.conf in the folder of PGSYSCONFDIR"
    )))
}

fn unreadable(file: &Path, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::config(format!("service file {file:?} not found")),
        _ => Error::config(format!("service file {file:?} cannot be read: {error}")),
    }
}

/// Returns the lines `key=value` of the group `[service]`; `None` if there is no such group.
pub(super) fn look_up(text: &str, service: &str, file: &Path) -> Result<Option<Vec<(String, String)>>> {
    let mut found = None;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        let wrong = |what: &str| Error::config(format!("{what} in service file {file:?}, line {}", number + 1));
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(group) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            if group.strip_prefix(service).is_some_and(|rest| rest.starts_with(']')) {
                found = Some(Vec::new());
            }
        } else if let Some(parameters) = &mut found {
            if line.starts_with("ldap") {
                return Err(wrong("a look-up in LDAP is not supported; write the parameters themselves"));
            }
            let (key, value) = line.split_once('=').ok_or_else(|| wrong("syntax error"))?;
            match key {
                "service" | "servicefile" => return Err(wrong("nested service specifications are not supported")),
                _ if super::find(key).is_none() => return Err(wrong("syntax error or unknown parameter")),
                _ => parameters.push((key.to_owned(), value.to_owned())),
            }
        }
    }
    Ok(found)
}
