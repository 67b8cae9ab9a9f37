//! The name of the PostgreSQL schema, checked once and always quoted.
//! It is the only text of a caller that is inserted into SQL.

use crate::error::{Error, Result};
use std::fmt;

/// The placeholder of the schema in a statement's text.
const PLACEHOLDER: &str = ":GRAPHILE_WORKER_SCHEMA";

/// A schema name that PostgreSQL takes unchanged: neither cut short nor read as SQL.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Schema {
    name: String,
    quoted: String,
}

impl Schema {
    /// Checks a schema name. Allows everything that PostgreSQL allows, except what could change a statement.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the name is empty, longer than 63 bytes
    /// (PostgreSQL would cut it silently), contains NUL or `$` (it would end a function body), or
    /// starts with `pg_` (reserved).
    pub fn new(name: &str) -> Result<Self> {
        let refuse = |why: &str| Err(Error::config(format!("schema {name:?}: {why}")));
        match name {
            "" => refuse("is empty; the default is \"graphile_worker\""),
            _ if name.len() > 63 => refuse("is longer than 63 bytes, which PostgreSQL would cut short"),
            _ if name.contains('\0') => refuse("contains a NUL character"),
            _ if name.contains('$') => refuse("contains \"$\", which could end a function body"),
            _ if name.to_ascii_lowercase().starts_with("pg_") => {
                refuse("starts with \"pg_\", which PostgreSQL reserves")
            }
            _ => Ok(Self { name: name.to_owned(), quoted: format!("\"{}\"", name.replace('"', "\"\"")) }),
        }
    }

    /// The name, as given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name as an SQL identifier, always in double quotes.
    pub fn quoted(&self) -> &str {
        &self.quoted
    }

    /// Inserts the quoted schema into a statement's text.
    pub(crate) fn fill(&self, sql: &str) -> String {
        sql.replace(PLACEHOLDER, &self.quoted)
    }
}

impl Default for Schema {
    /// `graphile_worker`, as in Node and the async crate.
    fn default() -> Self {
        Self::new("graphile_worker").expect("the default name is valid")
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.quoted)
    }
}

#[cfg(test)]
mod tests {
    use super::Schema;

    #[track_caller]
    fn refused(name: &str, why: &str) {
        let error = Schema::new(name).expect_err("must be refused").to_string();
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn a_name_that_could_change_a_statement_is_refused() {
        refused("", "empty");
        refused("a\0b", "NUL");
        refused("a$$b", "\"$\"");
        refused(&"ä".repeat(32), "63 bytes");
        refused("pg_jobs", "reserves");
        refused("PG_jobs", "reserves");
    }

    #[test]
    fn every_other_name_is_quoted() {
        let fill = |name: &str| Schema::new(name).unwrap().fill("select :GRAPHILE_WORKER_SCHEMA.add_job()");
        assert_eq!(fill("jobs"), r#"select "jobs".add_job()"#);
        assert_eq!(fill(r#"a"; drop"#), r#"select "a""; drop".add_job()"#);
        assert_eq!(fill("Grüße 🦀"), r#"select "Grüße 🦀".add_job()"#);
        assert_eq!(fill(&"x".repeat(63)), format!("select \"{}\".add_job()", "x".repeat(63)));
    }
}
