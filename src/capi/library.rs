//! Versions and build information.

use super::text;
use std::ffi::c_char;

/// The version of the binary interface, and the number in the library's file name. It changes only if existing programs
/// would stop working.
pub const GW_ABI_VERSION: u32 = 1;

const fn number(text: &str) -> u32 {
    let bytes = text.as_bytes();
    let (mut value, mut place) = (0, 0);
    while place < bytes.len() {
        value = value * 10 + (bytes[place] - b'0') as u32;
        place += 1;
    }
    value
}

/// The version of the loaded library: major * 65536 + minor * 256 + patch, as GW_VERSION of the header.
#[unsafe(no_mangle)]
pub extern "C" fn gw_version() -> u32 {
    number(env!("CARGO_PKG_VERSION_MAJOR")) << 16
        | number(env!("CARGO_PKG_VERSION_MINOR")) << 8
        | number(env!("CARGO_PKG_VERSION_PATCH"))
}

/// The version of the loaded library as text: `"0.1.0"`. Static text.
#[unsafe(no_mangle)]
pub extern "C" fn gw_version_string() -> *const c_char {
    text::constant(concat!(env!("CARGO_PKG_VERSION"), "\0")).as_ptr()
}

/// The binary interface of the loaded library. Compare it with GW_ABI_VERSION before any other call, and stop if they
/// differ.
#[unsafe(no_mangle)]
pub extern "C" fn gw_abi_version() -> u32 {
    GW_ABI_VERSION
}

/// Build information as a JSON object: version, abi, tls, schema. Static text.
#[unsafe(no_mangle)]
pub extern "C" fn gw_build_info() -> *const c_char {
    const INFO: &str =
        concat!("{\"version\":\"", env!("CARGO_PKG_VERSION"), "\",\"abi\":1,\"tls\":\"rustls\",\"schema\":18}\0");
    text::constant(INFO).as_ptr()
}
