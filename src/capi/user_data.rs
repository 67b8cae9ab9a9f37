//! What comes with a function of the host's.

use std::ffi::c_void;

/// Frees what a `user_data` points to. Called once, on any thread, also if the call that was given it failed.
pub type gw_free_fn = Option<unsafe extern "C" fn(user_data: *mut c_void)>;

/// Something of the caller's that comes with a function, freed by the last who needs it.
pub(super) struct UserData {
    pub(super) pointer: *mut c_void,
    pub(super) free: gw_free_fn,
}

// SAFETY: the header says that it is used and freed on any thread.
unsafe impl Send for UserData {}
// SAFETY: the same.
unsafe impl Sync for UserData {}

impl Drop for UserData {
    fn drop(&mut self) {
        if let Some(free) = self.free {
            // SAFETY: the caller gave both together, and this is the only call.
            unsafe { free(self.pointer) };
        }
    }
}
