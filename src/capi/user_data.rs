//! The `user_data` of a function of the caller's.

use std::ffi::c_void;

/// Frees what a `user_data` points to. Called once, on any thread, also if the call that received it failed.
pub type gw_free_fn = Option<unsafe extern "C" fn(user_data: *mut c_void)>;

/// A pointer of the caller's that belongs to a function. It is freed with its last user.
pub(super) struct UserData {
    pub(super) pointer: *mut c_void,
    pub(super) free: gw_free_fn,
}

// SAFETY: the caller promises that `user_data` may be used and freed on any thread.
unsafe impl Send for UserData {}
// SAFETY: the same.
unsafe impl Sync for UserData {}

impl Drop for UserData {
    fn drop(&mut self) {
        if let Some(free) = self.free {
            // SAFETY: the caller passed pointer and function together, and this is the only call.
            unsafe { free(self.pointer) };
        }
    }
}
