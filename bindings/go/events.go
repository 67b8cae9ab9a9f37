// Observing a worker: events are pulled on a goroutine of their own. Knows nothing of what they tell.

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

// Event is something that happened to a worker or to a job.
type Event struct {
	// Name is one of [EventNames].
	Name string
	// JobID is the job that it is about, 0 if it is about none.
	JobID int64
	// JSON is an object of what it tells: of JobComplete, for example, job, worker_id and duration_ms.
	JSON json.RawMessage
}

// Decode decodes what the event tells into a value, as json.Unmarshal does.
func (e Event) Decode(into any) error { return json.Unmarshal(e.JSON, into) }

// interceptors are the events over which C and Rust programs decide. In Go, middleware does: see [Worker.Use].
var interceptors = map[string]bool{"BeforeJobRun": true, "AfterJobRun": true, "BeforeJobSchedule": true, "JobRecovery": true}

// EventNames are the names of all events that can be observed.
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

// On makes hook be told of every event of this name, after the fact: of JobComplete once the database has it. Hooks are
// called one after the other on one goroutine, in the order of the events; while they are slow, jobs wait for a
// moment, and then events are dropped and counted in Stats.EventsDropped. A panic of a hook is logged.
//
// Register before Run. An unknown name is told by Run. To decide rather than observe, see [Worker.Use].
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

// listener tells hooks of the events of one run.
type listener struct {
	worker *Worker
	hooks  map[string][]func(Event)
	wakeup *wakeup
	done   chan struct{}
	// abandoned: hooks are called no more.
	abandoned atomic.Bool
}

// listener makes one for the hooks that there are; nil if there are none.
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

// remove gives up a listener that did not come to listening.
func (l *listener) remove() {
	if l != nil {
		l.wakeup.remove()
	}
}

// listen begins to tell the hooks, once the worker has started: before, its events are over.
func (l *listener) listen() {
	if l != nil {
		go l.tell()
	}
}

func (l *listener) tell() {
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
		told := Event{Name: C.GoString(event.name), JobID: int64(event.job_id), JSON: json.RawMessage(C.GoString(event.json))}
		C.gw_event_free(event.handle)
		for _, hook := range l.hooks[told.Name] {
			callHook(hook, told)
		}
	}
	if err := failure(status, &fault); err != nil {
		report(LogError, "hooks are told of no more events", nil, "error", err.Error())
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

// end waits until the hooks have been told of everything, or for patience.
func (l *listener) end(patience time.Duration) {
	if l == nil {
		return
	}
	defer l.wakeup.remove()
	waited := time.NewTimer(patience)
	defer waited.Stop()
	select {
	case <-l.done:
	case <-waited.C:
		l.abandoned.Store(true)
		report(LogWarn, "a hook did not return in time and is left behind", nil)
	}
}
