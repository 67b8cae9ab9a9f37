//! Reads libpq's password file, checks its permissions, and looks up passwords. Knows nothing of connection strings.

use std::fs;
use std::path::Path;

use log::warn;

/// Returns the text of the password file, if it exists and no other user has access to it.
pub(super) fn read(path: &Path) -> Option<String> {
    let about = fs::metadata(path).ok()?;
    if !about.is_file() {
        warn!(path:? = path; "password file is not a plain file, not used");
        return None;
    }
    #[cfg(unix)]
    if std::os::unix::fs::PermissionsExt::mode(&about.permissions()) & 0o077 != 0 {
        warn!(path:? = path; "password file has group or world access, not used; permissions should be u=rw (0600) or less");
        return None;
    }
    fs::read_to_string(path).map_err(|e| warn!(path:? = path, error:% = e; "password file cannot be read")).ok()
}

/// Returns the password of the first line `host:port:database:user:password` that matches.
pub(super) fn look_up(text: &str, wanted: [&str; 4]) -> Option<String> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut fields = split_fields(line).into_iter();
        let fits = wanted.iter().all(|wanted| fields.next().is_some_and(|(raw, field)| raw == "*" || field == *wanted));
        fields.next().filter(|_| fits).map(|(_, password)| password)
    })
}

/// Returns the fields between colons, each as written and with backslashes resolved.
fn split_fields(line: &str) -> Vec<(String, String)> {
    let mut fields = vec![(String::new(), String::new())];
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        let last = fields.last_mut().expect("it starts with one and only grows");
        match c {
            ':' => fields.push(Default::default()),
            '\\' => {
                let escaped = chars.next();
                last.0.push('\\');
                last.0.extend(escaped);
                last.1.extend(escaped);
            }
            other => {
                last.0.push(other);
                last.1.push(other);
            }
        }
    }
    fields
}
