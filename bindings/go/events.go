// Observes a worker: one goroutine pulls its events and calls the hooks. Knows nothing of the events' content.

package graphileworker

/*
#include "native.h"
*/
import "C"

import (
	"encoding/json"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// Event is an event of a worker or of a job.
type Event struct {
	// Name is one of [EventNames].
	Name string
	// JobID is the id of the event's job, or 0 if it has none.
	JobID int64
	// JSON is an object with the event's fields: those of JobComplete, for example, are job, worker_id and duration_ms.
	JSON json.RawMessage
}

// Decode decodes the event's fields into a value, as json.Unmarshal does.
func (e Event) Decode(into any) error { return json.Unmarshal(e.JSON, into) }

// interceptors are the events that C and Rust programs can intercept. Go programs use middleware: see [Worker.Use].
var interceptors = map[string]bool{"BeforeJobRun": true, "AfterJobRun": true, "BeforeJobSchedule": true, "JobRecovery": true}

// EventNames returns the names of all events that can be observed.
func EventNames() (names []string) {
	for i := 0; ; i++ {
		name := C.gw_event_name_at(C.size_t(i))
		if name == nil {
			return names
		}
		if name := C.GoString(name); !interceptors[name] {
			names = append(names, name)
		}
	}
}

// On calls hook for every event of this name, after it has happened: for JobComplete once the database has the outcome.
// One goroutine calls all hooks, one after the other, in the order of the events. If the hooks are slow, jobs wait
// briefly. Then events are dropped and counted in Stats.EventsDropped. A panic of a hook is logged.
//
// Register before Run. If the name is unknown, Run returns the error. To decide rather than observe, see [Worker.Use].
func (w *Worker) On(name string, hook func(Event)) {
	w.register(func() error {
		if hook == nil {
			return errorf(ErrInvalid, "event %q has no hook", name)
		}
		if _, asked := w.hooks[name]; !asked {
			var lent texts
			defer lent.free()
			text := lent.c("event", name)
			if lent.err != nil {
				return lent.err
			}
			var fault *C.gw_error_t
			if err := failure(C.gw_worker_on_event(w.native, text, nil, nil, nil, &fault), &fault); err != nil {
				return err
			}
		}
		w.hooks[name] = append(w.hooks[name], hook)
		return nil
	})
}

// listener calls hooks for the events of one run.
type listener struct {
	worker *Worker
	hooks  map[string][]func(Event)
	wakeup *wakeup
	done   chan struct{}
	// abandoned: hooks must not be called any more.
	abandoned atomic.Bool
}

// listener makes a listener for the registered hooks, or returns nil if there are none.
func (w *Worker) listener() (*listener, error) {
	w.mu.Lock()
	hooks := w.hooks
	w.mu.Unlock()
	if len(hooks) == 0 {
		return nil, nil
	}
	wakeup, err := install(C.gw_worker_event_fd(w.native))
	if err != nil {
		return nil, err
	}
	return &listener{worker: w, hooks: hooks, wakeup: wakeup, done: make(chan struct{})}, nil
}

// remove frees a listener on which listen was not called.
func (l *listener) remove() {
	if l != nil {
		l.wakeup.remove()
	}
}

// listen starts to call the hooks. The worker must have started: before, the library reports that there are no events.
func (l *listener) listen() {
	if l != nil {
		go l.dispatch()
	}
}

func (l *listener) dispatch() {
	defer close(l.done)
	var (
		status C.gw_status_t
		event  C.gwgo_event
		fault  *C.gw_error_t
	)
	look := func() bool {
		status = C.gwgo_next_event(l.worker.native, &event, &fault)
		return status <= 0 || status == C.GW_STOPPED
	}
	for l.wakeup.await(look) == nil && status == C.GW_OK && !l.abandoned.Load() {
		received := Event{Name: C.GoString(event.name), JobID: int64(event.job_id), JSON: json.RawMessage(C.GoString(event.json))}
		C.gw_event_free(event.handle)
		for _, hook := range l.hooks[received.Name] {
			callHook(hook, received)
		}
	}
	if err := failure(status, &fault); err != nil {
		report(LogError, "hooks receive no more events", nil, "error", err.Error())
	}
}

func callHook(hook func(Event), event Event) {
	defer func() {
		if panicked := recover(); panicked != nil {
			report(LogError, "a hook panicked", nil, "event", event.Name, "error", fmt.Sprint(panicked), "stack", string(debug.Stack()))
		}
	}()
	hook(event)
}

// end waits until the hooks have received all events, at most for timeout.
func (l *listener) end(timeout time.Duration) {
	if l == nil {
		return
	}
	defer l.wakeup.remove()
	waited := time.NewTimer(timeout)
	defer waited.Stop()
	select {
	case <-l.done:
	case <-waited.C:
		l.abandoned.Store(true)
		report(LogWarn, "a hook did not return in time; it receives no more events", nil)
	}
}
