//! The keys of a configuration: type, default, and the option that each sets.

use super::failure::Failure;
use super::wakeup::Wakeup;
use crate::config::Pull;
use crate::{Cron, LocalQueueConfig, RefetchDelayConfig, WorkerOptions, WorkerRecoveryConfig};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The form of a value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Number,
    Bool,
    Duration,
    List,
    Crontab,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Number => "number",
            Self::Bool => "bool",
            Self::Duration => "duration",
            Self::List => "list",
            Self::Crontab => "crontab",
        }
    }
}

/// Whether workers, clients or both read a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    Worker,
    Client,
    Both,
}

impl For {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Client => "client",
            Self::Both => "both",
        }
    }
}

pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// The default as text; `None` if there is none or it depends on the machine.
    pub(super) default: Option<&'static str>,
    pub(super) of: For,
    pub(super) doc: &'static str,
}

const fn key(name: &'static str, kind: Kind, default: Option<&'static str>, of: For, doc: &'static str) -> Key {
    Key { name, kind, default, of, doc }
}

/// All keys. The names are those of `WorkerOptions`, where it has such an option.
#[rustfmt::skip]
pub(super) const KEYS: &[Key] = &[
    key("database_url", Kind::Text, None, For::Both, "URL or key=value text as libpq reads it, sslmode included; what it leaves out is read from the PG* environment variables, everything if this is not set"),
    key("max_pg_conn", Kind::Number, Some("20"), For::Both, "the most connections to open; a worker needs 4 for itself, one each for cron and recovery if they are configured, and 1 for handlers"),
    key("database_timeout", Kind::Duration, Some("10s"), For::Both, "how long to wait for a reply of the database; at least 100ms"),
    key("schema", Kind::Text, Some("graphile_worker"), For::Both, "the schema of the queue"),
    key("migrate", Kind::Bool, Some("true"), For::Worker, "install the schema at the start, or update the existing one"),
    key("concurrency", Kind::Number, None, For::Worker, "how many jobs run at once, 1 to 100000; default: the number of CPUs"),
    key("threads", Kind::Number, None, For::Worker, "how many threads call tasks; default: concurrency; fewer are enough if tasks return GW_TASK_PENDING"),
    key("poll_interval", Kind::Duration, Some("1s"), For::Worker, "how long to wait between polls when no notification arrives; at least 1ms"),
    key("use_notification_delivery", Kind::Bool, Some("true"), For::Worker, "listen for notifications of new jobs"),
    key("use_local_time", Kind::Bool, Some("false"), For::Worker, "compare run_at with this machine's clock instead of the database's"),
    key("shutdown_grace_period", Kind::Duration, Some("5s"), For::Worker, "how long running jobs may go on after a stop, before they are cancelled"),
    key("shutdown_interrupted_job_retry_delay", Kind::Duration, Some("30s"), For::Worker, "how long a job that a stop interrupted waits before its next run"),
    key("listen_os_shutdown_signals", Kind::Bool, Some("false"), For::Worker, "stop on SIGINT, SIGTERM and SIGHUP; installs signal handlers"),
    key("complete_job_batch_delay", Kind::Duration, Some("0"), For::Worker, "how long a completed job waits at least, so that others are written in the same statement; at most 60s"),
    key("fail_job_batch_delay", Kind::Duration, Some("0"), For::Worker, "the same for failed jobs"),
    key("local_queue_size", Kind::Number, Some("100"), For::Worker, "fetch and hold this number of jobs ahead, instead of as many as can start within 20ms; this key and each other local_queue key turn the fixed local queue on"),
    key("local_queue_count", Kind::Number, Some("1"), For::Worker, "how many local queues there are"),
    key("local_queue_ttl", Kind::Duration, Some("5m"), For::Worker, "how long a job is held before all held jobs are given back"),
    key("local_queue_refetch_delay", Kind::Duration, Some("100ms"), For::Worker, "the longest pause after a fetch that returned few jobs; each local_queue_refetch key turns the pause on"),
    key("local_queue_refetch_threshold", Kind::Number, Some("0"), For::Worker, "a pause follows a fetch that returned at most this number of jobs"),
    key("local_queue_refetch_max_abort_threshold", Kind::Number, None, For::Worker, "a random number of notifications, up to this one, ends the pause early; default: five times local_queue_size"),
    key("max_held_bytes", Kind::Number, Some("67108864"), For::Worker, "the most bytes of payloads to hold for jobs that wait for a thread; a larger job is held alone"),
    key("forbidden_flags", Kind::List, Some(""), For::Worker, "do not run jobs with one of these flags"),
    key("accepted_flags", Kind::List, Some(""), For::Worker, "run only jobs with one of these flags"),
    key("worker_recovery", Kind::Bool, None, For::Worker, "true: recover the jobs of all dead workers, the async crate's included; false: recover none; default: recover the jobs of dead workers of this library, or true if another recovery key is set"),
    key("heartbeat_interval", Kind::Duration, Some("30s"), For::Worker, "how often the worker sends its heartbeat; a longer interval counts as 30s; turns recovery on"),
    key("sweep_interval", Kind::Duration, Some("60s"), For::Worker, "how often to look for dead workers; turns recovery on"),
    key("sweep_threshold", Kind::Duration, Some("5m"), For::Worker, "how long a worker may send no heartbeat before it is dead, at least three heartbeat_intervals, and never before three of that worker's own; turns recovery on"),
    key("recovery_delay", Kind::Duration, Some("30s"), For::Worker, "how long a recovered job waits before it runs again, doubled with each recovery; turns recovery on"),
    key("resilient_sweep_threshold_multiplier", Kind::Number, Some("3"), For::Worker, "a worker that holds a job with a resilient flag is dead after this number of sweep_thresholds"),
    key("resilient_job_flags", Kind::List, Some("infrastructure_resilient"), For::Worker, "the flags of jobs whose workers may be silent for longer"),
    key("max_recoveries", Kind::Number, Some("5"), For::Worker, "how often a job may be recovered before it fails permanently, if it was alone when its worker died"),
    key("crontab", Kind::Crontab, None, For::Worker, "jobs to add by the clock: lines of crontab text"),
    key("deliver_cancellations", Kind::Bool, Some("false"), For::Worker, "gw_worker_next also delivers jobs that should end early"),
    key("dry_run", Kind::Bool, Some("false"), For::Client, "undo the client's changes, and return what they would be"),
];

pub(super) fn find(name: &str) -> Result<&'static Key, Failure> {
    KEYS.iter().find(|key| key.name == name).ok_or_else(|| {
        let close = KEYS.iter().max_by_key(|key| common(key.name, name)).expect("there are keys");
        Failure::config(format!("{name}: is not a configuration key; did you mean {}?", close.name))
    })
}

/// How many letters two names share at their beginnings and ends.
fn common(one: &str, other: &str) -> usize {
    let start = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    start + one.bytes().rev().zip(other.bytes().rev()).take_while(|(a, b)| a == b).count()
}

/// The values of a configuration. `gw_config_set` has checked the form of each.
pub(super) type Values = BTreeMap<&'static str, String>;

impl Key {
    /// Checks that a value has the key's form. Limits are checked when a worker or a client is made.
    pub(super) fn check(&self, value: &str) -> Result<(), Failure> {
        match self.kind {
            Kind::Text | Kind::List => Ok(()),
            Kind::Number => number(self.name, value).map(drop),
            Kind::Bool => boolean(self.name, value).map(drop),
            Kind::Duration => duration(self.name, value).map(drop),
            Kind::Crontab => super::cron::parse(value).map(drop),
        }
    }
}

fn number(name: &str, value: &str) -> Result<usize, Failure> {
    value.trim().parse().map_err(|_| Failure::config(format!("{name}: {value:?} is not a whole number")))
}

fn boolean(name: &str, value: &str) -> Result<bool, Failure> {
    match value.trim() {
        "true" | "on" | "yes" | "1" => Ok(true),
        "false" | "off" | "no" | "0" => Ok(false),
        _ => Err(Failure::config(format!("{name}: {value:?} is neither true nor false"))),
    }
}

/// Reads a duration: a whole number and `us`, `ms`, `s`, `m`, `h` or `d`. 0 needs no unit.
pub(super) fn duration(name: &str, value: &str) -> Result<Duration, Failure> {
    let refuse = || Failure::config(format!("{name}: {value:?} is not a duration; write 250ms, 30s, 5m, 2h or 1d"));
    let text = value.trim();
    let (number, unit) = text.split_at(text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len());
    let number: u64 = number.parse().map_err(|_| refuse())?;
    let micros = match unit.trim() {
        "" if number == 0 => 0,
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return Err(refuse()),
    };
    match number.checked_mul(micros) {
        Some(micros) if micros <= 100 * 366 * 86_400_000_000 => Ok(Duration::from_micros(micros)),
        _ => Err(Failure::config(format!("{name}: {value:?} is longer than a hundred years"))),
    }
}

fn list(value: &str) -> Vec<String> {
    value.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

/// Reads the values that are set.
pub(super) struct Reader<'a>(pub(super) &'a Values);

impl Reader<'_> {
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<usize>, Failure> {
        self.text(name).map(|value| number(name, value)).transpose()
    }

    fn small(&self, name: &str) -> Result<Option<u32>, Failure> {
        let number = self.number(name)?;
        let refuse = |number| Failure::config(format!("{name}: {number} is larger than {}", u32::MAX));
        number.map(|number| u32::try_from(number).map_err(|_| refuse(number))).transpose()
    }

    pub(super) fn boolean(&self, name: &str) -> Result<Option<bool>, Failure> {
        self.text(name).map(|value| boolean(name, value)).transpose()
    }

    pub(super) fn duration(&self, name: &str) -> Result<Option<Duration>, Failure> {
        self.text(name).map(|value| duration(name, value)).transpose()
    }

    fn list(&self, name: &str) -> Option<Vec<String>> {
        self.text(name).map(list)
    }

    pub(super) fn connections(&self, otherwise: u32) -> Result<u32, Failure> {
        Ok(self.small("max_pg_conn")?.unwrap_or(otherwise))
    }

    /// The options of a worker. `wakeup` is notified if its jobs are pulled.
    pub(super) fn options(&self, wakeup: Option<Arc<Wakeup>>) -> Result<WorkerOptions, Failure> {
        let mut options = WorkerOptions::default().listen_os_shutdown_signals(false);
        // One line for each key. A key that is not set leaves the option's default.
        macro_rules! set {
            ($read:expr, $option:ident) => {
                if let Some(value) = $read {
                    options = options.$option(value);
                }
            };
        }
        set!(self.text("database_url"), database_url);
        set!(self.small("max_pg_conn")?, max_pg_conn);
        set!(self.duration("database_timeout")?, database_timeout);
        set!(self.text("schema"), schema);
        set!(self.boolean("migrate")?, migrate);
        set!(self.number("concurrency")?, concurrency);
        set!(self.number("threads")?, threads);
        set!(self.duration("poll_interval")?, poll_interval);
        set!(self.boolean("use_notification_delivery")?, use_notification_delivery);
        set!(self.boolean("use_local_time")?, use_local_time);
        set!(self.duration("shutdown_grace_period")?, shutdown_grace_period);
        set!(self.duration("shutdown_interrupted_job_retry_delay")?, shutdown_interrupted_job_retry_delay);
        set!(self.boolean("listen_os_shutdown_signals")?, listen_os_shutdown_signals);
        set!(self.duration("complete_job_batch_delay")?, complete_job_batch_delay);
        set!(self.duration("fail_job_batch_delay")?, fail_job_batch_delay);
        set!(self.local_queue()?, local_queue);
        set!(self.number("max_held_bytes")?, max_held_bytes);
        set!(self.recovery()?, worker_recovery);
        for flag in self.list("forbidden_flags").into_iter().flatten() {
            options = options.add_forbidden_flag(flag);
        }
        for flag in self.list("accepted_flags").into_iter().flatten() {
            options = options.add_accepted_flag(flag);
        }
        if let Some(text) = self.text("crontab") {
            options = options.with_crons(super::cron::parse(text)? as Vec<Cron>);
        }
        let delivers_cancelled = self.boolean("deliver_cancellations")?.unwrap_or(false);
        set!(wakeup.map(|wakeup| Pull { notify: Arc::new(move || wakeup.notify()), delivers_cancelled }), pull);
        Ok(options)
    }

    /// The local queue; `None` if none of its keys is set.
    fn local_queue(&self) -> Result<Option<LocalQueueConfig>, Failure> {
        let (mut queue, mut refetch) = (LocalQueueConfig::default(), RefetchDelayConfig::default());
        if let Some(size) = self.number("local_queue_size")? {
            queue = queue.with_size(size);
        }
        if let Some(count) = self.number("local_queue_count")? {
            queue = queue.with_queue_count(count);
        }
        if let Some(ttl) = self.duration("local_queue_ttl")? {
            queue = queue.with_ttl(ttl);
        }
        if let Some(delay) = self.duration("local_queue_refetch_delay")? {
            refetch = refetch.with_duration(delay);
        }
        if let Some(threshold) = self.number("local_queue_refetch_threshold")? {
            refetch = refetch.with_threshold(threshold);
        }
        if let Some(most) = self.number("local_queue_refetch_max_abort_threshold")? {
            refetch = refetch.with_max_abort_threshold(most);
        }
        if self.0.keys().any(|key| key.starts_with("local_queue_refetch_")) {
            queue = queue.with_refetch_delay(refetch);
        }
        Ok(self.0.keys().any(|key| key.starts_with("local_queue_")).then_some(queue))
    }

    /// Recovery: on if any of its keys is set, unless `worker_recovery` is false. `None` leaves the default.
    fn recovery(&self) -> Result<Option<WorkerRecoveryConfig>, Failure> {
        let mut recovery = WorkerRecoveryConfig::default();
        macro_rules! set {
            ($read:expr, $field:ident) => {
                if let Some(value) = $read {
                    recovery.enabled = true;
                    recovery.$field = value;
                }
            };
        }
        set!(self.duration("heartbeat_interval")?, heartbeat_interval);
        set!(self.duration("sweep_interval")?, sweep_interval);
        set!(self.duration("sweep_threshold")?, sweep_threshold);
        set!(self.duration("recovery_delay")?, recovery_delay);
        set!(self.small("resilient_sweep_threshold_multiplier")?, resilient_sweep_threshold_multiplier);
        set!(self.list("resilient_job_flags"), resilient_job_flags);
        set!(self.small("max_recoveries")?, max_recoveries);
        let switch = self.boolean("worker_recovery")?;
        let is_set = recovery.enabled || switch.is_some();
        recovery.enabled = switch.unwrap_or(recovery.enabled);
        Ok(is_set.then_some(recovery))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_have_the_form_of_their_keys() {
        for key in KEYS {
            let default = key.default.map(|default| key.check(default));
            assert!(default.is_none_or(|check| check.is_ok()), "{}", key.name);
        }
    }

    #[test]
    fn documented_defaults_are_those_of_the_options() {
        let documented: Values = KEYS
            .iter()
            // Setting one of these turns a feature on.
            .filter(|key| !key.name.starts_with("local_queue") && key.name != "dry_run")
            .filter_map(|key| Some((key.name, key.default?.to_owned())))
            .chain([("worker_recovery", "false".to_owned())])
            .collect();
        let described = Reader(&documented).options(None).map(|options| options.described()).unwrap();
        let nothing = Reader(&Values::new()).options(None).map(|options| options.described()).unwrap();
        assert_eq!(described, nothing);
    }

    #[test]
    fn every_worker_key_sets_an_option_of_its_own() {
        let options = |key: &Key, value: &str| {
            let options = Reader(&Values::from([(key.name, value.to_owned())])).options(None);
            options.map(|options| options.described()).unwrap()
        };
        let mut seen = std::collections::HashSet::new();
        // `deliver_cancellations` has an effect only if jobs are pulled.
        for key in KEYS.iter().filter(|key| key.of != For::Client && key.name != "deliver_cancellations") {
            let (one, other) = match key.kind {
                Kind::Text | Kind::List => ("one", "other"),
                Kind::Number => ("7", "8"),
                Kind::Bool => ("false", "true"),
                Kind::Duration => ("41s", "42s"),
                Kind::Crontab => ("* * * * * one", "* * * * * one\n* * * * * other"),
            };
            assert_ne!(options(key, one), options(key, other), "{}", key.name);
            if key.kind != Kind::Bool {
                assert!(seen.insert(options(key, other)), "{}", key.name);
            }
        }
    }

    #[test]
    fn recovery_key_switches_it_on_or_off_and_default_stays_without_keys() {
        let enabled = |values: &[(&'static str, &str)]| {
            let values: Values = values.iter().map(|(key, value)| (*key, value.to_string())).collect();
            Reader(&values).recovery().ok().unwrap().map(|recovery| recovery.enabled)
        };
        assert_eq!(enabled(&[]), None);
        assert_eq!(enabled(&[("worker_recovery", "false")]), Some(false));
        assert_eq!(enabled(&[("worker_recovery", "true")]), Some(true));
        assert_eq!(enabled(&[("sweep_threshold", "5m")]), Some(true));
        assert_eq!(enabled(&[("sweep_threshold", "5m"), ("worker_recovery", "off")]), Some(false));
    }

    #[test]
    fn unknown_key_is_refused_and_the_closest_is_named() {
        let error = find("shutdown_grace").err().unwrap();
        assert!(error.message.contains("shutdown_grace_period"), "{}", error.message);
    }

    #[test]
    fn durations_have_a_unit() {
        #[track_caller]
        fn check(text: &str, micros: u64) {
            assert_eq!(duration("d", text).unwrap(), Duration::from_micros(micros));
        }
        check("0", 0);
        check("250ms", 250_000);
        check("30s", 30_000_000);
        check(" 5 m ", 300_000_000);
        check("1d", 86_400_000_000);
        for wrong in ["", "5", "s", "-1s", "1.5h", "5 days", "99999999999999999999s"] {
            assert!(duration("d", wrong).is_err(), "{wrong}");
        }
    }
}
