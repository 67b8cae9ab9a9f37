// Registers the handlers of tasks: plain, with typed payloads, for batches, with limits. Knows nothing of running them.

package graphileworker

/*
#include "native.h"
*/
import "C"

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// HandlerFunc runs one attempt of a job. If it returns nil, the job is completed. If it returns an error, panics or calls
// runtime.Goexit, the attempt fails. The job keeps the error's text as its last_error, and is retried after e^attempts
// seconds or its task's backoff, until its MaxAttempts.
//
// The context is cancelled when the task's timeout is over, and when a stop is aborted or its grace period is over. Its
// values are those of the context of Run. If the handler then returns soon, its job is retried, and after a stop the
// attempt is not counted. If the handler does not return, the worker does not wait for it.
//
// A job runs at least once: make handlers safe to repeat.
type HandlerFunc func(ctx context.Context, job *Job) error

// TaskOption is an option of one task.
type TaskOption struct{ key, value string }

// Timeout is how long a job may run. After it the job's context is cancelled, and the attempt counts as failed. No limit
// by default.
func Timeout(d time.Duration) TaskOption { return TaskOption{"timeout", durationText(d)} }

// FixedBackoff waits d before each retry.
func FixedBackoff(d time.Duration) TaskOption {
	return TaskOption{"backoff", "fixed " + durationText(d)}
}

// LinearBackoff waits step after the first failed attempt, twice that after the second, and so on, at most longest.
func LinearBackoff(step, longest time.Duration) TaskOption {
	return TaskOption{"backoff", "linear " + durationText(step) + " " + durationText(longest)}
}

// ExponentialBackoff waits first after the first failed attempt, and twice as long after each further one, at most
// longest. A task without a backoff option waits e^attempts seconds: 2.7 s, 7.4 s, 20 s.
func ExponentialBackoff(first, longest time.Duration) TaskOption {
	return TaskOption{"backoff", "exponential " + durationText(first) + " " + durationText(longest)}
}

// OptionText is an option by the library's own key and text, such as "backoff", "linear 10s 1h".
func OptionText(key, value string) TaskOption { return TaskOption{key, value} }

// Handle registers handler for the jobs of the task. Register before Run. If something is wrong, Run and RunOnce return
// the error and do not start: a name longer than 128 characters or registered already, an option out of range, or a
// registration while the worker runs.
func (w *Worker) Handle(task string, handler HandlerFunc, options ...TaskOption) {
	w.register(func() error {
		if handler == nil {
			return errorf(ErrInvalid, "task %q has no handler", task)
		}
		if _, taken := w.handlers[task]; taken {
			return errorf(ErrState, "task %q has a handler already", task)
		}
		var lent texts
		defer lent.free()
		name := lent.c("task", task)
		if lent.err != nil {
			return lent.err
		}
		var fault *C.gw_error_t
		if err := failure(C.gw_worker_add_task(w.native, name, nil, nil, nil, &fault), &fault); err != nil {
			return err
		}
		w.handlers[task] = handler
		for _, option := range options {
			key, value := lent.c("option", option.key), lent.c("option", option.value)
			if err := failure(C.gw_worker_set_task_option(w.native, name, key, value, &fault), &fault); err != nil {
				return err
			}
		}
		return nil
	})
}

// Handle registers handler for the jobs of the task, with their payload decoded by encoding/json into a T. If the payload
// cannot be decoded, the attempt fails. Otherwise it is the same as [Worker.Handle].
//
//	graphileworker.Handle(worker, "send_email", func(ctx context.Context, job *graphileworker.Job, email Email) error {
//		return email.send(ctx)
//	})
func Handle[T any](w *Worker, task string, handler func(ctx context.Context, job *Job, payload T) error, options ...TaskOption) {
	if handler == nil {
		w.Handle(task, nil)
		return
	}
	w.Handle(task, func(ctx context.Context, job *Job) error {
		payload, err := decode[T](job)
		if err != nil {
			return err
		}
		return handler(ctx, job, payload)
	}, options...)
}

// HandleBatch registers handler for jobs whose payload is a JSON array, decoded into a []T. The handler returns one error
// for each item, in their order. Items whose error is nil are done, and only the others are left for the next attempt. A
// nil slice means that all items are done. If the number of errors is another one, the attempt fails with all items.
func HandleBatch[T any](w *Worker, task string, handler func(ctx context.Context, job *Job, items []T) []error, options ...TaskOption) {
	if handler == nil {
		w.Handle(task, nil)
		return
	}
	w.Handle(task, func(ctx context.Context, job *Job) error {
		items, err := decode[[]T](job)
		if err != nil {
			return fmt.Errorf("the payload of a batch must be a JSON array: %w", err)
		}
		errs := handler(ctx, job, items)
		if errs == nil {
			return nil
		}
		if len(errs) != len(items) {
			return fmt.Errorf("the handler of the batch returned %d errors for %d items", len(errs), len(items))
		}
		for _, err := range errs {
			if err != nil {
				return itemErrors(errs)
			}
		}
		return nil
	}, options...)
}

func decode[T any](job *Job) (payload T, err error) {
	if err := json.Unmarshal(job.Payload, &payload); err != nil {
		return payload, fmt.Errorf("payload of task %s: %w", job.Task, err)
	}
	return payload, nil
}

// Use wraps every handler of the worker in middleware, the first one outermost: for logging, tracing, metrics, or to
// decide that a job does not run. Middleware receives the error that the handler returns. Panics pass through it.
func (w *Worker) Use(middleware ...func(next HandlerFunc) HandlerFunc) {
	w.register(func() error {
		w.middleware = append(w.middleware, middleware...)
		return nil
	})
}

// register makes a change before the worker runs. It keeps the first mistake, and Run returns it.
func (w *Worker) register(change func() error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mistake != nil {
		return
	}
	if w.running != nil || w.closed {
		w.mistake = errorf(ErrState, "handlers, hooks and middleware must be registered before Run, on a worker that is not closed")
		return
	}
	w.mistake = change()
}
