// A job to add, and its way to the library. Knows nothing of clients and connections.

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

// JobOption says how a job is to run. What no option says is as usual: it runs at once, beside others, up to 25 times.
// A value that an option is given is never taken for "nothing said": an empty key is an error, not a job without one.
type JobOption func(*spec)

// Queue puts the job in a named queue: jobs of one queue run one after the other, over all workers. 1 to 128
// characters.
func Queue(name string) JobOption { return func(s *spec) { s.queue = &name } }

// RunAt is when the job starts at the earliest, to the microsecond. Without it that is now, by the database's clock.
func RunAt(at time.Time) JobOption { return func(s *spec) { s.runAt = &at } }

// MaxAttempts is after how many failed attempts the job stays failed, 1 to 32767. Defaults to 25.
func MaxAttempts(attempts int) JobOption { return func(s *spec) { s.maxAttempts = &attempts } }

// Priority is -32768 to 32767, lower runs first. Defaults to 0.
func Priority(priority int) JobOption { return func(s *spec) { s.priority = &priority } }

// Key makes the job one of a kind: while a job of this key waits, adding another changes that one instead, as mode
// says. 1 to 512 characters.
func Key(key string, mode KeyMode) JobOption {
	return func(s *spec) { s.key, s.mode = &key, mode }
}

// Flags are marks by which workers leave jobs to others; see Config.ForbiddenFlags.
func Flags(flags ...string) JobOption {
	return func(s *spec) { s.flags = append(s.flags, flags...) }
}

// Traceparent is a W3C trace context that travels with the job, in its payload, which must be a JSON object then. A
// handler reads it with [Job.Traceparent].
func Traceparent(traceparent string) JobOption {
	return func(s *spec) { s.traceparent = &traceparent }
}

// KeyMode is what adding a job does to the waiting job of the same key.
type KeyMode int

const (
	Replace       KeyMode = C.GW_KEY_REPLACE         // everything becomes as in the new job
	PreserveRunAt KeyMode = C.GW_KEY_PRESERVE_RUN_AT // the same, but a job that was never tried keeps its time
	UnsafeDedupe  KeyMode = C.GW_KEY_UNSAFE_DEDUPE   // nothing changes, even if the job runs, or has failed for good
)

// String is the mode's name in SQL.
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

// NewJob is one of many jobs for [Client.AddJobs].
type NewJob struct {
	// Task is the name of the handler that is to run it.
	Task string
	// Payload is what the handler gets, as in [Client.AddJob].
	Payload any
	// Options say how it is to run.
	Options []JobOption
}

// spec is a job to add. What is nil is as usual.
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

// payloadText is the JSON of a payload. What is JSON already passes as it is.
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

// native makes the library's own spec, checked, to be freed by the caller.
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
		// Also says what a setter has refused.
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

// microseconds since 1970, as far as they fit: what does not, the library refuses.
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
