// The settings, and how they are passed to the library. Knows nothing of their effects.

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

// Switch is a setting that is on, off, or left at its default.
type Switch int8

const (
	Default Switch = iota // the default of the setting
	On                    // true
	Off                   // false
)

// Config has the settings of a [Worker] or a [Client]. A field with its zero value means the default. To set a value of
// zero, use Options. Durations are passed in milliseconds, rounded up.
//
// A client uses only the fields under "Database" and DryRun.
type Config struct {
	// Database: where the jobs are.

	// DatabaseURL is a URL or key=value text in libpq's format, sslmode included. Required, unless FromEnv finds
	// DATABASE_URL, or a variable of libpq such as PGHOST or PGDATABASE is set.
	DatabaseURL string `gw:"database_url"`
	// MaxPgConn is the highest number of open connections. Defaults to 20.
	MaxPgConn int `gw:"max_pg_conn"`
	// DatabaseTimeout is how long a call waits for the database. Defaults to 10 s.
	DatabaseTimeout time.Duration `gw:"database_timeout"`
	// Schema is the schema of the tables. Defaults to graphile_worker.
	Schema string `gw:"schema"`
	// Migrate installs a missing schema, and adds this library's objects to an existing one, when a worker starts.
	// Defaults to On.
	Migrate Switch `gw:"migrate"`

	// Running: how many jobs at once, and when.

	// Concurrency is the highest number of jobs that run at once, each on a goroutine. If the handlers mostly wait,
	// thousands are possible. Defaults to the number of logical CPUs.
	Concurrency int `gw:"concurrency"`
	// PollInterval is the time between two polls. A job with a RunAt starts at most this late. Defaults to 1 s.
	PollInterval time.Duration `gw:"poll_interval"`
	// UseNotificationDelivery starts new jobs at once, instead of at the next poll. Defaults to On.
	UseNotificationDelivery Switch `gw:"use_notification_delivery"`
	// UseLocalTime compares RunAt with this machine's clock instead of the database's. Defaults to Off.
	UseLocalTime Switch `gw:"use_local_time"`
	// ForbiddenFlags: the worker does not run jobs with one of these flags. None by default.
	ForbiddenFlags []string `gw:"forbidden_flags"`
	// AcceptedFlags: the worker runs only jobs with one of these flags. If empty, it runs all jobs.
	AcceptedFlags []string `gw:"accepted_flags"`
	// Crontab is crontab text, whose entries add jobs at given times. The grammar is Node's, with tz= added; a line is
	// "0 8 * * 1 report ?tz=Europe/Berlin".
	Crontab string `gw:"crontab"`

	// Stopping.

	// ShutdownGracePeriod is how long running jobs may go on after a stop before their contexts are cancelled.
	// Defaults to 5 s.
	ShutdownGracePeriod time.Duration `gw:"shutdown_grace_period"`
	// ShutdownInterruptedJobRetryDelay is after how long a job that a stop has interrupted runs again. Defaults to 30 s.
	ShutdownInterruptedJobRetryDelay time.Duration `gw:"shutdown_interrupted_job_retry_delay"`

	// Batching: rarely needed, because the worker adapts to its jobs.

	// CompleteJobBatchDelay is how long completed jobs wait, to be written together. Defaults to 0.
	CompleteJobBatchDelay time.Duration `gw:"complete_job_batch_delay"`
	// FailJobBatchDelay is how long failed jobs wait, to be written together. Defaults to 0.
	FailJobBatchDelay time.Duration `gw:"fail_job_batch_delay"`
	// LocalQueueSize is the number of jobs that each local queue holds ahead. It and the settings below turn fixed local
	// queues on. Without them the worker holds as many jobs as it can start within 20 ms. Defaults to 100.
	LocalQueueSize int `gw:"local_queue_size"`
	// LocalQueueCount is the number of local queues. Defaults to 1.
	LocalQueueCount int `gw:"local_queue_count"`
	// LocalQueueTTL is how long a job is held before all held jobs are given back. Defaults to 5 min.
	LocalQueueTTL time.Duration `gw:"local_queue_ttl"`
	// LocalQueueRefetchDelay is the longest pause after a fetch that returned few jobs. It and the next two settings turn
	// the pause on. Defaults to 100 ms.
	LocalQueueRefetchDelay time.Duration `gw:"local_queue_refetch_delay"`
	// LocalQueueRefetchThreshold is the highest number of jobs that counts as few. Defaults to 0.
	LocalQueueRefetchThreshold int `gw:"local_queue_refetch_threshold"`
	// LocalQueueRefetchMaxAbortThreshold: a random number of notifications, at most this one, ends the pause early.
	// Defaults to five times LocalQueueSize.
	LocalQueueRefetchMaxAbortThreshold int `gw:"local_queue_refetch_max_abort_threshold"`

	// MaxHeldBytes is the highest number of bytes of payloads held for jobs that wait for a goroutine. One larger job is
	// held alone. Defaults to 64 MiB.
	MaxHeldBytes int `gw:"max_held_bytes"`

	// Recovery: how the jobs of dead workers are given back.

	// WorkerRecovery selects the dead workers whose jobs are recovered. On: all, the async crate's included. Off: none.
	// Defaults to the workers of this library, or to On if another setting of recovery is made.
	WorkerRecovery Switch `gw:"worker_recovery"`
	// HeartbeatInterval is how often a worker sends its heartbeat. Defaults to 30 s.
	HeartbeatInterval time.Duration `gw:"heartbeat_interval"`
	// SweepInterval is how often the worker looks for dead workers. Defaults to 60 s.
	SweepInterval time.Duration `gw:"sweep_interval"`
	// SweepThreshold is how long after its last heartbeat a worker counts as dead. Defaults to 5 min; at least three
	// heartbeats. A worker with a longer interval counts as dead after three of its own intervals.
	SweepThreshold time.Duration `gw:"sweep_threshold"`
	// RecoveryDelay is how long a recovered job waits, doubled with each recovery. Defaults to 30 s.
	RecoveryDelay time.Duration `gw:"recovery_delay"`
	// ResilientSweepThresholdMultiplier multiplies the threshold for workers that hold a job with one of the
	// ResilientJobFlags.
	ResilientSweepThresholdMultiplier int `gw:"resilient_sweep_threshold_multiplier"`
	// ResilientJobFlags are the flags of such jobs.
	ResilientJobFlags []string `gw:"resilient_job_flags"`
	// MaxRecoveries is how often a job may be recovered. After that it fails permanently, if it was the only job of its
	// worker when the worker died. Defaults to 5.
	MaxRecoveries int `gw:"max_recoveries"`

	// DryRun (of a client) rolls every change back: calls return what they would have changed. Defaults to Off.
	DryRun Switch `gw:"dry_run"`

	// FromEnv reads DATABASE_URL and GRAPHILE_WORKER_<KEY> from the environment first. The fields and Options override
	// them. A variable whose name is almost an option's name is an ErrConfig.
	FromEnv bool
	// Options are settings by the library's own key and text, such as "poll_interval": "250ms". They override the
	// fields. Unknown keys are errors.
	Options map[string]string
}

type setting struct{ key, value string }

// decided are the settings that this package always makes itself. Go's runtime handles signals: a handler of the library
// would run on the small stacks of goroutines. Programs use signal.NotifyContext instead.
var decided = []setting{{"deliver_cancellations", "true"}, {"listen_os_shutdown_signals", "false"}}

// settings returns the settings in the library's form.
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
				return nil, errorf(ErrConfig, "%s: is always %s in Go; to stop at a signal, cancel the context of Run, for example with signal.NotifyContext", key, ours.value)
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
				return "", errorf(ErrConfig, "%q contains a comma", item)
			}
		}
		return strings.Join(value, ","), nil
	}
	panic("graphileworker: a setting of an unknown type")
}

func durationText(d time.Duration) string { return strconv.FormatInt(milliseconds(d), 10) + "ms" }

// milliseconds rounds up, so that a short duration does not become zero.
func milliseconds(d time.Duration) int64 {
	whole := d.Milliseconds()
	if d > time.Duration(whole)*time.Millisecond {
		whole++
	}
	return whole
}

// native makes the library's config. The caller must free it.
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

// configText returns the value of a key, its default included, or "" if it has none.
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

// configKeys returns the keys that the library knows.
func configKeys() (keys []string) {
	for i := 0; ; i++ {
		key := C.gw_config_key_at(C.size_t(i))
		if key == nil {
			return keys
		}
		keys = append(keys, C.GoString(key))
	}
}
