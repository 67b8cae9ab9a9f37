//! Writes rows by halves, so that one row that the database refuses does not delay the others. Knows no statement.

use crate::error::{Error, Result};

/// Calls `write` with all items. If the database refuses them together, calls it with each half, down to single items.
/// Returns the items that the database refused by themselves, each with the reason.
///
/// # Errors
/// Any error by which the database did not refuse the statement, such as a lost connection. The write ends at once.
pub(crate) fn write<T: Clone>(items: &[T], write_part: &mut impl FnMut(&[T]) -> Result<()>) -> Result<Vec<(T, Error)>> {
    match write_part(items) {
        Ok(()) => Ok(Vec::new()),
        Err(error) if !error.is_refusal() => Err(error),
        Err(error) => match items {
            [] => Err(error),
            [item] => Ok(vec![(item.clone(), error)]),
            _ => {
                let (first, second) = items.split_at(items.len() / 2);
                let mut refused = write(first, write_part)?;
                refused.extend(write(second, write_part)?);
                Ok(refused)
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn refused_items_are_returned_and_all_others_are_written() {
        let mut written = Vec::new();
        let refused = write(&(0..10).collect::<Vec<_>>(), &mut |part: &[i32]| {
            if part.iter().any(|item| [3, 9].contains(item)) {
                return Err(Error::new(ErrorKind::Database, "no").with_sqlstate("P0001"));
            }
            written.extend_from_slice(part);
            Ok(())
        });
        let refused: Vec<i32> = refused.unwrap().into_iter().map(|(item, _)| item).collect();
        written.sort_unstable();
        assert_eq!((refused, written), (vec![3, 9], vec![0, 1, 2, 4, 5, 6, 7, 8]));
    }

    #[test]
    fn a_lost_connection_ends_the_write() {
        let mut calls = 0;
        let result = write(&[1, 2], &mut |_| {
            calls += 1;
            Err(Error::new(ErrorKind::Connect, "gone"))
        });
        assert_eq!((result.unwrap_err().kind(), calls), (ErrorKind::Connect, 1));
    }
}
