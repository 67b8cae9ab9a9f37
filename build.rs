//! Names the shared library, and writes or checks the C header when built with the feature `header`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let linux = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    let capi = std::env::var_os("CARGO_FEATURE_CAPI").is_some();
    if linux && capi {
        // GW_ABI_VERSION of src/capi/library.rs; a test compares them.
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libgraphile_worker.so.1");
        // dlclose must not unmap the library, because its threads may still run.
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
    #[cfg(feature = "header")]
    header::write();
}

#[cfg(feature = "header")]
mod header {
    use std::path::Path;

    /// The files in the order of the header's sections. Their modules are not followed.
    const SOURCES: [&str; 22] = [
        "library.rs",
        "text.rs",
        "status.rs",
        "error.rs",
        "user_data.rs",
        "log.rs",
        "config.rs",
        "spec.rs",
        "client.rs",
        "admin.rs",
        "job.rs",
        "task.rs",
        "worker.rs",
        "lifecycle.rs",
        "pull.rs",
        "worker_stats.rs",
        "observer.rs",
        "interceptor.rs",
        "event_names.rs",
        "worker_events.rs",
        "event.rs",
        "cron.rs",
    ];

    pub fn write() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        println!("cargo::rerun-if-changed=src/capi");
        println!("cargo::rerun-if-env-changed=GW_BLESS_HEADER");
        let committed = root.join("include/graphile_worker.h");
        println!("cargo::rerun-if-changed={}", committed.display());

        let mut builder = cbindgen::Builder::new().with_config(config());
        for source in SOURCES {
            builder = builder.with_src(root.join("src/capi").join(source));
        }
        // The compiler reports mistakes in the sources.
        let Ok(bindings) = builder.generate() else { return };
        let mut text = Vec::new();
        bindings.write(&mut text);
        if std::fs::read(&committed).is_ok_and(|known| known == text) {
            return;
        }
        match std::env::var_os("GW_BLESS_HEADER") {
            Some(_) => std::fs::write(&committed, text).expect("writing include/graphile_worker.h"),
            None => panic!("include/graphile_worker.h is not what src/capi declares; run: make header"),
        }
    }

    fn config() -> cbindgen::Config {
        let part = |name: &str| std::env::var(format!("CARGO_PKG_VERSION_{name}")).expect("cargo sets it");
        let (major, minor, patch) = (part("MAJOR"), part("MINOR"), part("PATCH"));
        cbindgen::Config {
            language: cbindgen::Language::C,
            cpp_compat: true,
            header: Some(HEADER.to_owned()),
            include_guard: Some("GRAPHILE_WORKER_H".to_owned()),
            no_includes: true,
            sys_includes: ["stdbool.h", "stddef.h", "stdint.h"].map(str::to_owned).to_vec(),
            after_includes: Some(format!(
                "{AFTER_INCLUDES}\n/* The version of this header. */\n#define GW_VERSION_MAJOR {major}\n\
                 #define GW_VERSION_MINOR {minor}\n#define GW_VERSION_PATCH {patch}\n\
                 #define GW_VERSION (GW_VERSION_MAJOR << 16 | GW_VERSION_MINOR << 8 | GW_VERSION_PATCH)\n\n\
                 /* As a length: the text ends with NUL. */\n#define GW_NUL ((size_t)-1)"
            )),
            usize_is_size_t: true,
            style: cbindgen::Style::Type,
            documentation_style: cbindgen::DocumentationStyle::Doxy,
            line_length: 110,
            function: cbindgen::FunctionConfig { prefix: Some("GW_API".to_owned()), ..Default::default() },
            export: cbindgen::ExportConfig { exclude: vec!["GW_NUL".to_owned()], ..Default::default() },
            ..Default::default()
        }
    }

    const HEADER: &str = "\
/* libgraphile_worker: Graphile Worker's PostgreSQL job queue for C, and for languages that can call C.
 *
 * Generated from src/capi by `make header`. Do not edit.
 *
 * Rules
 *
 * - Threads: every function may be called from any thread. Only functions marked ASYNC-SIGNAL-SAFE may be called from
 *   a signal handler.
 * - Handles are opaque. The library detects NULL, freed handles, handles of another kind and those of a parent process.
 *   Calls then return GW_ERR_INVALID, GW_ERR_HANDLE or GW_ERR_FORKED; accessors return NULL, 0, -1 or false. Freeing
 *   NULL does nothing.
 * - A call that can fail returns a status. 0: success. Above 0: no error, but no result either. Below 0: an error.
 * - The last parameter `err` may be NULL. Otherwise it is always written: NULL, or an error that the caller frees with
 *   gw_error_free.
 * - Other results are written if the call returns GW_OK, and in further cases that the function names. The pointer to a
 *   result may be NULL only if the function says so. Otherwise NULL is GW_ERR_INVALID, and the call does nothing.
 * - Text is UTF-8. A text argument ends with NUL, or has a length in bytes, which may be GW_NUL. The library copies it
 *   before the call returns. A text has at most GW_TEXT_MAX bytes, and a list at most GW_LIST_MAX entries.
 * - `const char *` results are borrowed: valid until the handle that they were read from is freed. The caller owns
 *   `char *` results, and frees them with gw_string_free.
 * - Times are microseconds since 1970, UTC. Timeouts and delays are milliseconds. A timeout below 0 waits without
 *   limit, 0 does not wait.
 * - Every `user_data` has a function that frees it, or NULL. It is called once, on any thread, also if the call that
 *   received the `user_data` failed. The library uses the same pointer on several threads.
 * - The library calls functions of the caller's on its own threads, with all signals blocked. Interceptors and some
 *   observers may also run on the thread of the caller whose call causes the event. Within such a function, calls that
 *   wait (run, wait, flush, next with a timeout) return GW_ERR_DEADLOCK. No exception and no longjmp may leave it.
 * - The library installs no signal handlers (unless `listen_os_shutdown_signals` is set), no atexit functions, and
 *   writes nothing to standard output.
 * - After a fork, the child must make its own handles.
 */";

    const AFTER_INCLUDES: &str = "
#ifndef GW_API
#define GW_API
#endif
";
}
