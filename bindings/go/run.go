// One run of a worker: one goroutine that pulls jobs, one for each job, and their end. Go's netpoller waits for the
// library's descriptor, so no goroutine blocks a thread while it waits for jobs.

package graphileworker

/*
#include "native.h"
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
	"unsafe"
)

// hookTimeout is how long Run waits at its end for hooks that still receive events.
const hookTimeout = time.Second

type run struct {
	worker   *Worker
	id       string
	handlers map[string]HandlerFunc
	values   context.Context // of the jobs' contexts
	wakeup   *wakeup
	hooks    *listener
	jobs     [C.GWGO_BATCH]C.gwgo_job // owned by the reader
	working  sync.WaitGroup
	asked    chan struct{} // closed when a stop is requested
	askOnce  sync.Once
	over     chan struct{} // closed when Run is about to return

	mu      sync.Mutex
	mode    StopMode // the strongest mode that was requested
	cancels map[attempt]context.CancelFunc
}

// attempt identifies one attempt of a job, since a job can run again after an earlier attempt.
type attempt struct {
	id     int64
	number int32
}

// run starts the worker and waits for its end. It returns whether ctx ended the run.
func (w *Worker) run(ctx context.Context, mode C.int32_t) (cut bool, err error) {
	r, err := w.begin(ctx, mode)
	if err != nil {
		return false, err
	}
	defer w.end(r)
	read := make(chan error, 1)
	go func() { read <- r.read() }()
	select {
	case <-ctx.Done():
		cut = true
		r.stop(Graceful)
	case <-r.asked:
	case err = <-read:
		if err != nil {
			r.stop(Abort)
		}
		read <- nil
	}
	var fault *C.gw_error_t
	if ended := failure(C.gw_worker_wait(w.native, -1, &fault), &fault); ended != nil {
		err = ended
	}
	r.wakeup.remove()
	if late := <-read; err == nil {
		err = late
	}
	if !errors.Is(err, ErrStuck) {
		r.working.Wait()
	}
	r.hooks.end(hookTimeout)
	return cut, err
}

// begin starts the library's worker.
func (w *Worker) begin(ctx context.Context, mode C.int32_t) (*run, error) {
	w.mu.Lock()
	if err := w.mayRun(); err != nil {
		w.mu.Unlock()
		return nil, err
	}
	r := &run{
		worker:   w,
		handlers: w.wrapped(),
		values:   carried{ctx},
		asked:    make(chan struct{}),
		over:     make(chan struct{}),
		cancels:  map[attempt]context.CancelFunc{},
	}
	w.running = r
	w.mu.Unlock()

	err := r.start(mode)
	if err != nil {
		w.end(r)
		return nil, err
	}
	return r, nil
}

func (w *Worker) mayRun() error {
	switch {
	case w.closed:
		return errorf(ErrClosed, "the worker is closed: make a new one")
	case w.running != nil:
		return errorf(ErrState, "the worker runs already")
	default:
		return w.mistake
	}
}

func (w *Worker) end(r *run) {
	w.mu.Lock()
	w.running = nil
	w.mu.Unlock()
	close(r.over)
}

func (r *run) start(mode C.int32_t) error {
	w := r.worker
	wakeup, err := install(C.gw_worker_fd(w.native))
	if err != nil {
		return err
	}
	hooks, err := w.listener()
	if err != nil {
		wakeup.remove()
		return err
	}
	var fault *C.gw_error_t
	if err := failure(C.gw_worker_start(w.native, mode, &fault), &fault); err != nil {
		wakeup.remove()
		hooks.remove()
		return err
	}
	r.wakeup, r.hooks = wakeup, hooks
	r.id = C.GoString(C.gw_worker_id(w.native))
	w.mu.Lock()
	w.id = r.id
	w.mu.Unlock()
	hooks.listen()
	r.mu.Lock()
	asked := r.mode
	r.mu.Unlock()
	if asked != 0 {
		// A stop was requested during the start, before the library's worker could be stopped.
		C.gw_worker_request_stop(w.native, C.int32_t(asked))
	}
	return nil
}

func (r *run) stop(mode StopMode) {
	r.mu.Lock()
	if mode > r.mode {
		r.mode = mode
	}
	r.mu.Unlock()
	// The library would keep a request to a worker that does not run for its next run. Before this run, start makes the
	// request; after it, none must be made.
	switch C.gw_worker_state(r.worker.native) {
	case C.GW_STATE_RUNNING, C.GW_STATE_STOPPING:
		C.gw_worker_request_stop(r.worker.native, C.int32_t(mode))
	}
	r.askOnce.Do(func() { close(r.asked) })
}

// read pulls jobs and cancellations until the worker has ended.
func (r *run) read() error {
	var (
		status C.gw_status_t
		count  C.size_t
		fault  *C.gw_error_t
	)
	look := func() bool {
		status = C.gwgo_pull(r.worker.native, &r.jobs[0], &count, &fault)
		return status < 0 || status == C.GW_OK || status == C.GW_CANCELLED || status == C.GW_STOPPED
	}
	for {
		if err := r.wakeup.await(look); errors.Is(err, errRemoved) {
			return nil
		} else if err != nil {
			return err
		}
		switch {
		case status == C.GW_OK:
			for i := range r.jobs[:count] {
				r.take(&r.jobs[i])
			}
		case status == C.GW_CANCELLED:
			r.cancel(attempt{int64(r.jobs[0].id), int32(r.jobs[0].attempts)})
		case status == C.GW_STOPPED:
			return nil
		default:
			return failure(status, &fault)
		}
	}
}

// take starts the goroutine of a job.
func (r *run) take(native *C.gwgo_job) {
	job := &Job{
		ID:          int64(native.id),
		Payload:     C.GoBytes(unsafe.Pointer(native.payload), C.int(native.payload_len)),
		Key:         C.GoString(native.key),
		WorkerID:    r.id,
		Attempts:    int(native.attempts),
		MaxAttempts: int(native.max_attempts),
		Priority:    int(native.priority),
		Revision:    int(native.revision),
		RunAt:       timeOf(native.run_at),
		CreatedAt:   timeOf(native.created_at),
		Task:        C.GoString(native.task),
		client:      r.worker.client,
		native:      native.handle,
	}
	ctx, cancel := context.WithCancel(r.values)
	this := attempt{job.ID, int32(job.Attempts)}
	r.mu.Lock()
	r.cancels[this] = cancel
	r.mu.Unlock()
	r.working.Add(1)
	go r.work(ctx, this, job)
}

// cancel cancels the context of a running job.
func (r *run) cancel(this attempt) {
	r.mu.Lock()
	cancel := r.cancels[this]
	r.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}

// errGoexit is the error of a handler that neither returned nor panicked.
var errGoexit = errors.New("the handler ended its goroutine with runtime.Goexit")

// work runs a job and sets its outcome, also if its handler panics or calls runtime.Goexit.
func (r *run) work(ctx context.Context, this attempt, job *Job) {
	defer r.working.Done()
	err := errGoexit
	defer func() {
		if panicked := recover(); panicked != nil {
			err = fmt.Errorf("panic: %v", panicked)
			report(LogError, "a handler panicked", job, "error", err.Error(), "stack", string(debug.Stack()))
		}
		r.cancel(this)
		r.mu.Lock()
		delete(r.cancels, this)
		r.mu.Unlock()
		if refused := job.finish(err); refused != nil {
			report(LogWarn, "the library refused a job's outcome", job, "error", refused.Error())
		}
	}()
	handler := r.handlers[job.Task]
	if handler == nil {
		err = errorf(ErrState, "task %q has no handler", job.Task)
		return
	}
	err = handler(ctx, job)
}
