// The adapter's worker: its tasks, and the notes of tasks and hooks.

package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	gw "github.com/graphile-worker-native/libgraphile_worker/bindings/go"
)

type worker struct {
	*gw.Worker
	started chan struct{} // has room for one
	ended   chan struct{} // closed when Run has returned
	err     error         // the result of Run, once ended is closed
	ran     *notes
}

// notes: goroutines write them, and commands read them.
type notes struct {
	sync.Mutex
	texts []string
}

func (n *notes) add(text string) {
	n.Lock()
	defer n.Unlock()
	n.texts = append(n.texts, text)
}

func (n *notes) take() []string {
	n.Lock()
	defer n.Unlock()
	texts := n.texts
	n.texts = nil
	return texts
}

func (r *adapter) newWorker(words []string) (*worker, error) {
	var (
		settings, crontabs, hooks []string
		only                      map[string]bool
		limits                    = map[string][]gw.TaskOption{}
	)
	for _, word := range words {
		key, value, _ := strings.Cut(word, "=")
		switch parts := strings.Split(key, "."); {
		case key == "crontab":
			crontabs = append(crontabs, value)
		case key == "hook":
			hooks = append(hooks, value)
		case key == "tasks":
			only = map[string]bool{}
			for _, name := range strings.Split(value, ",") {
				only[name] = true
			}
		case parts[0] == "task" && len(parts) == 3:
			limits[parts[1]] = append(limits[parts[1]], gw.OptionText(parts[2], value))
		default:
			settings = append(settings, word)
		}
	}
	config, err := config(settings)
	if err != nil {
		return nil, err
	}
	native, err := gw.NewWorker(config)
	if err != nil {
		return nil, err
	}
	w := &worker{Worker: native, started: make(chan struct{}, 1), ran: &r.ran}
	for _, crontab := range crontabs {
		if err := w.AddCrontab(crontab); err != nil {
			w.Close()
			return nil, err
		}
	}
	for name, handler := range w.tasks() {
		if only == nil || only[name] {
			w.Handle(name, handler, limits[name]...)
		}
	}
	if only == nil || only["batch"] {
		gw.HandleBatch(native, "batch", w.batch, limits["batch"]...)
	}
	for _, hook := range hooks {
		w.On(hook, func(event gw.Event) { r.events.add(event.Name) })
	}
	w.On("WorkerStart", func(gw.Event) { w.started <- struct{}{} })
	return w, nil
}

func (w *worker) note(job *gw.Job, text string) {
	w.ran.add(fmt.Sprintf("%s:%d:%s", job.Task, job.Attempts, text))
}

func (w *worker) tasks() map[string]gw.HandlerFunc {
	noted := func(handler gw.HandlerFunc) gw.HandlerFunc {
		return func(ctx context.Context, job *gw.Job) error {
			w.note(job, string(job.Payload))
			return handler(ctx, job)
		}
	}
	return map[string]gw.HandlerFunc{
		"ok":    noted(func(context.Context, *gw.Job) error { return nil }),
		"fail":  noted(func(_ context.Context, job *gw.Job) error { return errors.New(string(job.Payload)) }),
		"throw": noted(func(_ context.Context, job *gw.Job) error { panic(string(job.Payload)) }),
		"fail_twice": noted(func(_ context.Context, job *gw.Job) error {
			if job.Attempts < 3 {
				return fmt.Errorf("attempt %d", job.Attempts)
			}
			return nil
		}),
		"wait": noted(func(ctx context.Context, _ *gw.Job) error {
			<-ctx.Done()
			w.ran.add("wait:cancelled:")
			return errors.New("cancelled")
		}),
		"sleep": noted(func(_ context.Context, job *gw.Job) error {
			time.Sleep(milliseconds(string(job.Payload)))
			return nil
		}),
		"snooze": noted(func(_ context.Context, job *gw.Job) error { return job.Snooze(time.Hour) }),
		"later":  noted(func(context.Context, *gw.Job) error { return gw.RetryAfter(time.Hour, errors.New("later")) }),
		"spawn": noted(func(ctx context.Context, job *gw.Job) error {
			_, err := job.Client().AddJob(ctx, "ok", job.Payload)
			return err
		}),
		"trace": func(_ context.Context, job *gw.Job) error {
			w.note(job, job.Traceparent())
			return nil
		},
	}
}

func (w *worker) batch(_ context.Context, job *gw.Job, items []int) []error {
	w.note(job, string(job.Payload))
	errs := make([]error, len(items))
	for i, item := range items {
		if item < 0 {
			errs[i] = errors.New("negative")
		}
	}
	return errs
}

func (r *adapter) obeyWorker(command string, words []string) (fields []string, err error) {
	w := r.worker
	switch command {
	case "ran":
		return r.ran.take(), nil
	case "events":
		return r.events.take(), nil
	}
	if w == nil {
		return nil, errUnknown
	}
	switch command {
	case "start":
		return nil, w.start(w.Run)
	case "start_once":
		return nil, w.start(w.RunOnce)
	case "stop":
		mode := gw.Graceful
		if words[0] == "abort" {
			mode = gw.Abort
		}
		w.Stop(mode)
		return nil, nil
	case "wait":
		if w.ended == nil {
			return nil, errors.New("not started")
		}
		text, err := w.wait(words[0])
		return []string{text}, err
	case "worker_stats":
		return []string{string(w.StatsJSON())}, nil
	case "worker_id":
		return []string{w.ID()}, nil
	}
	return nil, errUnknown
}

// start returns when the worker runs, or returns the error of the start.
func (w *worker) start(run func(context.Context) error) error {
	ended := make(chan struct{})
	w.ended = ended
	go func() {
		defer close(ended)
		w.err = run(background)
	}()
	select {
	case <-w.started:
		return nil
	case <-ended:
		return w.err
	}
}

func (w *worker) wait(ms string) (string, error) {
	var timeout <-chan time.Time
	if n, err := strconv.Atoi(ms); err == nil && n >= 0 {
		timeout = time.After(time.Duration(n) * time.Millisecond)
	}
	select {
	case <-w.ended:
		return "ended", w.err
	case <-timeout:
		return "timeout", nil
	}
}
