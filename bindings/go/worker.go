// A worker from its making to its end: what it is told, and how it starts and stops. Jobs run in run.go.

package graphileworker

/*
#include "native.h"
*/
import "C"

import (
	"context"
	"sync"
)

// Worker runs jobs. Make it with [NewWorker], give it handlers, call [Worker.Run], and Close it. Its methods are safe
// for use by many goroutines at once.
type Worker struct {
	native *C.gw_worker_t
	client *Client

	mu         sync.Mutex // guards what follows, held for a moment
	handlers   map[string]HandlerFunc
	middleware []func(HandlerFunc) HandlerFunc
	hooks      map[string][]func(Event)
	mistake    error // the first in registering; Run tells it
	running    *run
	id         string
	closed     bool
	freed      chan struct{}
}

// StopMode is how a worker stops.
type StopMode int32

const (
	// Graceful claims no more jobs and lets those that run go on for Config.ShutdownGracePeriod.
	Graceful StopMode = C.GW_STOP_GRACEFUL
	// Abort cancels the contexts of running jobs at once.
	Abort StopMode = C.GW_STOP_ABORT
)

// NewWorker makes a worker, and checks its settings: ErrConfig, ErrCrontab. It does not yet connect.
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

// AddCrontab adds jobs by the clock, like Config.Crontab: one or more lines in Node's grammar. Before Run.
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

// Run starts the worker, and runs jobs until ctx ends or [Worker.Stop] is called. It connects and installs the schema
// first, and fails at once if it cannot: ErrConnect, ErrAuth, ErrSchema; also with what was wrong in registering.
// Afterwards no fault of the database ends it.
//
// The end of ctx is a Graceful stop: nothing more is claimed, and jobs that run have Config.ShutdownGracePeriod until
// their own contexts are cancelled. Run returns nil when all have their outcomes in the database, and ErrStuck, naming
// them, when handlers did not return half a second after that, or when outcomes could not be written: the database was away
// or refused them, or another session held their rows. Such jobs may run again. To stop at a signal:
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

// RunOnce is [Worker.Run] until no job is due any more. If ctx ends before that, it stops and answers ctx.Err(). It adds no
// jobs of the crontab, also none that fill would make up for, and recovers no jobs of dead workers.
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

// Stop asks a worker that runs to stop, and returns at once; Run returns when it has. Asking for Abort after Graceful
// cuts the grace period short. Does nothing if the worker does not run.
func (w *Worker) Stop(mode StopMode) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running != nil {
		w.running.stop(mode)
	}
}

// Close aborts the worker if it runs, waits until Run has returned, and lets go of everything. It may be called again.
// Call it when Run has returned; to stop a worker, cancel the context of Run.
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

// ID is the id under which the worker locks jobs: of this run, or of the last. Empty before the first.
func (w *Worker) ID() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.id
}

// Client adds and manages jobs on the worker's own connections. Its calls answer ErrState before Run has connected.
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

// wrapped are the handlers within the middleware.
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
