//! The output of a command: JSON or text on stdout, messages on stderr. It escapes control characters, so that no text can control the terminal.

use chrono::{DateTime, SecondsFormat, Utc};
use log::kv::{Key, Value, VisitSource};
use serde::Serialize;
use std::fmt::{self, Write as _};
use std::io::{self, Write};

/// Prints the results of commands to stdout.
pub(crate) struct Screen {
    pub(crate) json: bool,
}

impl Screen {
    /// Prints a result as JSON, or as the text that `in_words` makes of it.
    pub(crate) fn print<T: Serialize>(&self, answer: &T, in_words: impl FnOnce(&T) -> String) -> io::Result<()> {
        let mut text = match self.json {
            true => json(&serde_json::to_string_pretty(answer)?),
            false => in_words(answer),
        };
        if !text.ends_with('\n') {
            text.push('\n');
        }
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }
}

/// Writes a line to stderr. `eprintln!` would panic if stderr is a full disk or a closed pipe.
pub(crate) fn print_message(text: fmt::Arguments) {
    let _ = writeln!(io::stderr(), "graphile-worker: {text}");
}

/// Rows under their header, one line each. Two spaces separate the columns.
pub(crate) fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut lines = vec![header.map(str::to_owned)];
    lines.extend(rows.into_iter().map(|row| row.map(|cell| one_line(&cell))));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for line in &lines {
        let mut row = String::new();
        for (cell, width) in line.iter().zip(widths) {
            let _ = write!(row, "{cell:width$}  ");
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

/// A value, or `-` if it is missing.
pub(crate) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// A time with second precision; JSON has microseconds.
pub(crate) fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// `1 job`, `2 jobs`.
pub(crate) fn count(number: impl TryInto<i64>, noun: &str) -> String {
    let number = number.try_into().unwrap_or(i64::MAX);
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Numbers or names, separated by commas.
pub(crate) fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    one_line(&items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", "))
}

/// Escapes all control characters. Any client can put them into a job, and a terminal obeys them.
pub(crate) fn one_line(text: &str) -> String {
    escape(text, "")
}

/// The same, but keeps line breaks and tabs.
pub(crate) fn lines(text: &str) -> String {
    escape(text, "\n\t")
}

fn escape(text: &str, keep: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match is_unseen(c) && !keep.contains(c) {
            true => safe.extend(c.escape_default()),
            false => safe.push(c),
        }
    }
    safe
}

/// JSON text of the same value, with such characters escaped. Outside strings, JSON has only white space of that kind.
fn json(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => safe.push(c),
            // White space between the values of a payload. On a terminal, later text would overwrite the line.
            '\r' => safe.push(' '),
            c if is_unseen(c) => {
                let units = c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect::<String>();
                safe.push_str(&units);
            }
            c => safe.push(c),
        }
    }
    safe
}

/// Whether a terminal obeys a character or does not show it. Such a character could hide a part of a text.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            // Characters without width, and those that change the direction of writing.
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            // Annotations, musical format characters, and tags.
            | '\u{fff9}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Prints the library's warnings and errors to stderr.
pub(crate) fn show_warnings() {
    struct Stderr;
    impl log::Log for Stderr {
        fn enabled(&self, metadata: &log::Metadata) -> bool {
            metadata.level() <= log::Level::Warn
        }
        fn log(&self, record: &log::Record) {
            struct Fields(String);
            impl<'kvs> VisitSource<'kvs> for Fields {
                fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
                    let _ = write!(self.0, " {key}={value}");
                    Ok(())
                }
            }
            if self.enabled(record.metadata()) && record.target().starts_with("graphile_worker") {
                let mut fields = Fields(String::new());
                let _ = record.key_values().visit(&mut fields);
                print_message(format_args!("warning: {}", one_line(&format!("{}{}", record.args(), fields.0))));
            }
        }
        fn flush(&self) {}
    }
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(log::LevelFilter::Warn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_fit_their_widest_cell_and_lines_have_no_trailing_space() {
        let rows = [["1".into(), "größer".into()], ["1000".into(), String::new()]];
        assert_eq!(table(["id", "task"], rows), "id    task\n1     größer\n1000\n");
        assert_eq!(table(["id"], []), "id\n");
    }

    #[test]
    fn text_cannot_control_the_terminal() {
        assert_eq!(one_line("a\x1b[2J\nb\u{9b}\u{202e}ä"), "a\\u{1b}[2J\\nb\\u{9b}\\u{202e}ä");
        assert_eq!(lines("{\n\t\u{7f}}"), "{\n\t\\u{7f}}");
        assert_eq!(one_line("a\u{200b}b\u{2028}\u{feff}\u{e0041}"), "a\\u{200b}b\\u{2028}\\u{feff}\\u{e0041}");
    }

    #[test]
    fn json_escapes_invisible_characters_and_keeps_the_value() {
        let unseen: String = (0..=u32::from(char::MAX)).filter_map(char::from_u32).filter(|&c| is_unseen(c)).collect();
        let text = serde_json::to_string_pretty(&["ä\r", &unseen]).unwrap();
        let safe = json(&text);
        assert_eq!(safe.chars().find(|&c| is_unseen(c) && c != '\n'), None);
        assert_eq!(serde_json::from_str::<Vec<String>>(&safe).unwrap(), ["ä\r", &unseen]);
        assert_eq!(json("{\"a\":\r\n\t1}"), "{\"a\": \n\t1}");
        assert_eq!(json("\"\u{9b}\u{202e}\u{e0041}ä🦀\""), "\"\\u009b\\u202e\\udb40\\udc41ä🦀\"");
    }
}
