package graphileworker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func TestHooksReceiveEventsInOrder(t *testing.T) {
	worker, client := newWorker(t, Config{})
	fails := true
	worker.Handle("t", func(context.Context, *Job) error {
		if fails {
			return errors.New("no")
		}
		return nil
	})
	events := make(chan Event, 100)
	for _, name := range []string{"WorkerStart", "JobStart", "JobComplete", "JobFail", "WorkerShutdown"} {
		worker.On(name, func(e Event) { events <- e })
	}
	for _, outcome := range []string{"JobFail", "JobComplete"} {
		id := add(t, client, "t", nil)
		runOnce(t, worker)
		for _, want := range []string{"WorkerStart", "JobStart", outcome, "WorkerShutdown"} {
			event := await(t, events, want)
			equal(t, "event", event.Name, want)
			if strings.HasPrefix(want, "Job") {
				equal(t, "job", event.JobID, id)
			}
			var received map[string]json.RawMessage
			must(t, event.Decode(&received))
		}
		fails = false
	}
}

func TestAPanickingHookDoesNotStopOthers(t *testing.T) {
	worker, client := newWorker(t, Config{})
	worker.Handle("t", func(context.Context, *Job) error { return nil })
	received := make(chan Event, 2)
	worker.On("JobComplete", func(Event) { panic("out of cheese") })
	worker.On("JobComplete", func(e Event) { received <- e })
	add(t, client, "t", nil)
	add(t, client, "t", nil)
	runOnce(t, worker)
	await(t, received, "the first event")
	await(t, received, "the second event")
}

func TestAHangingHookDelaysTheEndOnlyBriefly(t *testing.T) {
	worker, client := newWorker(t, Config{})
	worker.Handle("t", func(context.Context, *Job) error { return nil })
	release := make(chan struct{})
	defer close(release)
	worker.On("JobComplete", func(Event) { <-release })
	add(t, client, "t", nil)
	before := time.Now()
	runOnce(t, worker)
	if took := time.Since(before); took > 10*time.Second {
		t.Errorf("RunOnce took %v", took)
	}
}

func TestEveryEventCanBeObserved(t *testing.T) {
	worker, _ := newWorker(t, Config{})
	names := EventNames()
	if len(names) < 10 {
		t.Fatalf("only %v", names)
	}
	for _, name := range names {
		worker.On(name, func(Event) {})
	}
	worker.Handle("t", func(context.Context, *Job) error { return nil })
	runOnce(t, worker)
}

// captureLog collects the log of the process during a test.
func captureLog(t *testing.T, level LogLevel) <-chan LogRecord {
	t.Helper()
	records := make(chan LogRecord, 10000)
	must(t, SetLog(func(r LogRecord) {
		select {
		case records <- r:
		default:
		}
	}, level))
	t.Cleanup(func() { SetLogLevel(testLogLevel) })
	return records
}

func TestSetLogReceivesRecordsOfTheLibrary(t *testing.T) {
	records := captureLog(t, LogDebug)
	worker, client := newWorker(t, Config{})
	worker.Handle("t", func(context.Context, *Job) error { return errors.New("no such thing") })
	id := add(t, client, "t", greeting{"a secret"})
	before := time.Now().Add(-time.Minute)
	runOnce(t, worker)
	for {
		record := await(t, records, "a record about the job")
		var fields map[string]any
		if err := json.Unmarshal(record.Fields, &fields); err != nil {
			t.Fatalf("the fields %s are not JSON: %v", record.Fields, err)
		}
		if record.Time.Before(before) || record.Message == "" || record.Target == "" || record.Level < LogError || record.Level > LogDebug {
			t.Errorf("a record lacks a field: %+v", record)
		}
		if strings.Contains(string(record.Fields), "a secret") {
			t.Errorf("a payload is logged: %s", record.Fields)
		}
		if fmt.Sprint(fields["job_id"]) == fmt.Sprint(id) && fields["error"] == "no such thing" {
			return
		}
	}
}

func TestASlowSinkLosesRecordsAndCountsThem(t *testing.T) {
	descriptors := openFiles(t)
	release, first := make(chan struct{}), make(chan struct{}, 1)
	lost := make(chan string, 100000)
	must(t, SetLog(func(r LogRecord) {
		select {
		case first <- struct{}{}:
		default:
		}
		<-release
		if strings.Contains(string(r.Fields), "records_lost") {
			lost <- string(r.Fields)
		}
	}, LogTrace))
	worker, client := newWorker(t, Config{})
	worker.Handle("t", func(context.Context, *Job) error { return errors.New(strings.Repeat("long ", 500)) })
	addMany(t, client, "t", 100)
	runOnce(t, worker)
	await(t, first, "a record")
	close(release)
	runOnce(t, worker)
	await(t, lost, "a record that says how many were lost")
	SetLogLevel(testLogLevel)
	must(t, worker.Close())
	_ = descriptors
}

func openFiles(t *testing.T) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(files)
}

func TestRunsLeaveNoDescriptorOpen(t *testing.T) {
	worker, _ := newWorker(t, Config{})
	worker.Handle("t", func(context.Context, *Job) error { return nil })
	worker.On("WorkerStart", func(Event) {})
	runOnce(t, worker)
	before := openFiles(t)
	for i := 0; i < 5; i++ {
		runOnce(t, worker)
	}
	if after := openFiles(t); after > before+2 {
		t.Errorf("%d descriptors before, %d after five runs", before, after)
	}
}
