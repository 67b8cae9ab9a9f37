// A job as its handler sees it, and how it gets its outcome. Knows nothing of where it came from.

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

// Job is a job that is being run. Its fields are as they were when the attempt began. Tests of handlers may make one
// by hand: such a job has no Client, and takes every wish.
type Job struct {
	// ID is the row's id, unique in its schema.
	ID int64
	// Task is the name of the handler.
	Task string
	// Payload is JSON text, byte for byte as it is stored.
	Payload json.RawMessage
	// Key is the job's key, empty if it has none.
	Key string
	// WorkerID is the id under which the job is locked.
	WorkerID string
	// Attempts is the number of this attempt, from 1.
	Attempts int
	// MaxAttempts is after how many failed attempts the job stays failed.
	MaxAttempts int
	// Priority is -32768 to 32767, lower runs first.
	Priority int
	// Revision counts how often the job was added again under its key.
	Revision int
	// RunAt is when the job was to start at the earliest.
	RunAt time.Time
	// CreatedAt is when it was first added.
	CreatedAt time.Time

	client *Client

	mu     sync.Mutex // held for one call
	native *C.gw_job_t
}

// Client adds further jobs, on connections that all handlers of the worker share. It is nil for a job made by hand.
func (j *Job) Client() *Client { return j.client }

// Snooze asks for the job to be run again after d, in case this attempt succeeds, without counting the attempt.
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

// Traceparent is the W3C trace context that came with the job, as the option [Traceparent] sends it; empty if none did.
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

// JSON is the whole row of the job, the id of its queue and its flags included.
func (j *Job) JSON() (all json.RawMessage, err error) {
	err = j.whileRunning(func(native *C.gw_job_t) error {
		if text := C.gw_job_json(native); text != nil {
			all = takeBytes(text)
		}
		return nil
	})
	return all, err
}

// whileRunning calls what unless the job has its outcome; for a job made by hand it does nothing.
func (j *Job) whileRunning(what func(native *C.gw_job_t) error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.native == nil {
		if j.client == nil {
			return nil
		}
		return errorf(ErrAlreadyFinished, "job %d has its outcome already: ask before the handler returns", j.ID)
	}
	return what(j.native)
}

// RetryAfter wraps the error of a handler so that the job is tried again after d, instead of after the delay of its
// task. The wrapped error is what errors.Is, errors.As and the job's last_error see.
//
//	return graphileworker.RetryAfter(time.Minute, err)
func RetryAfter(d time.Duration, err error) error { return &retryAfter{d, err} }

type retryAfter struct {
	delay time.Duration
	err   error
}

func (r *retryAfter) Error() string {
	if r.err == nil {
		return "to be tried again after " + r.delay.String()
	}
	return r.err.Error()
}

func (r *retryAfter) Unwrap() error { return r.err }

// itemErrors is how the handler of a batch says which of its items failed: one entry for each, nil if it is done.
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

// finish gives the job its outcome and lets go of it: it is done if err is nil, and fails otherwise.
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

// retryMS is the longest of the delays that were asked for, -1 if none was.
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

// carried is a context that hands on the values of another, and never ends: stopping a worker does not cancel its
// jobs, which have their grace period.
type carried struct{ context.Context }

func (carried) Deadline() (time.Time, bool) { return time.Time{}, false }
func (carried) Done() <-chan struct{}       { return nil }
func (carried) Err() error                  { return nil }
