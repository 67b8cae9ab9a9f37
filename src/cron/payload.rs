//! The payload of a crontab entry: converts JSON5 text into the JSON text that Node would store, except that numbers
//! keep their digits. Knows no crontab.

use std::collections::HashMap;

/// How deep objects and arrays may be nested. `serde_json` has the same limit.
const DEEPEST: usize = 127;

/// The members of an object, in their order. Names and values are JSON text.
#[derive(Clone, Default)]
pub(crate) struct Members {
    /// Pairs of name and value. Each name has only one spelling, so equal names are equal texts.
    members: Vec<(String, String)>,
    places: HashMap<String, usize>,
}

/// A syntax error: the byte position in the text, and a description. It quotes nothing of the text, which may contain
/// secrets.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) at: usize,
    pub(crate) why: String,
}

impl Members {
    /// Parses an object. If several members have the same name, the last value wins, at the position of the first.
    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        let mut reader = Reader { text, at: 0 };
        reader.skip()?;
        let members = reader.object(1)?;
        reader.skip()?;
        match reader.peek() {
            None => Ok(members),
            Some(_) => Err(reader.broken("the text continues after the object")),
        }
    }

    /// Sets a member. `value` is JSON text.
    pub(crate) fn set(&mut self, name: &str, value: String) {
        let mut text = String::new();
        quote(name, &mut text);
        self.put(text, value);
    }

    fn put(&mut self, name: String, value: String) {
        match self.places.get(&name) {
            Some(&place) => self.members[place].1 = value,
            None => {
                self.places.insert(name.clone(), self.members.len());
                self.members.push((name, value));
            }
        }
    }

    /// The object as JSON text.
    pub(crate) fn text(&self) -> String {
        let members: Vec<String> = self.members.iter().map(|(name, value)| format!("{name}:{value}")).collect();
        format!("{{{}}}", members.join(","))
    }
}

/// Two objects are equal if they have the same members, in any order.
impl PartialEq for Members {
    fn eq(&self, other: &Self) -> bool {
        let value = |(name, value): &(String, String)| {
            other.places.get(name).is_some_and(|&place| other.members[place].1 == *value)
        };
        self.members.len() == other.members.len() && self.members.iter().all(value)
    }
}

/// Parses a quoted string at the start of a text. Returns the string and the position after it.
pub(crate) fn quoted(text: &str) -> Result<(String, usize), Fault> {
    let mut reader = Reader { text, at: 0 };
    let mut json = String::new();
    reader.string(&mut json)?;
    match serde_json::from_str(&json) {
        Ok(string) => Ok((string, reader.at)),
        Err(_) => Err(Fault { at: 0, why: "has half of a surrogate pair".into() }),
    }
}

/// Returns true for what JavaScript regards as white space: the byte order mark is, U+0085 is not.
pub(super) fn is_space(c: char) -> bool {
    (c.is_whitespace() && c != '\u{85}') || c == '\u{feff}'
}

/// A parser with a position in a text. Each function starts at the first character of what it parses, and ends after
/// the last.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.rest().starts_with(word);
        if found {
            self.at += word.len();
        }
        found
    }

    fn fault(&self, why: impl Into<String>) -> Fault {
        Fault { at: self.at, why: why.into() }
    }

    fn broken(&self, why: &str) -> Fault {
        self.fault(format!("is not an object of JSON5: {why}"))
    }

    /// Skips white space and comments.
    fn skip(&mut self) -> Result<(), Fault> {
        loop {
            let start = self.at;
            if self.take("/*") {
                let Some(end) = self.rest().find("*/") else {
                    self.at = start;
                    return Err(self.broken("the comment that begins here has no end"));
                };
                self.at += end + 2;
            } else if self.take("//") {
                let end = self.rest().find(['\n', '\r', '\u{2028}', '\u{2029}']);
                self.at += end.unwrap_or(self.rest().len());
            } else if self.peek().is_some_and(is_space) {
                self.next();
            } else {
                return Ok(());
            }
        }
    }

    fn value(&mut self, depth: usize, out: &mut String) -> Result<(), Fault> {
        match self.peek() {
            Some('{') => out.push_str(&self.object(depth)?.text()),
            Some('[') => self.array(depth, out)?,
            Some('"' | '\'') => self.string(out)?,
            Some('+' | '-' | '.' | '0'..='9' | 'I' | 'N') => self.number(out)?,
            _ => match ["true", "false", "null"].into_iter().find(|word| self.take(word)) {
                Some(word) => out.push_str(word),
                None => return Err(self.broken("a value is expected here")),
            },
        }
        Ok(())
    }

    fn object(&mut self, depth: usize) -> Result<Members, Fault> {
        self.enter('{', depth)?;
        let mut members = Members::default();
        loop {
            self.skip()?;
            if self.take("}") {
                return Ok(members);
            }
            let mut name = String::new();
            match self.peek() {
                Some('"' | '\'') => self.string(&mut name)?,
                _ => self.identifier(&mut name)?,
            }
            self.skip()?;
            if !self.take(":") {
                return Err(self.broken("a colon is expected here"));
            }
            self.skip()?;
            let mut value = String::new();
            self.value(depth + 1, &mut value)?;
            members.put(name, value);
            self.skip()?;
            if !self.take(",") && self.peek() != Some('}') {
                return Err(self.broken("a comma or } is expected here"));
            }
        }
    }

    fn array(&mut self, depth: usize, out: &mut String) -> Result<(), Fault> {
        self.enter('[', depth)?;
        out.push('[');
        let mut comma = "";
        loop {
            self.skip()?;
            if self.take("]") {
                out.push(']');
                return Ok(());
            }
            out.push_str(comma);
            self.value(depth + 1, out)?;
            comma = ",";
            self.skip()?;
            if !self.take(",") && self.peek() != Some(']') {
                return Err(self.broken("a comma or ] is expected here"));
            }
        }
    }

    fn enter(&mut self, bracket: char, depth: usize) -> Result<(), Fault> {
        if depth > DEEPEST {
            return Err(self.fault(format!("nests objects and arrays deeper than {DEEPEST} levels")));
        }
        match self.peek() == Some(bracket) {
            true => {
                self.at += 1;
                Ok(())
            }
            false => Err(self.broken("an object is expected here")),
        }
    }

    /// Parses a name without quotes.
    fn identifier(&mut self, out: &mut String) -> Result<(), Fault> {
        let start = self.at;
        let mut name = String::new();
        while let Some(c) = self.peek() {
            let place = self.at;
            let c = match c {
                '\\' => {
                    self.at += 1;
                    let unit = if self.take("u") { self.hex(4) } else { None };
                    unit.and_then(char::from_u32).unwrap_or('\\')
                }
                c => c,
            };
            let starts = matches!(c, '$' | '_') || unicode_ident::is_xid_start(c) || c.is_alphabetic();
            let goes_on = starts || matches!(c, '\u{200c}' | '\u{200d}') || unicode_ident::is_xid_continue(c);
            if !(starts || goes_on && !name.is_empty()) {
                self.at = place;
                break;
            }
            if self.at == place {
                self.at += c.len_utf8();
            }
            name.push(c);
        }
        if self.at == start {
            return Err(self.broken("a member's name is expected here"));
        }
        quote(&name, out);
        Ok(())
    }

    fn string(&mut self, out: &mut String) -> Result<(), Fault> {
        let start = self.at;
        let end = self.next();
        out.push('"');
        loop {
            let place = self.at;
            match self.next() {
                None | Some('\n' | '\r') => {
                    self.at = start;
                    return Err(self.broken("the string that begins here has no end"));
                }
                c if c == end => break,
                Some('\\') => self.escape(out).ok_or_else(|| {
                    self.at = place;
                    self.broken("this escape is not known")
                })?,
                Some(c) => character(c, out),
            }
        }
        out.push('"');
        Ok(())
    }

    /// Parses the rest of an escape, after the backslash.
    fn escape(&mut self, out: &mut String) -> Option<()> {
        let c = match self.next()? {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '0' if !self.peek().is_some_and(|c| c.is_ascii_digit()) => '\0',
            '0'..='9' => return None,
            'x' => char::from_u32(self.hex(2)?)?,
            'u' => {
                let unit = self.hex(4)?;
                let place = self.at;
                let low = if self.take("\\u") { self.hex(4) } else { None };
                let pair = low.and_then(|low| char::decode_utf16([unit as u16, low as u16]).next()?.ok());
                match (char::from_u32(unit), pair) {
                    (None, Some(pair)) => pair,
                    (Some(c), _) => {
                        self.at = place;
                        c
                    }
                    // Half of a surrogate pair is valid in JavaScript. JSON can only contain it as an escape.
                    (None, None) => {
                        self.at = place;
                        out.push_str(&format!("\\u{unit:04x}"));
                        return Some(());
                    }
                }
            }
            // The string continues in the next line.
            '\r' => {
                self.take("\n");
                return Some(());
            }
            '\n' | '\u{2028}' | '\u{2029}' => return Some(()),
            c => c,
        };
        character(c, out);
        Some(())
    }

    fn hex(&mut self, digits: usize) -> Option<u32> {
        let text = self.rest().get(..digits).filter(|text| text.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        let number = u32::from_str_radix(text, 16).ok()?;
        self.at += digits;
        Some(number)
    }

    fn number(&mut self, out: &mut String) -> Result<(), Fault> {
        let start = self.at;
        let negative = self.take("-");
        if !negative {
            self.take("+");
        }
        for word in ["Infinity", "NaN"] {
            if self.take(word) {
                self.at = start;
                return Err(self.fault(format!("has {word}, which JSON does not have")));
            }
        }
        if negative {
            out.push('-');
        }
        if self.take("0x") || self.take("0X") {
            let digits = self.digits(|digit| digit.is_ascii_hexdigit());
            let number = u128::from_str_radix(&digits, 16);
            self.at = if number.is_ok() { self.at } else { start };
            let number = number.map_err(|_| match digits.is_empty() {
                true => self.broken("this hexadecimal number has no digits"),
                false => self.fault("has a hexadecimal number of more than 128 bits"),
            });
            out.push_str(&number?.to_string());
            return Ok(());
        }
        let whole = self.digits(|digit| digit.is_ascii_digit());
        let part = if self.take(".") { self.digits(|digit| digit.is_ascii_digit()) } else { String::new() };
        let leading_zero = whole.len() > 1 && whole.starts_with('0');
        if leading_zero || whole.is_empty() && part.is_empty() {
            self.at = start;
            return Err(self.broken(match leading_zero {
                true => "a number does not begin with 0",
                false => "a value is expected here",
            }));
        }
        out.push_str(if whole.is_empty() { "0" } else { &whole });
        if !part.is_empty() {
            out.push('.');
            out.push_str(&part);
        }
        let exponent = self.at;
        if self.take("e") || self.take("E") {
            if !self.take("-") {
                self.take("+");
            }
            if self.digits(|digit| digit.is_ascii_digit()).is_empty() {
                self.at = exponent;
                return Err(self.broken("this exponent has no digits"));
            }
            out.push_str(&self.text[exponent..self.at]);
        }
        Ok(())
    }

    fn digits(&mut self, is_digit: fn(&u8) -> bool) -> String {
        let digits = self.rest().bytes().take_while(is_digit).count();
        let text = self.rest()[..digits].to_owned();
        self.at += digits;
        text
    }
}

/// Writes a text as a JSON string.
fn quote(text: &str, out: &mut String) {
    out.push('"');
    text.chars().for_each(|c| character(c, out));
    out.push('"');
}

/// Writes a character of a JSON string.
fn character(c: char, out: &mut String) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        ..'\u{20}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
        c => out.push(c),
    }
}

#[cfg(test)]
mod tests;
