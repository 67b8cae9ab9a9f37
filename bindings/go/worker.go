// A worker from its creation to its end: its settings, its start and its stop. run.go runs the jobs.

package graphileworker

/*
#include "native.h"
*/
import "C"

import (
	"context"
	"sync"
)

// Worker runs jobs. Make it with [NewWorker], register handlers, call [Worker.Run], and Close it. Its methods are safe
// for concurrent use.
type Worker struct {
	native *C.gw_worker_t
	client *Client

	mu         sync.Mutex // guards the fields below, held for a moment
	handlers   map[string]HandlerFunc
	middleware []func(HandlerFunc) HandlerFunc
	hooks      map[string][]func(Event)
	mistake    error // the first error in registering; Run returns it
	running    *run
	id         string
	closed     bool
	freed      chan struct{}
}

// StopMode is how a worker stops.
type StopMode int32

const (
	// Graceful claims no more jobs, and lets running jobs continue for Config.ShutdownGracePeriod.
	Graceful StopMode = C.GW_STOP_GRACEFUL
	// Abort cancels the contexts of running jobs at once.
	Abort StopMode = C.GW_STOP_ABORT
)

// NewWorker makes a worker, and checks its settings. It does not connect: Run does.
//
// Errors: ErrConfig, ErrCrontab.
func NewWorker(config Config) (*Worker, error) {
	settings, err := config.native()
	if err != nil {
		return nil, err
	}
	defer C.gw_config_free(settings)
	client, err := describe(settings)
	if err != nil {
		return nil, err
	}
	w := &Worker{
		client:   client,
		handlers: map[string]HandlerFunc{},
		hooks:    map[string][]func(Event){},
		freed:    make(chan struct{}),
	}
	client.worker = w
	var fault *C.gw_error_t
	if err := failure(C.gw_worker_new(settings, &w.native, &fault), &fault); err != nil {
		return nil, err
	}
	return w, nil
}

// AddCrontab adds crontab entries, like Config.Crontab: one or more lines in Node's grammar. Call it before Run.
//
// Errors: ErrCrontab with line and column, ErrState if the worker runs.
func (w *Worker) AddCrontab(text string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return errorf(ErrClosed, "the worker is closed")
	}
	var lent texts
	defer lent.free()
	lines := lent.c("crontab", text)
	if lent.err != nil {
		return lent.err
	}
	var fault *C.gw_error_t
	return failure(C.gw_worker_add_crontab(w.native, lines, &fault), &fault)
}

// Run starts the worker, and runs jobs until ctx ends or [Worker.Stop] is called. It first connects and installs the
// schema. If that fails, it returns at once: ErrConnect, ErrAuth, ErrSchema. It also returns the first error in
// registering. After the start no database error ends it, but a breaking migration of the schema does.
//
// The end of ctx is a Graceful stop: the worker claims no more jobs, and the contexts of running jobs are cancelled after
// Config.ShutdownGracePeriod. Run returns nil when the database has all outcomes. It returns ErrStuck with the names of
// the jobs if handlers did not return half a second after that, or if outcomes could not be written: the database was
// away or refused them, or another session held their rows. Such jobs may run again. To stop at a signal:
//
//	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
//	defer stop()
//	err := worker.Run(ctx)
//
// A worker runs once at a time (ErrState), and may run again.
func (w *Worker) Run(ctx context.Context) error {
	if ctx.Err() != nil {
		return nil
	}
	_, err := w.run(ctx, C.GW_RUN_FOREVER)
	return err
}

// RunOnce is [Worker.Run] until no job is due. If ctx ends before that, it stops and returns ctx.Err(). It adds no jobs of
// the crontab, not even those that fill would add, and recovers no jobs of dead workers.
func (w *Worker) RunOnce(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	cut, err := w.run(ctx, C.GW_RUN_ONCE)
	if err == nil && cut {
		return ctx.Err()
	}
	return err
}

// Stop asks a running worker to stop, and returns at once. Run returns when the worker has stopped. Abort after Graceful
// ends the grace period. Does nothing if the worker does not run.
func (w *Worker) Stop(mode StopMode) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running != nil {
		w.running.stop(mode)
	}
}

// Close aborts the worker if it runs, waits until Run has returned, and frees the worker. A second Close does nothing.
// Call it after Run has returned. To stop a worker, cancel the context of Run.
func (w *Worker) Close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		<-w.freed
		return nil
	}
	w.closed = true
	running := w.running
	if running != nil {
		running.stop(Abort)
	}
	w.mu.Unlock()
	if running != nil {
		<-running.over
	}
	C.gw_worker_free(w.native)
	close(w.freed)
	return nil
}

// ID returns the id under which the worker locks jobs in this run, or in the last one. Empty before the first run.
func (w *Worker) ID() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.id
}

// Client returns a client on the worker's own connections. Its calls return ErrState before Run has connected.
func (w *Worker) Client() *Client { return w.client }

func (w *Worker) clientHandle() (*C.gw_client_t, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, errorf(ErrClosed, "the worker of this client is closed")
	}
	native := C.gw_worker_client(w.native)
	if native == nil {
		return nil, errorf(ErrState, "the worker of this client has not connected yet: call Run, or use NewClient")
	}
	return native, nil
}

// wrapped returns the handlers with the middleware around them.
func (w *Worker) wrapped() map[string]HandlerFunc {
	handlers := make(map[string]HandlerFunc, len(w.handlers))
	for task, handler := range w.handlers {
		for i := len(w.middleware) - 1; i >= 0; i-- {
			handler = w.middleware[i](handler)
		}
		handlers[task] = handler
	}
	return handlers
}
