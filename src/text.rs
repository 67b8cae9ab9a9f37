//! Text in databases whose encoding is not UTF-8: characters that they cannot hold, bytes that are not UTF-8. No IO.

use crate::error::{Error, ErrorKind};
use std::error::Error as StdError;
use tokio_postgres::types::{FromSql, Type};

/// SQLSTATE: a character of one encoding does not exist in the other.
const UNTRANSLATABLE: &str = "22P05";

/// SQLSTATE: bytes are not valid in their encoding. In a SQL_ASCII database the server detects this when it sends them.
pub(crate) const INVALID: &str = "22021";

/// A text column. Bytes that are not valid UTF-8 become U+FFFD, because the encoding SQL_ASCII allows any byte.
pub(crate) struct Text(pub(crate) String);

impl<'a> FromSql<'a> for Text {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self(String::from_utf8_lossy(raw).into_owned()))
    }

    fn accepts(kind: &Type) -> bool {
        is_text(kind)
    }
}

/// Checks whether a text column is valid UTF-8, and whether it is ASCII, without copying it.
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

/// Returns true if the database could not convert a text. If everything that this library sent is ASCII, the text is
/// stored in a row. Otherwise it may be one that this library sent.
pub(crate) fn is_untranslatable(error: &Error) -> bool {
    error.kind() == ErrorKind::Database && matches!(error.sqlstate(), Some(UNTRANSLATABLE | INVALID))
}

/// Returns the character that this library sent and the database cannot hold, if `error` reports one.
///
/// The message contains the bytes in every language: `character with byte sequence 0xf0 0x9f 0xa6 0x80 in …`.
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

/// Adds to the error which field has the character that the database cannot hold. Returns any other error unchanged.
///
/// `fields` are pairs of a name and a text.
pub(crate) fn named<'a>(error: Error, fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Error {
    let Some(alien) = alien(&error) else { return error };
    let Some((name, text)) = fields.into_iter().find(|(_, text)| text.contains(alien)) else { return error };
    let place = text.chars().take_while(|&c| c != alien).count() + 1;
    let advice = match name.ends_with("payload") {
        true => format!("; in JSON, write it as {}", json_escape(alien)),
        false => String::new(),
    };
    let code = u32::from(alien);
    error.into_config(format!(
        "{name}: character {place} is U+{code:04X}, which the encoding of the database cannot hold{advice}"
    ))
}

/// How many characters are escaped one by one before the whole text is reduced to ASCII.
const CHARACTERS: usize = 8;

/// Escapes characters that the database cannot hold. The caller repeats the write until the database accepts the texts.
pub(crate) struct Fitting(usize);

impl Fitting {
    pub(crate) fn new() -> Self {
        Self(0)
    }

    /// Replaces the character that `error` names by an escape such as `\u{1f980}`. Returns false if no text has it.
    pub(crate) fn escape<'a>(&mut self, error: &Error, texts: impl IntoIterator<Item = &'a mut String>) -> bool {
        let Some(alien) = alien(error) else { return false };
        self.0 += 1;
        // Each escaped character costs one more statement, so a text with many of them becomes ASCII.
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

/// The ASCII escape of a character in JSON.
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
        // This byte is in the encoding of the database: a stored text could not be sent.
        assert_eq!(alien(&refusal("0x81")), None);
        assert_eq!(alien(&Error::of_database("22021", "0xe2 0x82 0xac".into())), None);
    }

    #[test]
    fn errors_name_field_and_position_and_are_not_transient() {
        let fields = [("task name", "tä"), ("payload", "{\"crab\":\"🦀\"}"), ("job_key", "🦀")];
        let error = named(refusal("0xf0 0x9f 0xa6 0x80"), fields);
        assert_eq!(
            error.to_string(),
            "payload: character 10 is U+1F980, which the encoding of the database cannot hold; \
             in JSON, write it as \\ud83e\\udd80"
        );
        assert_eq!((error.kind(), error.sqlstate(), error.is_transient()), (ErrorKind::Config, Some("22P05"), false));
        assert!(!error.breaks_session(), "the session is fine");
        let other = named(refusal("0xe2 0x82 0xac"), fields);
        assert_eq!(other.kind(), ErrorKind::Database);
    }

    #[test]
    fn escaping_keeps_the_other_characters() {
        let mut text = "é 🦀 🦀".to_owned();
        let mut fitting = Fitting::new();
        assert!(fitting.escape(&refusal("0xf0 0x9f 0xa6 0x80"), [&mut text]));
        assert_eq!(text, "é \\u{1f980} \\u{1f980}");
        assert!(!fitting.escape(&refusal("0xf0 0x9f 0xa6 0x80"), [&mut text]));
    }

    #[test]
    fn a_text_with_many_such_characters_becomes_ascii() {
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
