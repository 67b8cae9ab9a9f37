//! Text between us and a database whose encoding is not UTF-8: what it cannot hold, and what in it is not UTF-8. No IO.

use crate::error::{Error, ErrorKind};
use std::error::Error as StdError;
use tokio_postgres::types::{FromSql, Type};

/// The SQLSTATE of a character that one of two encodings does not have.
const UNTRANSLATABLE: &str = "22P05";

/// The SQLSTATE of bytes that are no text of their encoding: with SQL_ASCII the server finds that when it sends them.
pub(crate) const INVALID: &str = "22021";

/// A text column. A byte that is not valid UTF-8 becomes U+FFFD: the encoding SQL_ASCII lets any byte in.
pub(crate) struct Text(pub(crate) String);

impl<'a> FromSql<'a> for Text {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self(String::from_utf8_lossy(raw).into_owned()))
    }

    fn accepts(kind: &Type) -> bool {
        is_text(kind)
    }
}

/// Whether a text column is valid UTF-8, and whether it is ASCII, without a copy of it.
pub(crate) struct Look {
    pub(crate) is_utf8: bool,
    pub(crate) is_ascii: bool,
}

impl<'a> FromSql<'a> for Look {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self { is_utf8: std::str::from_utf8(raw).is_ok(), is_ascii: raw.is_ascii() })
    }

    fn accepts(kind: &Type) -> bool {
        is_text(kind)
    }
}

fn is_text(kind: &Type) -> bool {
    matches!(*kind, Type::TEXT | Type::VARCHAR | Type::NAME | Type::JSON)
}

/// Whether the database met a text that it cannot convert: one of ours, or, if all that we sent is ASCII, one of a row
/// that it holds.
pub(crate) fn is_untranslatable(error: &Error) -> bool {
    error.kind() == ErrorKind::Database && matches!(error.sqlstate(), Some(UNTRANSLATABLE | INVALID))
}

/// The character of ours that the database cannot hold, if that is its error.
///
/// The message shows its bytes in every language: `character with byte sequence 0xf0 0x9f 0xa6 0x80 in …`.
pub(crate) fn alien(error: &Error) -> Option<char> {
    if error.kind() != ErrorKind::Database || error.sqlstate() != Some(UNTRANSLATABLE) {
        return None;
    }
    let text = error.to_string();
    let bytes: Vec<u8> = text
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter_map(|word| u8::from_str_radix(word.strip_prefix("0x")?, 16).ok())
        .collect();
    let mut chars = std::str::from_utf8(&bytes).ok()?.chars();
    chars.next().filter(|c| !c.is_ascii() && chars.next().is_none())
}

/// Says which field has the character that the database cannot hold. Any other error stays as it is.
///
/// Each field has its name and its text.
pub(crate) fn named<'a>(error: Error, fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Error {
    let Some(alien) = alien(&error) else { return error };
    let Some((name, text)) = fields.into_iter().find(|(_, text)| text.contains(alien)) else { return error };
    let place = text.chars().take_while(|&c| c != alien).count() + 1;
    let advice = match name.ends_with("payload") {
        true => format!("; in JSON it may be written as {}", json_escape(alien)),
        false => String::new(),
    };
    let code = u32::from(alien);
    error.into_config(format!(
        "{name}: character {place} is U+{code:04X}, which the encoding of the database cannot hold{advice}"
    ))
}

/// How often a text is written again without one more character, before it is written in ASCII.
const CHARACTERS: usize = 8;

/// Escapes what the database cannot hold in texts of ours that it is to keep, until it takes them.
pub(crate) struct Fitting(usize);

impl Fitting {
    pub(crate) fn new() -> Self {
        Self(0)
    }

    /// Writes the character that the error names as `\u{1f980}` in these texts; false if none of them has it.
    pub(crate) fn escape<'a>(&mut self, error: &Error, texts: impl IntoIterator<Item = &'a mut String>) -> bool {
        let Some(alien) = alien(error) else { return false };
        self.0 += 1;
        // A text of many such characters must not cost a call for each of them.
        let fits = |c: char| c.is_ascii() || c != alien && self.0 <= CHARACTERS;
        let mut found = false;
        for text in texts.into_iter().filter(|text| text.contains(alien)) {
            let escape = |c: char| if fits(c) { c.to_string() } else { c.escape_unicode().to_string() };
            *text = text.chars().map(escape).collect();
            found = true;
        }
        found
    }
}

/// A character as JSON can write it in ASCII.
fn json_escape(c: char) -> String {
    c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(bytes: &str) -> Error {
        let text = format!("character with byte sequence {bytes} in encoding \"UTF8\" has no equivalent in \"LATIN1\"");
        Error::of_database("22P05", text)
    }

    #[test]
    fn the_character_is_read_from_the_error() {
        assert_eq!(alien(&refusal("0xf0 0x9f 0xa6 0x80")), Some('🦀'));
        assert_eq!(alien(&refusal("0xe2 0x82 0xac")), Some('€'));
        // A byte of the database's own encoding, on its way to us.
        assert_eq!(alien(&refusal("0x81")), None);
        assert_eq!(alien(&Error::of_database("22021", "0xe2 0x82 0xac".into())), None);
    }

    #[test]
    fn the_field_is_named_with_the_place_and_the_error_is_not_transient() {
        let fields = [("task name", "tä"), ("payload", "{\"crab\":\"🦀\"}"), ("job_key", "🦀")];
        let error = named(refusal("0xf0 0x9f 0xa6 0x80"), fields);
        assert_eq!(
            error.to_string(),
            "payload: character 10 is U+1F980, which the encoding of the database cannot hold; \
             in JSON it may be written as \\ud83e\\udd80"
        );
        assert_eq!((error.kind(), error.sqlstate(), error.is_transient()), (ErrorKind::Config, Some("22P05"), false));
        let other = named(refusal("0xe2 0x82 0xac"), fields);
        assert_eq!(other.kind(), ErrorKind::Database);
    }

    #[test]
    fn an_escape_keeps_what_fits() {
        let mut text = "é 🦀 🦀".to_owned();
        let mut fitting = Fitting::new();
        assert!(fitting.escape(&refusal("0xf0 0x9f 0xa6 0x80"), [&mut text]));
        assert_eq!(text, "é \\u{1f980} \\u{1f980}");
        assert!(!fitting.escape(&refusal("0xf0 0x9f 0xa6 0x80"), [&mut text]));
    }

    #[test]
    fn a_text_of_many_such_characters_soon_becomes_ascii() {
        let mut text: String = ('α'..='ω').collect();
        let mut fitting = Fitting::new();
        let mut calls = 0;
        while let Some(alien) = text.chars().find(|c| !c.is_ascii()) {
            let bytes: Vec<String> = alien.to_string().bytes().map(|byte| format!("0x{byte:x}")).collect();
            assert!(fitting.escape(&refusal(&bytes.join(" ")), [&mut text]));
            calls += 1;
        }
        assert_eq!(calls, CHARACTERS + 1);
    }
}
