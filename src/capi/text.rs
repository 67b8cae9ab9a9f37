//! Text across the C API: UTF-8 that ends with NUL or has a length.

use super::failure::Failure;
use super::status::GW_ERR_UTF8;
use std::ffi::{CStr, CString, c_char};

/// As a length: the text ends with NUL.
pub const GW_NUL: usize = usize::MAX;

/// The most bytes of a text argument: 1 GiB, as in PostgreSQL. GW_ERR_INVALID for a longer one.
pub const GW_TEXT_MAX: usize = 1 << 30;
/// The most entries of a list argument or of a list to fill: 16777216. GW_ERR_INVALID for a longer one.
pub const GW_LIST_MAX: usize = 1 << 24;

/// A static text of this library; it must end with NUL.
pub(super) const fn constant(text: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(text.as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("a constant ends with its only NUL"),
    }
}

/// A text of this library for C. NUL characters are left out; the database cannot send any.
pub(super) fn owned(text: impl Into<Vec<u8>>) -> CString {
    let mut bytes = text.into();
    bytes.retain(|&byte| byte != 0);
    CString::new(bytes).expect("no NUL is left")
}

/// A text for the caller, who frees it with `gw_string_free`.
pub(super) fn give(text: impl Into<Vec<u8>>) -> *mut c_char {
    owned(text).into_raw()
}

/// Reads a text of the caller's; NULL is an error.
///
/// # Safety
/// `text` is NULL or ends with NUL, and does not change during the call.
pub(super) unsafe fn required<'a>(name: &str, text: *const c_char) -> Result<&'a str, Failure> {
    // SAFETY: the caller promises the same.
    unsafe { optional(name, text) }?.ok_or_else(|| Failure::invalid(format!("{name}: is NULL")))
}

/// Reads a text of the caller's that may be NULL.
///
/// # Safety
/// As [`required`].
pub(super) unsafe fn optional<'a>(name: &str, text: *const c_char) -> Result<Option<&'a str>, Failure> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: `text` is not NULL, and the caller promises that it ends with NUL.
    let bytes = unsafe { bytes(name, text, GW_NUL) }?;
    utf8(name, bytes).map(Some)
}

/// Reads a text of the caller's with its length, or [`GW_NUL`].
///
/// # Safety
/// `text` is NULL, or has `length` bytes, or ends with NUL if `length` is [`GW_NUL`].
pub(super) unsafe fn sized<'a>(name: &str, text: *const c_char, length: usize) -> Result<&'a str, Failure> {
    match (text.is_null(), length) {
        (_, 0) => return Ok(""),
        (true, _) => return Err(Failure::invalid(format!("{name}: is NULL"))),
        _ => {}
    }
    // SAFETY: `text` is not NULL, and the caller promises its length.
    let bytes = unsafe { bytes(name, text, length) }?;
    match bytes.contains(&0) {
        true => {
            Err(Failure::new(GW_ERR_UTF8, format!("{name}: contains a NUL character, which PostgreSQL cannot hold")))
        }
        false => utf8(name, bytes),
    }
}

/// The same for error texts: bytes that are not UTF-8 are replaced, so that the job can still fail.
///
/// # Safety
/// As [`sized`].
pub(super) unsafe fn repaired(name: &str, text: *const c_char, length: usize) -> Result<String, Failure> {
    if text.is_null() {
        return Ok("the job failed without an error text".to_owned());
    }
    // SAFETY: `text` is not NULL, and the caller promises its length.
    let bytes = unsafe { bytes(name, text, length) }?;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// Reads a list of the caller's.
///
/// # Safety
/// `list` has `count` items, or `count` is 0.
pub(super) unsafe fn list<'a, T>(name: &str, list: *const T, count: usize) -> Result<&'a [T], Failure> {
    const { assert!(size_of::<T>() <= 8, "a list of the longest fits into isize::MAX bytes") };
    match (count, list.is_null()) {
        (0, _) => Ok(&[]),
        (_, true) => Err(Failure::invalid(format!("{name}: is NULL"))),
        (count, false) => {
            entries(name, count)?;
            // SAFETY: `list` is not NULL, and the caller promises that it has `count` items.
            Ok(unsafe { std::slice::from_raw_parts(list, count) })
        }
    }
}

/// Refuses a number of entries above [`GW_LIST_MAX`].
pub(super) fn entries(name: &str, count: usize) -> Result<(), Failure> {
    match count <= GW_LIST_MAX {
        true => Ok(()),
        false => Err(Failure::invalid(format!("{name}: {count} entries exceed the limit of {GW_LIST_MAX}"))),
    }
}

/// # Safety
/// `text` has `length` bytes, or ends with NUL if `length` is [`GW_NUL`].
unsafe fn bytes<'a>(name: &str, text: *const c_char, length: usize) -> Result<&'a [u8], Failure> {
    let length = match length {
        // SAFETY: the caller promises that it ends with NUL.
        GW_NUL => unsafe { CStr::from_ptr(text) }.count_bytes(),
        length => length,
    };
    if length > GW_TEXT_MAX {
        return Err(Failure::invalid(format!("{name}: {length} bytes exceed the limit of {GW_TEXT_MAX}")));
    }
    // SAFETY: the caller promises that `text` has `length` bytes.
    Ok(unsafe { std::slice::from_raw_parts(text.cast::<u8>(), length) })
}

fn utf8<'a>(name: &str, bytes: &'a [u8]) -> Result<&'a str, Failure> {
    std::str::from_utf8(bytes)
        .map_err(|e| Failure::new(GW_ERR_UTF8, format!("{name}: is not UTF-8 at byte {}", e.valid_up_to())))
}

/// Frees a text that the library returned as `char *`. NULL does nothing. Free each text once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_string_free(text: *mut c_char) {
    if !text.is_null() {
        // SAFETY: `text` came from `give`, and the caller promises to free it once.
        drop(unsafe { CString::from_raw(text) });
    }
}
