// A job as its handler sees it, and its outcome. Knows nothing of how jobs are pulled.

package graphileworker

/*
#include "native.h"
*/
import "C"

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"
)

// Job is a running job. Its fields have the values of the start of the attempt. Tests of handlers may make one by hand.
// Such a job has no Client, and its methods succeed without effect.
type Job struct {
	// ID is the row's id, unique in its schema.
	ID int64
	// Task is the name of the job's task.
	Task string
	// Payload is JSON text, byte for byte as it is stored.
	Payload json.RawMessage
	// Key is the job's key, empty if it has none.
	Key string
	// WorkerID is the id under which the job is locked.
	WorkerID string
	// Attempts is the number of this attempt, starting at 1.
	Attempts int
	// MaxAttempts is the highest number of attempts. After the last one the job stays failed.
	MaxAttempts int
	// Priority is -32768 to 32767, lower runs first.
	Priority int
	// Revision counts how often the job was added again with its key.
	Revision int
	// RunAt is the earliest time at which the job may start.
	RunAt time.Time
	// CreatedAt is the time at which the job was first added.
	CreatedAt time.Time

	client *Client

	mu     sync.Mutex // held for one call
	native *C.gw_job_t
}

// Client returns the worker's client, for further jobs. All handlers of the worker share its connections. It is nil for a
// job made by hand.
func (j *Job) Client() *Client { return j.client }

// Snooze makes the job run again after d if this attempt succeeds. The attempt is then not counted.
//
// Errors: ErrConfig if d is negative or longer than 100 years, ErrAlreadyFinished after the handler has returned.
func (j *Job) Snooze(d time.Duration) error {
	return j.whileRunning(func(native *C.gw_job_t) error {
		status := C.gw_job_snooze(native, C.int64_t(milliseconds(d)))
		if status < 0 {
			return errorf(Status(status), "snoozing job %d for %v: %v", j.ID, d, Status(status))
		}
		return nil
	})
}

// Traceparent returns the job's W3C trace context, as the option [Traceparent] sends it; empty if there is none, or after
// the handler has returned.
func (j *Job) Traceparent() string {
	traceparent := ""
	_ = j.whileRunning(func(native *C.gw_job_t) error {
		if text := C.gw_job_traceparent(native); text != nil {
			traceparent = takeText(text)
		}
		return nil
	})
	return traceparent
}

// JSON returns all fields of the job's row, the id of its queue and its flags included.
//
// Errors: ErrAlreadyFinished after the handler has returned.
func (j *Job) JSON() (all json.RawMessage, err error) {
	err = j.whileRunning(func(native *C.gw_job_t) error {
		if text := C.gw_job_json(native); text != nil {
			all = takeBytes(text)
		}
		return nil
	})
	return all, err
}

// whileRunning calls what, unless the job has its outcome. For a job made by hand it does nothing.
func (j *Job) whileRunning(what func(native *C.gw_job_t) error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.native == nil {
		if j.client == nil {
			return nil
		}
		return errorf(ErrAlreadyFinished, "job %d has its outcome already: make this call before the handler returns", j.ID)
	}
	return what(j.native)
}

// RetryAfter wraps the error of a handler, so that the job is retried after d instead of the delay of its task. errors.Is
// and errors.As find the wrapped error, and its text becomes the job's last_error.
//
//	return graphileworker.RetryAfter(time.Minute, err)
func RetryAfter(d time.Duration, err error) error { return &retryAfter{d, err} }

type retryAfter struct {
	delay time.Duration
	err   error
}

func (r *retryAfter) Error() string {
	if r.err == nil {
		return "retry after " + r.delay.String()
	}
	return r.err.Error()
}

func (r *retryAfter) Unwrap() error { return r.err }

// itemErrors is the result of a batch's handler: one entry for each item, nil if the item is done.
type itemErrors []error

func (items itemErrors) Error() string {
	failed, first := 0, ""
	for _, err := range items {
		if err != nil {
			if failed++; failed == 1 {
				first = err.Error()
			}
		}
	}
	if failed == 1 {
		return first
	}
	return first + " (and others)"
}

// finish sets the job's outcome and frees its handle. If err is nil the job is completed, otherwise the attempt fails.
func (j *Job) finish(err error) error {
	j.mu.Lock()
	native := j.native
	j.native = nil
	j.mu.Unlock()

	var fault *C.gw_error_t
	if err == nil {
		return failure(C.gwgo_complete(native, &fault), &fault)
	}
	var items itemErrors
	if errors.As(err, &items) {
		var lent texts
		defer lent.free()
		errs := make([]*C.char, len(items))
		for i, item := range items {
			if item != nil {
				errs[i] = lent.c("error", storable(item.Error()))
			}
		}
		return failure(C.gwgo_complete_items(native, &errs[0], C.size_t(len(errs)), retryMS(items...), &fault), &fault)
	}
	text := []byte(storable(err.Error()))
	return failure(C.gwgo_fail(native, start(text), C.size_t(len(text)), retryMS(err), &fault), &fault)
}

// retryMS returns the longest delay of RetryAfter in errs, or -1 if there is none.
func retryMS(errs ...error) C.int64_t {
	longest := C.int64_t(-1)
	for _, err := range errs {
		var wish *retryAfter
		if !errors.As(err, &wish) {
			continue
		}
		if ms := C.int64_t(milliseconds(wish.delay)); ms > longest {
			longest = ms
		}
	}
	return longest
}

// carried is a context with the values of another one, that never ends. The end of Run's context must not cancel running
// jobs, which have their grace period.
type carried struct{ context.Context }

func (carried) Deadline() (time.Time, bool) { return time.Time{}, false }
func (carried) Done() <-chan struct{}       { return nil }
func (carried) Err() error                  { return nil }
