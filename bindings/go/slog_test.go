//go:build go1.21

package graphileworker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

// lines is a buffer that one goroutine can read while another one writes.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(text []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(text)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func TestLogAndEventsAreSentToSlog(t *testing.T) {
	var logged, received lines
	must(t, SetLogger(slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug})), LogDebug))
	defer SetLogLevel(testLogLevel)
	worker, client := newWorker(t, Config{})
	worker.Handle("t", func(context.Context, *Job) error { panic("out of cheese") })
	worker.LogEvents(slog.New(slog.NewTextHandler(&received, nil)), "JobFail", "WorkerShutdown")
	id := add(t, client, "t", greeting{"a secret"})
	runOnce(t, worker)
	contains(t, received.String(), "msg=JobFail", fmt.Sprintf("job_id=%d", id), "out of cheese", "msg=WorkerShutdown")
	contains(t, logged.String(), `level=ERROR msg="a handler panicked"`, "task=t", "stack=")
	if all := logged.String() + received.String(); strings.Contains(all, "a secret") {
		t.Errorf("a payload is logged: %s", all)
	}
}

func TestEventsAreAllLoggedUnlessNamed(t *testing.T) {
	var received lines
	worker, client := newWorker(t, Config{})
	worker.Handle("t", func(context.Context, *Job) error { return errors.New("no") })
	worker.LogEvents(slog.New(slog.NewTextHandler(&received, nil)))
	add(t, client, "t", nil)
	runOnce(t, worker)
	contains(t, received.String(), "msg=WorkerStart", "msg=JobStart", "msg=JobFail", "msg=WorkerShutdown")
}
