// Helpers of the tests: databases, and waiting for events instead of sleeping.

package graphileworker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// testLogLevel keeps the expected failures out of the tests' output.
const testLogLevel = LogOff

// waitTimeout is how long a test waits for an event before it fails.
const waitTimeout = 30 * time.Second

func TestMain(m *testing.M) {
	if os.Getenv("DATABASE_URL") == "" {
		log.Fatal("these tests write to a PostgreSQL database: run test.sh, or set DATABASE_URL to the URL that `graphile-worker dev` prints")
	}
	decodeAnswer = decodeStrictly
	SetLogLevel(testLogLevel)
	os.Exit(m.Run())
}

// decodeStrictly checks that the structs of admin.go have exactly the fields of the library's JSON.
func decodeStrictly(text []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	ours, err := json.Marshal(into)
	if err != nil {
		return err
	}
	if want, got := names(text), names(ours); !reflect.DeepEqual(want, got) {
		return fmt.Errorf("%T has the fields %v, and the library returns %v", into, got, want)
	}
	return nil
}

// names returns the field names of a JSON object, or of the objects in an array, but not those of nested objects.
func names(text []byte) map[string]bool {
	var objects []map[string]json.RawMessage
	if json.Unmarshal(text, &objects) != nil {
		objects = make([]map[string]json.RawMessage, 1)
		_ = json.Unmarshal(text, &objects[0])
	}
	all := map[string]bool{}
	for _, object := range objects {
		for name := range object {
			all[name] = true
		}
	}
	return all
}

var schemas atomic.Int64

// newSchema returns a schema name that no other test uses.
func newSchema() string {
	return fmt.Sprintf("go_test_%d_%d", os.Getpid(), schemas.Add(1))
}

// newWorker makes a worker on a schema of its own, and a client for it. It installs the schema.
func newWorker(t *testing.T, config Config) (*Worker, *Client) {
	t.Helper()
	if config.Schema == "" {
		config.Schema = newSchema()
	}
	config.FromEnv = true
	if config.Concurrency == 0 {
		config.Concurrency = 4
	}
	worker, err := NewWorker(config)
	must(t, err)
	t.Cleanup(func() { must(t, worker.Close()) })
	client, err := NewClient(context.Background(), Config{FromEnv: true, Schema: config.Schema, MaxPgConn: 4})
	must(t, err)
	t.Cleanup(func() { must(t, client.Close()) })
	must(t, client.Migrate(context.Background()))
	return worker, client
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func add(t *testing.T, client *Client, task string, payload any, options ...JobOption) int64 {
	t.Helper()
	id, err := client.AddJob(context.Background(), task, payload, options...)
	must(t, err)
	return id
}

// stored returns the job's row in the database, and fails the test if there is none.
func stored(t *testing.T, client *Client, id int64) *ListedJob {
	t.Helper()
	job, err := client.Job(context.Background(), id)
	must(t, err)
	if job == nil {
		t.Fatalf("job %d is gone", id)
	}
	return job
}

// lastError returns the job's last error.
func lastError(t *testing.T, client *Client, id int64) string {
	t.Helper()
	job := stored(t, client, id)
	if job.LastError == nil {
		t.Fatalf("job %d has no error: %+v", id, job)
	}
	return *job.LastError
}

func runOnce(t *testing.T, worker *Worker) {
	t.Helper()
	must(t, worker.RunOnce(context.Background()))
}

// running starts the worker, and returns a function that stops it and waits for its end.
func running(t *testing.T, worker *Worker) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- worker.Run(ctx) }()
	t.Cleanup(cancel)
	return func() error {
		cancel()
		return await(t, ended, "the end of Run")
	}
}

// await returns the next value of a channel.
func await[T any](t *testing.T, values <-chan T, what string) (value T) {
	t.Helper()
	timer := time.NewTimer(waitTimeout)
	defer timer.Stop()
	select {
	case value = <-values:
	case <-timer.C:
		t.Fatalf("timeout of %v while waiting for %s", waitTimeout, what)
	}
	return value
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q does not contain %q", text, part)
		}
	}
}
