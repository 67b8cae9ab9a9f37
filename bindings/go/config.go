// What can be set, and how it is told to the library. Knows nothing of what the settings do.

package graphileworker

/*
#include "native.h"
*/
import "C"

import (
	"reflect"
	"sort"
	"strconv"
	"strings"
	"time"
)

// Switch is a setting that is on or off, or left as it is by default.
type Switch int8

const (
	Default Switch = iota // as the setting is when nothing is said
	On                    // true
	Off                   // false
)

// Config is the settings of a [Worker] or a [Client]. A field that has its zero value is left at its default; to set
// a zero itself, where that means something, use Options. Durations count in milliseconds, rounded up.
//
// A client looks only at the fields under "Database" and at DryRun.
type Config struct {
	// Database: where the jobs are.

	// DatabaseURL is a URL or key=value text as libpq reads it, sslmode included. Required, unless FromEnv finds
	// DATABASE_URL, or PGHOST, PGDATABASE or another PG* variable says where the database is.
	DatabaseURL string `gw:"database_url"`
	// MaxPgConn is the most connections opened at once. Defaults to 20.
	MaxPgConn int `gw:"max_pg_conn"`
	// DatabaseTimeout is how long to wait for an answer of the database. Defaults to 10 s.
	DatabaseTimeout time.Duration `gw:"database_timeout"`
	// Schema is where the tables are. Defaults to graphile_worker.
	Schema string `gw:"schema"`
	// Migrate installs the schema, or takes over the one that is there, when a worker starts. Defaults to On.
	Migrate Switch `gw:"migrate"`

	// Running: how many jobs at once, and when.

	// Concurrency is how many jobs run at once, each on a goroutine; thousands are fine where handlers wait.
	// Defaults to the number of logical CPUs.
	Concurrency int `gw:"concurrency"`
	// PollInterval bounds how late a job with a RunAt starts. Defaults to 1 s.
	PollInterval time.Duration `gw:"poll_interval"`
	// UseNotificationDelivery starts new jobs at once instead of at the next poll. Defaults to On.
	UseNotificationDelivery Switch `gw:"use_notification_delivery"`
	// UseLocalTime compares RunAt with this machine's clock instead of the database's. Defaults to Off.
	UseLocalTime Switch `gw:"use_local_time"`
	// ForbiddenFlags leaves jobs that have one of these flags to other workers.
	ForbiddenFlags []string `gw:"forbidden_flags"`
	// AcceptedFlags runs only jobs that have one of these flags.
	AcceptedFlags []string `gw:"accepted_flags"`
	// Crontab adds jobs by the clock, in Node's grammar with tz= added; a line is "0 8 * * 1 report ?tz=Europe/Berlin".
	Crontab string `gw:"crontab"`

	// Stopping.

	// ShutdownGracePeriod is how long running jobs may go on after a stop before their contexts are cancelled.
	// Defaults to 5 s.
	ShutdownGracePeriod time.Duration `gw:"shutdown_grace_period"`
	// ShutdownInterruptedJobRetryDelay is when a job that was cut short by a stop runs again. Defaults to 30 s.
	ShutdownInterruptedJobRetryDelay time.Duration `gw:"shutdown_interrupted_job_retry_delay"`

	// Batching: rarely needed, since the worker adapts to its jobs by itself.

	// CompleteJobBatchDelay lets successes wait for each other, to be written together. Defaults to 0.
	CompleteJobBatchDelay time.Duration `gw:"complete_job_batch_delay"`
	// FailJobBatchDelay lets failures wait for each other. Defaults to 0.
	FailJobBatchDelay time.Duration `gw:"fail_job_batch_delay"`
	// LocalQueueSize holds so many jobs ahead. By default their number follows how long jobs take.
	LocalQueueSize int `gw:"local_queue_size"`
	// LocalQueueCount is for configurations of other workers that have it.
	LocalQueueCount int `gw:"local_queue_count"`
	// LocalQueueTTL is how long a job is held before it goes back to the other workers.
	LocalQueueTTL time.Duration `gw:"local_queue_ttl"`
	// LocalQueueRefetchDelay holds back the next fetch after one that brought few jobs.
	LocalQueueRefetchDelay time.Duration `gw:"local_queue_refetch_delay"`
	// LocalQueueRefetchThreshold is how many jobs are few.
	LocalQueueRefetchThreshold int `gw:"local_queue_refetch_threshold"`
	// LocalQueueRefetchMaxAbortThreshold is how many new jobs end that delay at most.
	LocalQueueRefetchMaxAbortThreshold int `gw:"local_queue_refetch_max_abort_threshold"`

	// MaxHeldBytes is how many bytes of payloads are held at most for jobs that wait for a goroutine. One larger job is
	// held alone. Defaults to 64 MiB.
	MaxHeldBytes int `gw:"max_held_bytes"`

	// Recovery: how the jobs of dead workers come back.

	// WorkerRecovery says whose jobs are recovered: On, those of all dead workers, the async crate's included; Off, none.
	// Defaults to those of dead workers of this library, and to On once another setting of recovery is made.
	WorkerRecovery Switch `gw:"worker_recovery"`
	// HeartbeatInterval is how often a worker says that it lives. Defaults to 30 s.
	HeartbeatInterval time.Duration `gw:"heartbeat_interval"`
	// SweepInterval is how often dead workers are looked for. Defaults to 60 s.
	SweepInterval time.Duration `gw:"sweep_interval"`
	// SweepThreshold is after what silence a worker is dead. Defaults to 5 min; at least three heartbeats. A worker with a
	// longer interval is dead after three of its own.
	SweepThreshold time.Duration `gw:"sweep_threshold"`
	// RecoveryDelay is how long a recovered job waits, doubled each time. Defaults to 30 s.
	RecoveryDelay time.Duration `gw:"recovery_delay"`
	// ResilientSweepThresholdMultiplier is how many thresholds workers may be silent that hold a job with one of the
	// ResilientJobFlags.
	ResilientSweepThresholdMultiplier int `gw:"resilient_sweep_threshold_multiplier"`
	// ResilientJobFlags are the flags of such jobs.
	ResilientJobFlags []string `gw:"resilient_job_flags"`
	// MaxRecoveries is after how many deaths of its worker a job that is proven to be the cause fails for good.
	// Defaults to 5.
	MaxRecoveries int `gw:"max_recoveries"`

	// DryRun (of a client) undoes every change: calls answer what would have happened. Defaults to Off.
	DryRun Switch `gw:"dry_run"`

	// FromEnv reads DATABASE_URL and GRAPHILE_WORKER_<KEY> of the environment first. What is set here wins. A variable
	// whose name is nearly an option's is ErrConfig.
	FromEnv bool
	// Options are settings by the library's own key and text, such as "poll_interval": "250ms"; they win over the
	// fields. Unknown keys are errors.
	Options map[string]string
}

type setting struct{ key, value string }

// decided are the settings that this package makes itself, always. Signals belong to Go's runtime: a handler that the
// library installed would run on small stacks of Go. Use signal.NotifyContext.
var decided = []setting{{"deliver_cancellations", "true"}, {"listen_os_shutdown_signals", "false"}}

// settings is what is set, as the library reads it.
func (c *Config) settings() ([]setting, error) {
	var all []setting
	fields := reflect.ValueOf(c).Elem()
	for i := 0; i < fields.NumField(); i++ {
		key, field := fields.Type().Field(i).Tag.Get("gw"), fields.Field(i)
		if key == "" || field.IsZero() {
			continue
		}
		value, err := settingText(field.Interface())
		if err != nil {
			return nil, errorf(ErrConfig, "%s: %v", key, err)
		}
		all = append(all, setting{key, value})
	}
	options := len(all)
	for key, value := range c.Options {
		for _, ours := range decided {
			if key == ours.key && value != ours.value {
				return nil, errorf(ErrConfig, "%s: is %s in Go; to stop at a signal, cancel the context of Run, as with signal.NotifyContext", key, ours.value)
			}
		}
		all = append(all, setting{key, value})
	}
	sort.Slice(all[options:], func(i, j int) bool { return all[options+i].key < all[options+j].key })
	return append(all, decided...), nil
}

func settingText(value any) (string, error) {
	switch value := value.(type) {
	case string:
		return value, nil
	case int:
		return strconv.Itoa(value), nil
	case time.Duration:
		return durationText(value), nil
	case Switch:
		return strconv.FormatBool(value == On), nil
	case []string:
		for _, item := range value {
			if strings.Contains(item, ",") {
				return "", errorf(ErrConfig, "%q has a comma in it", item)
			}
		}
		return strings.Join(value, ","), nil
	}
	panic("graphileworker: a setting of an unknown type")
}

func durationText(d time.Duration) string { return strconv.FormatInt(milliseconds(d), 10) + "ms" }

// milliseconds rounds up: what is short stays longer than nothing.
func milliseconds(d time.Duration) int64 {
	whole := d.Milliseconds()
	if d > time.Duration(whole)*time.Millisecond {
		whole++
	}
	return whole
}

// native makes the library's own config, to be freed by the caller.
func (c Config) native() (config *C.gw_config_t, err error) {
	if abiError != nil {
		return nil, abiError
	}
	settings, err := c.settings()
	if err != nil {
		return nil, err
	}
	config = C.gw_config_new()
	defer func() {
		if err != nil {
			C.gw_config_free(config)
		}
	}()
	if c.FromEnv {
		var native *C.gw_error_t
		if err := failure(C.gw_config_load_env(config, &native), &native); err != nil {
			return nil, err
		}
	}
	var lent texts
	defer lent.free()
	for _, set := range settings {
		key, value := lent.c("the key of an option", set.key), lent.c(set.key, set.value)
		if lent.err != nil {
			return nil, lent.err
		}
		var native *C.gw_error_t
		if err := failure(C.gw_config_set(config, key, value, &native), &native); err != nil {
			return nil, err
		}
	}
	return config, nil
}

// configText is the value in force for a key, empty if there is none.
func configText(config *C.gw_config_t, key string) (string, error) {
	var (
		lent   texts
		value  *C.char
		native *C.gw_error_t
	)
	defer lent.free()
	status := C.gw_config_get(config, lent.c("key", key), &value, &native)
	if status != C.GW_OK {
		return "", failure(status, &native)
	}
	return takeText(value), nil
}

// configKeys are the keys that the library knows.
func configKeys() (keys []string) {
	for i := 0; ; i++ {
		key := C.gw_config_key_at(C.size_t(i))
		if key == nil {
			return keys
		}
		keys = append(keys, C.GoString(key))
	}
}
