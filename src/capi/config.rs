//! Configurations: keys and values as text.

use super::boundary::{put, read, wanted};
use super::call::call;
use super::error::gw_error_t;
use super::failure::Failure;
use super::handle::{self, KindSlab, Value, give};
use super::keys::{self, KEYS, Values};
use super::status::{GW_NOT_FOUND, GW_OK, gw_status_t};
use super::text;
use log::warn;
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::ffi::{CString, c_char};
use std::ptr;
use std::sync::OnceLock;

/// A configuration. Thread-safe. Clients and workers copy it. The caller frees it with `gw_config_free`.
pub struct gw_config_t;

#[derive(Default)]
pub(super) struct ConfigValue(Mutex<Values>);

impl Value for ConfigValue {
    const KIND: u64 = 3;
    const NAME: &'static str = "configuration";

    fn slab() -> &'static KindSlab<Self> {
        static SLAB: KindSlab<ConfigValue> = KindSlab::new();
        &SLAB
    }
}

impl ConfigValue {
    pub(super) fn values(&self) -> Values {
        self.0.lock().clone()
    }
}

/// Makes a configuration without any key set. The caller frees it with `gw_config_free`. NULL if no handles are left.
#[unsafe(no_mangle)]
pub extern "C" fn gw_config_new() -> *mut gw_config_t {
    read(ptr::null_mut(), || Ok(give(ConfigValue::default())))
}

/// Sets a key; both texts are copied.
///
/// Durations have a unit (`250ms`, `30s`, `5m`, `2h`, `1d`). Booleans are `true` or `false` (also on and off, yes and
/// no, 1 and 0). Lists are separated by commas.
///
/// GW_ERR_CONFIG for an unknown key, naming the closest one, or for a value of another form. The limits of a value are
/// checked when a client or a worker is made of the configuration.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_config_set(
    config: *mut gw_config_t,
    key: *const c_char,
    value: *const c_char,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    call(err, || {
        let config = handle::look::<ConfigValue, _>(config)?;
        // SAFETY: see "Rules" in the header.
        let (key, value) = unsafe { (text::required("key", key)?, text::required("value", value)?) };
        let key = keys::find(key)?;
        key.check(value)?;
        config.0.lock().insert(key.name, value.to_owned());
        Ok(GW_OK)
    })
}

/// Writes the value of a key to `value`, or its default if the key is not set. GW_NOT_FOUND if it has neither. The
/// caller frees `value` with `gw_string_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_config_get(
    config: *const gw_config_t,
    key: *const c_char,
    value: *mut *mut c_char,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    call(err, || {
        let config = handle::look::<ConfigValue, _>(config)?;
        wanted("value", value)?;
        // SAFETY: see "Rules" in the header.
        let key = keys::find(unsafe { text::required("key", key) }?)?;
        let set = config.0.lock().get(key.name).cloned();
        let Some(found) = set.or_else(|| key.default.map(str::to_owned)) else { return Ok(GW_NOT_FOUND) };
        // SAFETY: see "Rules" in the header.
        unsafe { put(value, text::give(found)) };
        Ok(GW_OK)
    })
}

/// Sets keys from the environment: `database_url` from DATABASE_URL unless that is empty, and each key from the
/// variable GRAPHILE_WORKER_ with the key in capitals (GRAPHILE_WORKER_CONCURRENCY).
///
/// A name that differs from such a variable by at most two letters is GW_ERR_CONFIG, and the message names the key. Any
/// other unknown GRAPHILE_WORKER_ variable is logged as a warning. Without `database_url`, the PG* variables give the
/// database. Do not call this while other threads change the environment.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_config_load_env(config: *mut gw_config_t, err: *mut *mut gw_error_t) -> gw_status_t {
    call(err, || {
        let config = handle::look::<ConfigValue, _>(config)?;
        super::log::install();
        std::env::vars_os().try_for_each(|(name, _)| check_variable(&name.to_string_lossy()))?;
        let mut found = Values::new();
        for key in KEYS {
            let own = variable(key);
            let names = [Some(own.as_str()), (key.name == "database_url").then_some("DATABASE_URL")];
            // Deployment files set an empty URL to leave it out.
            let counts = |value: &String| key.name != "database_url" || !value.is_empty();
            let set =
                names.into_iter().flatten().find_map(|name| Some((name, std::env::var(name).ok().filter(counts)?)));
            if let Some((name, value)) = set {
                key.check(&value).map_err(|failure| failure.within(name))?;
                found.insert(key.name, value);
            }
        }
        config.0.lock().extend(found);
        Ok(GW_OK)
    })
}

/// The prefix of the variables of all keys.
const PREFIX: &str = "GRAPHILE_WORKER_";

/// Variables with this prefix that are not options. This library's build and tests and Node's worker use some.
/// Kubernetes sets such names in every container beside a service named graphile-worker.
const NO_OPTIONS: [&str; 8] = ["LIBRARY", "PREFIX", "BIN", "DOORS", "BLESS", "EXITS", "DEBUG", "PAYLOAD_FORMAT"];
const NO_OPTIONS_BEGIN: [&str; 5] = ["JOB_", "TASK_", "ADMIN_", "SERVICE_", "PORT"];

/// How many letters of a name may be wrong, missing, added or exchanged if it still counts as a misspelled option.
const CLOSE: usize = 2;

fn variable(key: &keys::Key) -> String {
    format!("{PREFIX}{}", key.name.to_ascii_uppercase())
}

/// Refuses a variable whose name is close to an option's. Other programs share the environment, so any other unknown
/// name is only logged.
fn check_variable(name: &str) -> Result<(), Failure> {
    // The prefix itself may be misspelled.
    if !name.to_ascii_uppercase().starts_with("GRAPHILE") {
        return Ok(());
    }
    let rest = name.strip_prefix(PREFIX);
    if rest
        .is_some_and(|rest| NO_OPTIONS.contains(&rest) || NO_OPTIONS_BEGIN.iter().any(|begin| rest.starts_with(begin)))
    {
        return Ok(());
    }
    let distance = |key: &keys::Key| strsim::damerau_levenshtein(&name.to_ascii_uppercase(), &variable(key));
    let nearest = KEYS.iter().min_by_key(|key| distance(key)).expect("there are keys");
    let meant = variable(nearest);
    if name == meant {
        return Ok(());
    }
    if distance(nearest) <= CLOSE {
        return Err(Failure::config(format!("{name}: is not a known environment variable; did you mean {meant}?")));
    }
    static WARNED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if rest.is_some() && WARNED.lock().insert(name.to_owned()) {
        warn!(variable = name, nearest = meant.as_str(); "unknown environment variable ignored");
    }
    Ok(())
}

/// The key at `index`, from 0; NULL after the last. Static text.
#[unsafe(no_mangle)]
pub extern "C" fn gw_config_key_at(index: usize) -> *const c_char {
    read(ptr::null(), || Ok(KEYS.get(index).map_or(ptr::null(), |key| described()[key.name].0.as_ptr())))
}

/// A description of a key as a JSON object: key, type (text, number, bool, duration, list, crontab), default (null if
/// it has none), for (worker, client, both), doc. NULL for an unknown key. Static text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_config_key_info(key: *const c_char) -> *const c_char {
    read(ptr::null(), || {
        // SAFETY: see "Rules" in the header.
        let key = unsafe { text::required("key", key) }?;
        Ok(described().get(key).map_or(ptr::null(), |(_, info)| info.as_ptr()))
    })
}

/// Names and descriptions of all keys for C, made at the first call.
fn described() -> &'static HashMap<&'static str, (CString, CString)> {
    static DESCRIBED: OnceLock<HashMap<&'static str, (CString, CString)>> = OnceLock::new();
    DESCRIBED.get_or_init(|| {
        let entry = |key: &keys::Key| {
            let info = serde_json::json!({ "key": key.name, "type": key.kind.name(), "default": key.default,
                "for": key.of.name(), "doc": key.doc });
            (key.name, (text::owned(key.name), text::owned(info.to_string())))
        };
        KEYS.iter().map(entry).collect()
    })
}

/// Frees a configuration. NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_config_free(config: *mut gw_config_t) {
    read((), || handle::free::<ConfigValue, _>(config));
}

#[cfg(test)]
mod tests {
    use super::{KEYS, check_variable, variable};

    #[test]
    fn misspelled_variable_is_refused_and_the_option_is_named() {
        for (name, meant) in [
            ("GRAPHILE_WORKER_CONCURENCY", "GRAPHILE_WORKER_CONCURRENCY"),
            ("GRAPHILE_WORKER_CONCURRENCY_", "GRAPHILE_WORKER_CONCURRENCY"),
            ("GRAPHILE_WORKER_concurrency", "GRAPHILE_WORKER_CONCURRENCY"),
            ("GRAPHILE_WORKERS_SCHEMA", "GRAPHILE_WORKER_SCHEMA"),
            ("GRAPHILEWORKER_SCHEMA", "GRAPHILE_WORKER_SCHEMA"),
            ("GRAPHILE_WORKER_SHCEMA", "GRAPHILE_WORKER_SCHEMA"),
            ("GRAPHILE_WORKER_POLLINTERVAL", "GRAPHILE_WORKER_POLL_INTERVAL"),
        ] {
            let refusal = check_variable(name).expect_err(name).message;
            assert_eq!(refusal, format!("{name}: is not a known environment variable; did you mean {meant}?"));
        }
    }

    #[test]
    fn options_and_variables_of_other_programs_are_accepted() {
        KEYS.iter().for_each(|key| check_variable(&variable(key)).unwrap());
        for name in [
            "GRAPHILE_WORKER_SERVICE_HOST",
            "GRAPHILE_WORKER_PORT_5432_TCP_ADDR",
            "GRAPHILE_WORKER_JOB_ID",
            "GRAPHILE_WORKER_DEBUG",
            "GRAPHILE_WORKER_MY_OWN",
            "GRAPHILE_LOGGER_DEBUG",
            "CONCURENCY",
        ] {
            check_variable(name).expect(name);
        }
    }
}
