// Adds jobs, and installs the schema. Knows nothing of running jobs.

package graphileworker

/*
#include "native.h"
*/
import "C"

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Client adds and manages jobs on its own connections. It is safe for concurrent use: a program makes one client, and
// closes it at its end. A worker has a client too, see [Worker.Client].
//
// Every method waits for the database at most Config.DatabaseTimeout. If its context ends earlier, the method returns at
// once, while the call continues in the background. The error then is the context's, and also of the kind
// ErrUnknownOutcome, because the change may still be made.
type Client struct {
	native *C.gw_client_t
	worker *Worker // the worker that owns the connections, or nil
	closed atomic.Bool
	schema string
	// slots has room for one call per connection. Further calls wait here as goroutines, without a thread each.
	slots chan struct{}

	statementOnce sync.Once
	statement     string
	statementErr  error
}

// NewClient connects to the database. It does not install the schema: a worker does when it starts, and
// [Client.Migrate].
//
// Errors: ErrConfig, ErrConnect, ErrAuth, ErrTLS, and the context's error if ctx ends first.
func NewClient(ctx context.Context, config Config) (*Client, error) {
	settings, err := config.native()
	if err != nil {
		return nil, err
	}
	client, err := describe(settings)
	if err != nil {
		C.gw_config_free(settings)
		return nil, err
	}
	native, err := interruptible(ctx, func() (*C.gw_client_t, error) {
		defer C.gw_config_free(settings)
		var native *C.gw_client_t
		var fault *C.gw_error_t
		if err := failure(C.gw_client_new(settings, &native, &fault), &fault); err != nil {
			return nil, err
		}
		return native, nil
	}, func(late *C.gw_client_t) { C.gw_client_free(late) })
	if err != nil {
		return nil, err
	}
	client.native = native
	return client, nil
}

// describe makes a client with its settings and without a connection.
func describe(settings *C.gw_config_t) (*Client, error) {
	schema, err := configText(settings, "schema")
	if err != nil {
		return nil, err
	}
	text, err := configText(settings, "max_pg_conn")
	if err != nil {
		return nil, err
	}
	connections, _ := strconv.Atoi(text)
	if connections < 1 {
		connections = 1
	}
	return &Client{schema: schema, slots: make(chan struct{}, connections)}, nil
}

// Close closes the client's connections. Running calls may finish, later calls return ErrClosed. A second Close does
// nothing. On a worker's client it does nothing: the worker's Close closes that client.
func (c *Client) Close() error {
	if c.worker == nil && !c.closed.Swap(true) {
		C.gw_client_free(c.native)
	}
	return nil
}

// handle returns the library's handle of the client.
func (c *Client) handle() (*C.gw_client_t, error) {
	if c.worker != nil {
		return c.worker.clientHandle()
	}
	if c.closed.Load() {
		return nil, errorf(ErrClosed, "the client is closed")
	}
	return c.native, nil
}

// call runs a function of the library that waits for the database, in one of the client's slots. If it gets no slot, it
// calls unused instead, unless that is nil.
func call[T any](ctx context.Context, c *Client, what func(native *C.gw_client_t) (T, error), unused func()) (T, error) {
	native, err := c.enter(ctx)
	if err != nil {
		if unused != nil {
			unused()
		}
		var none T
		return none, err
	}
	return interruptible(ctx, func() (T, error) {
		defer func() { <-c.slots }()
		return what(native)
	}, nil)
}

// enter takes one of the client's slots.
func (c *Client) enter(ctx context.Context) (*C.gw_client_t, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("graphileworker: %w", err)
	}
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("graphileworker: waiting for one of %d connections: %w", cap(c.slots), ctx.Err())
	}
	native, err := c.handle()
	if err != nil {
		<-c.slots
	}
	return native, err
}

// interruptible waits for what until ctx ends. A result that arrives after that is passed to discard.
func interruptible[T any](ctx context.Context, what func() (T, error), discard func(T)) (T, error) {
	if ctx.Done() == nil {
		return what()
	}
	answers := make(chan answer[T], 1)
	go func() {
		value, err := what()
		answers <- answer[T]{value, err}
	}()
	select {
	case answer := <-answers:
		return answer.value, answer.err
	case <-ctx.Done():
	}
	if discard != nil {
		go func() {
			if late := <-answers; late.err == nil {
				discard(late.value)
			}
		}()
	}
	var none T
	return none, &abandoned{ctx.Err()}
}

type answer[T any] struct {
	value T
	err   error
}

// abandoned is the error of a call whose context ended while it was under way.
type abandoned struct{ cause error }

func (a *abandoned) Error() string {
	return "graphileworker: " + a.cause.Error() + " during the call, which continues: the change may or may not be made"
}

func (a *abandoned) Unwrap() error { return a.cause }

func (a *abandoned) Is(target error) bool { return target == ErrUnknownOutcome }

// AddJob adds a job for task and returns its id. encoding/json encodes the payload. A json.RawMessage is stored as it
// is, nil becomes {}.
//
// Errors: ErrConfig for a value outside its limits (the message names it); ErrJSON; ErrSchema if the schema is not
// installed; ErrConflict if a worker claimed the waiting job with the same key during each of twenty tries; and the
// errors of the connection.
func (c *Client) AddJob(ctx context.Context, task string, payload any, options ...JobOption) (int64, error) {
	spec, err := newSpec(task, payload, options)
	if err != nil {
		return 0, err
	}
	native, err := spec.native()
	if err != nil {
		return 0, err
	}
	release := func() { C.gw_spec_free(native) }
	return call(ctx, c, func(client *C.gw_client_t) (int64, error) {
		defer release()
		var id C.int64_t
		var fault *C.gw_error_t
		err := failure(C.gw_client_add_job(client, native, &id, &fault), &fault)
		return int64(id), err
	}, release)
}

// AddJobs adds all of the jobs or none, and returns their ids in the order of jobs. Its errors are those of
// [Client.AddJob].
func (c *Client) AddJobs(ctx context.Context, jobs []NewJob) ([]int64, error) {
	if len(jobs) == 0 {
		return nil, nil
	}
	natives := make([]*C.gw_spec_t, 0, len(jobs))
	release := func() {
		for _, native := range natives {
			C.gw_spec_free(native)
		}
	}
	for i, job := range jobs {
		spec, err := newSpec(job.Task, job.Payload, job.Options)
		var native *C.gw_spec_t
		if err == nil {
			native, err = spec.native()
		}
		if err != nil {
			release()
			return nil, fmt.Errorf("job %d of %d: %w", i+1, len(jobs), err)
		}
		natives = append(natives, native)
	}
	return call(ctx, c, func(client *C.gw_client_t) ([]int64, error) {
		defer release()
		ids := make([]int64, len(natives))
		var fault *C.gw_error_t
		status := C.gw_client_add_jobs(client, &natives[0], C.size_t(len(natives)), (*C.int64_t)(&ids[0]), &fault)
		if err := failure(status, &fault); err != nil {
			return nil, err
		}
		return ids, nil
	}, release)
}

// RemoveJob removes the job with this key, and returns whether there was one. If the job is running, it is not stopped,
// and it is not retried if it fails.
func (c *Client) RemoveJob(ctx context.Context, key string) (bool, error) {
	return call(ctx, c, func(client *C.gw_client_t) (bool, error) {
		var lent texts
		defer lent.free()
		text := lent.c("key", key)
		if lent.err != nil {
			return false, lent.err
		}
		var fault *C.gw_error_t
		status := C.gw_client_remove_job(client, text, &fault)
		return status == C.GW_OK, failure(status, &fault)
	}, nil)
}

// Migrate installs a missing schema, and adds this library's objects to an existing one. It is safe to repeat. A worker
// does so when it starts.
//
// Errors: ErrSchema if the schema is older than Graphile Worker's migration 18, or has a newer breaking migration.
func (c *Client) Migrate(ctx context.Context) error {
	return c.do(ctx, func(client *C.gw_client_t, fault **C.gw_error_t) C.gw_status_t {
		return C.gw_client_migrate(client, fault)
	})
}

// Check sends a query to the database, and waits for the reply at most timeout. Meant for health checks.
func (c *Client) Check(ctx context.Context, timeout time.Duration) error {
	return c.do(ctx, func(client *C.gw_client_t, fault **C.gw_error_t) C.gw_status_t {
		return C.gw_client_check(client, C.int64_t(milliseconds(timeout)), fault)
	})
}

func (c *Client) do(ctx context.Context, what func(*C.gw_client_t, **C.gw_error_t) C.gw_status_t) error {
	_, err := call(ctx, c, func(client *C.gw_client_t) (struct{}, error) {
		var fault *C.gw_error_t
		status := what(client, &fault)
		if status > 0 {
			return struct{}{}, errorf(ErrDatabaseTimeout, "the database did not reply in time")
		}
		return struct{}{}, failure(status, &fault)
	}, nil)
	return err
}
