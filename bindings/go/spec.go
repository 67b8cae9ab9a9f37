// A job to add, and its form in the library. Knows nothing of clients and connections.

package graphileworker

/*
#include "native.h"
*/
import "C"

import (
	"bytes"
	"encoding/json"
	"math"
	"time"
)

// JobOption sets how a job runs. Without options it runs at once, in parallel with other jobs, at most 25 times. A zero
// value is not the same as no option: an empty key is an error, not a job without a key.
type JobOption func(*spec)

// Queue puts the job into a named queue: jobs of one queue run one after the other, across all workers. 1 to 128
// characters.
func Queue(name string) JobOption { return func(s *spec) { s.queue = &name } }

// RunAt is the earliest time at which the job starts, to the microsecond. Defaults to now, by the database's clock.
func RunAt(at time.Time) JobOption { return func(s *spec) { s.runAt = &at } }

// MaxAttempts is the highest number of attempts, 1 to 32767. After the last one the job stays failed. Defaults to 25.
func MaxAttempts(attempts int) JobOption { return func(s *spec) { s.maxAttempts = &attempts } }

// Priority is -32768 to 32767, lower runs first. Defaults to 0.
func Priority(priority int) JobOption { return func(s *spec) { s.priority = &priority } }

// Key gives the job a unique key. If a job with this key waits, adding another one changes the waiting job instead; mode
// sets how. 1 to 512 characters.
func Key(key string, mode KeyMode) JobOption {
	return func(s *spec) { s.key, s.mode = &key, mode }
}

// Flags are marks by which workers select jobs; see Config.ForbiddenFlags and Config.AcceptedFlags.
func Flags(flags ...string) JobOption {
	return func(s *spec) { s.flags = append(s.flags, flags...) }
}

// Traceparent is a W3C trace context, which is stored in the job's payload. The payload must be a JSON object then. A
// handler reads it with [Job.Traceparent].
func Traceparent(traceparent string) JobOption {
	return func(s *spec) { s.traceparent = &traceparent }
}

// KeyMode is what adding a job does to the waiting job with the same key.
type KeyMode int

const (
	Replace       KeyMode = C.GW_KEY_REPLACE         // all fields are replaced by those of the new job
	PreserveRunAt KeyMode = C.GW_KEY_PRESERVE_RUN_AT // the same, but a job that has not been attempted keeps its RunAt
	UnsafeDedupe  KeyMode = C.GW_KEY_UNSAFE_DEDUPE   // nothing changes, even if the job runs or has failed permanently
)

// String returns the mode's name in SQL.
func (m KeyMode) String() string {
	switch m {
	case Replace:
		return "replace"
	case PreserveRunAt:
		return "preserve_run_at"
	case UnsafeDedupe:
		return "unsafe_dedupe"
	}
	return "unknown"
}

// NewJob is one job for [Client.AddJobs].
type NewJob struct {
	// Task is the name of the task.
	Task string
	// Payload is the job's payload, as in [Client.AddJob].
	Payload any
	// Options set how the job runs.
	Options []JobOption
}

// spec is a job to add. A nil field means the default.
type spec struct {
	task        string
	payload     []byte
	queue       *string
	runAt       *time.Time
	maxAttempts *int
	priority    *int
	key         *string
	mode        KeyMode
	flags       []string
	traceparent *string
}

func newSpec(task string, payload any, options []JobOption) (*spec, error) {
	text, err := payloadText(payload)
	if err != nil {
		return nil, err
	}
	s := &spec{task: task, payload: text}
	for _, option := range options {
		option(s)
	}
	return s, nil
}

// payloadText returns the JSON of a payload. A json.RawMessage is not changed.
func payloadText(payload any) ([]byte, error) {
	switch payload := payload.(type) {
	case nil:
		return []byte("{}"), nil
	case json.RawMessage:
		return payload, nil
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(payload); err != nil {
		return nil, &Error{Status: ErrJSON, Message: "payload: " + err.Error()}
	}
	return bytes.TrimSuffix(text.Bytes(), []byte("\n")), nil
}

// native makes the library's form of the job and checks it. The caller must free it.
func (s *spec) native() (*C.gw_spec_t, error) {
	if abiError != nil {
		return nil, abiError
	}
	var lent texts
	defer lent.free()
	native := C.gw_spec_new(lent.c("task", s.task))
	s.fill(native, &lent)
	err := lent.err
	if err == nil {
		// Also returns the errors of the setters in fill.
		var fault *C.gw_error_t
		err = failure(C.gw_spec_check(native, &fault), &fault)
	}
	if err != nil {
		C.gw_spec_free(native)
		return nil, err
	}
	return native, nil
}

func (s *spec) fill(native *C.gw_spec_t, lent *texts) {
	C.gw_spec_set_payload(native, start(s.payload), C.size_t(len(s.payload)))
	if s.queue != nil {
		C.gw_spec_set_queue(native, lent.c("queue", *s.queue))
	}
	if s.runAt != nil {
		C.gw_spec_set_run_at(native, C.int64_t(microseconds(*s.runAt)))
	}
	if s.maxAttempts != nil {
		C.gw_spec_set_max_attempts(native, int32Of(*s.maxAttempts))
	}
	if s.priority != nil {
		C.gw_spec_set_priority(native, int32Of(*s.priority))
	}
	if s.key != nil {
		C.gw_spec_set_key(native, lent.c("key", *s.key), int32Of(int(s.mode)))
	}
	for _, flag := range s.flags {
		C.gw_spec_add_flag(native, lent.c("flag", flag))
	}
	if s.traceparent != nil {
		C.gw_spec_set_traceparent(native, lent.c("traceparent", *s.traceparent))
	}
}

// microseconds returns the microseconds since 1970. A time that does not fit becomes the nearest limit, which the library
// refuses.
func microseconds(t time.Time) int64 {
	const second = 1000000
	if t.Unix() > math.MaxInt64/second-1 {
		return math.MaxInt64
	}
	if t.Unix() < math.MinInt64/second+1 {
		return math.MinInt64
	}
	return t.UnixMicro()
}
