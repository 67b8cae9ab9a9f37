// How tasks get their handlers: plain, with typed payloads, by batch, with limits. Knows nothing of running them.

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

// HandlerFunc runs one attempt of a job. Returning nil completes the job. An error fails the attempt: the job is tried
// again after e^attempts seconds or its task's backoff, until its MaxAttempts, and keeps the error's text as its
// last_error. So does a panic, and runtime.Goexit.
//
// The context is cancelled when the job has run past its task's timeout, and when the worker stops without waiting
// any longer; its values are those of the context of Run. A handler that then returns soon has its job tried again,
// without the attempt being counted after a stop. One that does not is left behind.
//
// A job runs at least once: make handlers safe to repeat.
type HandlerFunc func(ctx context.Context, job *Job) error

// TaskOption is a limit of one task.
type TaskOption struct{ key, value string }

// Timeout is how long a job may run before its context is cancelled and the attempt counts as failed. Without it there
// is no limit.
func Timeout(d time.Duration) TaskOption { return TaskOption{"timeout", durationText(d)} }

// FixedBackoff waits d before each further attempt.
func FixedBackoff(d time.Duration) TaskOption {
	return TaskOption{"backoff", "fixed " + durationText(d)}
}

// LinearBackoff waits step after the first failed attempt, twice that after the second, and so on, but at most longest.
func LinearBackoff(step, longest time.Duration) TaskOption {
	return TaskOption{"backoff", "linear " + durationText(step) + " " + durationText(longest)}
}

// ExponentialBackoff waits first after the first failed attempt and twice as long after each further one, but at most
// longest. Without any backoff it is e^attempts seconds: 2.7 s, 7.4 s, 20 s.
func ExponentialBackoff(first, longest time.Duration) TaskOption {
	return TaskOption{"backoff", "exponential " + durationText(first) + " " + durationText(longest)}
}

// OptionText is a limit by the library's own key and text, such as "backoff", "linear 10s 1h".
func OptionText(key, value string) TaskOption { return TaskOption{key, value} }

// Handle makes handler run the jobs of the task. Register before Run; what is wrong (a name longer than 128 characters
// or registered already, a limit out of range, a worker that runs) is told by Run and RunOnce, which do not start then.
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

// Handle makes handler run the jobs of the task, with their payload decoded by encoding/json into a T. A payload that
// is no T fails the attempt. It is [Worker.Handle] otherwise.
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

// HandleBatch makes handler run jobs whose payload is a JSON array, decoded into a []T. It answers one error for each
// item, in their order: items whose error is nil are done, and only the others stay for the next attempt. A nil slice
// says that all are done; another count than there are items fails the attempt with all of them.
func HandleBatch[T any](w *Worker, task string, handler func(ctx context.Context, job *Job, items []T) []error, options ...TaskOption) {
	if handler == nil {
		w.Handle(task, nil)
		return
	}
	w.Handle(task, func(ctx context.Context, job *Job) error {
		items, err := decode[[]T](job)
		if err != nil {
			return fmt.Errorf("the payload of a batch is a JSON array: %w", err)
		}
		errs := handler(ctx, job, items)
		if errs == nil {
			return nil
		}
		if len(errs) != len(items) {
			return fmt.Errorf("the handler of the batch answered %d errors for %d items", len(errs), len(items))
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

// Use puts middleware around every handler of the worker, the first outermost: for logging, tracing, metrics, or to
// decide that a job is not to run. It sees the error that the handler returned; panics pass through it.
func (w *Worker) Use(middleware ...func(next HandlerFunc) HandlerFunc) {
	w.register(func() error {
		w.middleware = append(w.middleware, middleware...)
		return nil
	})
}

// register changes what the worker is to do, before it does it. The first mistake is kept for Run to tell.
func (w *Worker) register(change func() error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mistake != nil {
		return
	}
	if w.running != nil || w.closed {
		w.mistake = errorf(ErrState, "handlers, hooks and middleware are registered before Run, on a worker that is not closed")
		return
	}
	w.mistake = change()
}
