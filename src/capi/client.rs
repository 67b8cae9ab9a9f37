//! Clients: making one, migrating, adding and removing jobs.

use super::boundary::{put, read, wanted};
use super::call::call;
use super::config::{ConfigValue, gw_config_t};
use super::error::gw_error_t;
use super::failure::Failure;
use super::handle::{self, KindSlab, Use, Value};
use super::keys::Reader;
use super::process::{SignalsBlocked, prepare};
use super::spec::{SpecValue, gw_spec_t};
use super::status::{GW_NOT_FOUND, GW_OK, gw_status_t};
use super::text;
use crate::client::DEADLINE;
use crate::db::given_or_environment;
use crate::{Schema, WorkerUtils};
use std::ffi::c_char;
use std::time::Duration;

/// Adds and manages jobs, on database connections of its own. Thread-safe. The caller frees it with `gw_client_free`.
///
/// Each call blocks until the database replies, at most for `database_timeout` (default 10 s).
pub struct gw_client_t;

pub(super) struct ClientValue {
    pub(super) utils: WorkerUtils,
    /// Belongs to a worker and is freed with it: `gw_client_free` does nothing.
    pub(super) borrowed: bool,
}

impl Value for ClientValue {
    const KIND: u64 = 5;
    const NAME: &'static str = "client";

    fn slab() -> &'static KindSlab<Self> {
        static SLAB: KindSlab<ClientValue> = KindSlab::new();
        &SLAB
    }
}

pub(super) fn look(client: *const gw_client_t) -> Result<Use<ClientValue>, Failure> {
    handle::look(client)
}

/// Makes a client, connects once to check address and password, and writes the client to `out`. The configuration is
/// copied. Blocks on the network.
///
/// Reads the keys `database_url`, `schema`, `max_pg_conn` (default 10 here), `database_timeout` and `dry_run`. With
/// `dry_run`, calls that change jobs undo their change and return what it would be; adding jobs and migrating return
/// GW_ERR_STATE. The caller frees the client with `gw_client_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_client_new(
    config: *const gw_config_t,
    out: *mut *mut gw_client_t,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    call(err, || {
        wanted("out", out)?;
        prepare();
        let values = handle::look::<ConfigValue, _>(config)?.values();
        let values = Reader(&values);
        let missing = "database_url: missing; set it, to \"\" for the defaults of libpq";
        let url = given_or_environment(values.text("database_url"), missing)?;
        let schema = values.text("schema").map(Schema::new).transpose()?.unwrap_or_default();
        let _blocked = SignalsBlocked::now();
        let timeout = values.duration("database_timeout")?.unwrap_or(DEADLINE);
        let mut utils = WorkerUtils::connect_within(url, values.connections(10)?, timeout)?.schema(schema);
        if values.boolean("dry_run")?.unwrap_or(false) {
            utils = utils.dry_run();
        }
        // SAFETY: see "Rules" in the header.
        unsafe { put(out, handle::try_give(ClientValue { utils, borrowed: false })?) };
        Ok(GW_OK)
    })
}

/// Frees a client. NULL does nothing, nor does the borrowed client of a worker.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_client_free(client: *mut gw_client_t) {
    read((), || if look(client)?.borrowed { Ok(()) } else { handle::free::<ClientValue, _>(client) });
}

/// Checks that the database replies within `timeout_ms` milliseconds. 0 counts as 1 ms; below 0 means
/// `database_timeout`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_client_check(
    client: *mut gw_client_t,
    timeout_ms: i64,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    call(err, || {
        let client = look(client)?;
        let utils = client.utils.clone();
        let utils = match u64::try_from(timeout_ms) {
            Ok(millis) => utils.timeout(Duration::from_millis(millis.clamp(1, 1 << 40))),
            Err(_) => utils,
        };
        utils.ping()?;
        Ok(GW_OK)
    })
}

/// Installs the schema, or updates the existing one. Safe to repeat, also from many processes at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_client_migrate(client: *mut gw_client_t, err: *mut *mut gw_error_t) -> gw_status_t {
    call(err, || {
        look(client)?.utils.migrate()?;
        Ok(GW_OK)
    })
}

/// Adds a job. Its id is written to `id`, unless `id` is NULL. The caller keeps `spec`.
///
/// - GW_ERR_CONFIG names a field and its limit; nothing was sent.
/// - GW_ERR_CONNECT, GW_ERR_DATABASE_TIMEOUT: the job was not added.
/// - GW_ERR_UNKNOWN_OUTCOME: the job may or may not have been added. The reply to the commit was lost, and the library
///   could not query the outcome in time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_client_add_job(
    client: *mut gw_client_t,
    spec: *const gw_spec_t,
    id: *mut i64,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    call(err, || {
        let client = look(client)?;
        let job = handle::look::<SpecValue, _>(spec)?.checked()?;
        let added = client.utils.add_raw_jobs(vec![job])?;
        // SAFETY: see "Rules" in the header.
        unsafe { put(id, added[0].id()) };
        Ok(GW_OK)
    })
}

/// Adds `count` jobs, all or none. Their ids are written to `ids` in the order of `specs`, unless `ids` is NULL; `ids`
/// has room for `count` numbers. `count` is at most GW_LIST_MAX. Errors as for `gw_client_add_job`; the message names
/// the job's place in the list, from 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_client_add_jobs(
    client: *mut gw_client_t,
    specs: *const *const gw_spec_t,
    count: usize,
    ids: *mut i64,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    call(err, || {
        let client = look(client)?;
        // SAFETY: see "Rules" in the header.
        let specs = unsafe { text::list("specs", specs, count) }?;
        let jobs = specs.iter().enumerate().map(|(place, spec)| {
            let checked = handle::look::<SpecValue, _>(*spec).and_then(|spec| spec.checked());
            checked.map_err(|failure| failure.within(format_args!("job {place}")))
        });
        let added = client.utils.add_raw_jobs(jobs.collect::<Result<_, _>>()?)?;
        if !ids.is_null() {
            for (place, job) in added.iter().enumerate() {
                // SAFETY: the caller promises room for `count` ids.
                unsafe { *ids.add(place) = job.id() };
            }
        }
        Ok(GW_OK)
    })
}

/// Removes the job with a key. If the job runs, it keeps running and is not retried. GW_NOT_FOUND if no job has the key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_client_remove_job(
    client: *mut gw_client_t,
    key: *const c_char,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    call(err, || {
        let client = look(client)?;
        // SAFETY: see "Rules" in the header.
        let key = unsafe { text::required("key", key) }?;
        Ok(if client.utils.remove_job(key)? { GW_OK } else { GW_NOT_FOUND })
    })
}
