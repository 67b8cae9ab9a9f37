//! Text over the door: UTF-8 that ends with NUL, or comes with its length.

use super::status::{Failure, GW_ERR_NOMEM, GW_ERR_UTF8};
use std::ffi::{CStr, CString, c_char};

/// In place of a length: the text ends with NUL.
pub const GW_NUL: usize = usize::MAX;

/// A text of ours, made when the library is compiled; must end with NUL.
pub(super) const fn constant(text: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(text.as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("a constant ends with its only NUL"),
    }
}

/// A text of ours for C. A NUL within it, which the database cannot have sent, is left out.
pub(super) fn owned(text: impl Into<Vec<u8>>) -> CString {
    let mut bytes = text.into();
    bytes.retain(|&byte| byte != 0);
    CString::new(bytes).expect("no NUL is left")
}

/// A text that the caller frees with `gw_string_free`.
pub(super) fn give(text: impl Into<Vec<u8>>) -> *mut c_char {
    owned(text).into_raw()
}

/// A text of the caller's that must be there.
///
/// # Safety
/// `text` is NULL or ends with NUL, and stays as it is during the call.
pub(super) unsafe fn required<'a>(name: &str, text: *const c_char) -> Result<&'a str, Failure> {
    // SAFETY: the caller says so.
    unsafe { optional(name, text) }?.ok_or_else(|| Failure::invalid(format!("{name}: is NULL")))
}

/// A text of the caller's that may be NULL.
///
/// # Safety
/// As [`required`].
pub(super) unsafe fn optional<'a>(name: &str, text: *const c_char) -> Result<Option<&'a str>, Failure> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: it is not NULL, and the caller says that it ends with NUL.
    let bytes = unsafe { CStr::from_ptr(text) }.to_bytes();
    utf8(name, bytes).map(Some)
}

/// A text of the caller's with its length, or [`GW_NUL`].
///
/// # Safety
/// `text` is NULL, or has `length` bytes, or ends with NUL if `length` is [`GW_NUL`].
pub(super) unsafe fn sized<'a>(name: &str, text: *const c_char, length: usize) -> Result<&'a str, Failure> {
    if length == GW_NUL {
        // SAFETY: the caller says that it ends with NUL.
        return unsafe { required(name, text) };
    }
    match (text.is_null(), length) {
        (_, 0) => return Ok(""),
        (true, _) => return Err(Failure::invalid(format!("{name}: is NULL"))),
        (_, length) if length > isize::MAX as usize => {
            return Err(Failure::new(GW_ERR_NOMEM, format!("{name}: is longer than memory")));
        }
        _ => {}
    }
    // SAFETY: it is not NULL, and the caller says that it has so many bytes.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), length) };
    match bytes.contains(&0) {
        true => {
            Err(Failure::new(GW_ERR_UTF8, format!("{name}: contains a NUL character, which PostgreSQL cannot hold")))
        }
        false => utf8(name, bytes),
    }
}

/// The same for words about a failure: what is not UTF-8 in them is replaced, since a job must not hang on that.
///
/// # Safety
/// As [`sized`].
pub(super) unsafe fn repaired(text: *const c_char, length: usize) -> String {
    let length = match (text.is_null(), length) {
        (true, _) => return "a failure without a word".to_owned(),
        // SAFETY: it is not NULL, and the caller says that it ends with NUL.
        (false, GW_NUL) => unsafe { CStr::from_ptr(text) }.count_bytes(),
        (false, length) => length.min(isize::MAX as usize),
    };
    // SAFETY: it is not NULL, and has so many bytes.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), length) };
    String::from_utf8_lossy(bytes).into_owned()
}

/// A list of the caller's.
///
/// # Safety
/// `list` has `count` items, or `count` is 0.
pub(super) unsafe fn list<'a, T>(name: &str, list: *const T, count: usize) -> Result<&'a [T], Failure> {
    match (count, list.is_null()) {
        (0, _) => Ok(&[]),
        (_, true) => Err(Failure::invalid(format!("{name}: is NULL"))),
        (count, false) if count <= isize::MAX as usize / size_of::<T>() => {
            // SAFETY: it is not NULL, and the caller says that it has so many items.
            Ok(unsafe { std::slice::from_raw_parts(list, count) })
        }
        _ => Err(Failure::new(GW_ERR_NOMEM, format!("{name}: is longer than memory"))),
    }
}

fn utf8<'a>(name: &str, bytes: &'a [u8]) -> Result<&'a str, Failure> {
    std::str::from_utf8(bytes)
        .map_err(|e| Failure::new(GW_ERR_UTF8, format!("{name}: is not UTF-8 at byte {}", e.valid_up_to())))
}

/// Frees a text that the library gave as `char *`. NULL does nothing. Free it once only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_string_free(text: *mut c_char) {
    if !text.is_null() {
        // SAFETY: it came from `give`, and the header says that it is freed once.
        drop(unsafe { CString::from_raw(text) });
    }
}
