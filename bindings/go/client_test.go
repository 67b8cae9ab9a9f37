package graphileworker

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func TestPayloadsAreStoredAsTheyWereGiven(t *testing.T) {
	worker, client := newWorker(t, Config{})
	_ = worker
	for _, check := range []struct {
		payload any
		want    string
	}{
		{nil, `{}`},
		{json.RawMessage(`{ "b":1.10, "a":"ä" }`), `{ "b":1.10, "a":"ä" }`},
		{greeting{"<Ada>"}, `{"name":"<Ada>"}`},
		{[]int{1, 2}, `[1,2]`},
		{"text", `"text"`},
		{12345678901234567, `12345678901234567`},
	} {
		id := add(t, client, "t", check.payload)
		equal(t, "payload", string(stored(t, client, id).Payload), check.want)
	}
}

func TestAnInvalidJobIsRefusedBeforeItIsAdded(t *testing.T) {
	_, client := newWorker(t, Config{})
	for _, check := range []struct {
		status  Status
		names   string
		task    string
		payload any
		option  JobOption
	}{
		{ErrConfig, "task", strings.Repeat("x", 129), nil, Priority(0)},
		{ErrUTF8, "task", "a\x00b", nil, Priority(0)},
		{ErrJSON, "payload", "t", json.RawMessage(`{`), Priority(0)},
		{ErrJSON, "payload", "t", json.RawMessage(``), Priority(0)},
		{ErrJSON, "payload", "t", make(chan int), Priority(0)},
		{ErrConfig, "queue", "t", nil, Queue(strings.Repeat("x", 129))},
		{ErrConfig, "max_attempts", "t", nil, MaxAttempts(0)},
		{ErrConfig, "max_attempts", "t", nil, MaxAttempts(1 << 40)},
		{ErrConfig, "priority", "t", nil, Priority(-1 << 40)},
		{ErrConfig, "run_at", "t", nil, RunAt(time.Unix(1<<60, 0))},
		{ErrConfig, "key", "t", nil, Key("", Replace)},
		{ErrConfig, "key", "t", nil, Key(strings.Repeat("x", 513), Replace)},
		{ErrInvalid, "key", "t", nil, Key("k", 0)},
		{ErrUTF8, "flag", "t", nil, Flags("a\x00")},
		{ErrConfig, "traceparent", "t", nil, Traceparent("nonsense")},
	} {
		_, err := client.AddJob(context.Background(), check.task, check.payload, check.option)
		if !errors.Is(err, check.status) {
			t.Errorf("%s: %v, want %v", check.names, err, check.status)
			continue
		}
		contains(t, err.Error(), check.names)
		if _, err := client.AddJobTx(context.Background(), nil, check.task, check.payload, check.option); !errors.Is(err, check.status) {
			t.Errorf("%s in a transaction: %v, want %v", check.names, err, check.status)
		}
	}
	_, err := client.AddJobs(context.Background(), []NewJob{{Task: "t"}, {Task: "t", Options: []JobOption{Queue("a\x00")}}})
	if !errors.Is(err, ErrUTF8) {
		t.Errorf("AddJobs: %v", err)
	}
	contains(t, err.Error(), "job 2 of 2")
	stats, err := client.JobStats(context.Background())
	must(t, err)
	equal(t, "jobs", stats.Total, 0)
}

func TestManyJobsAreAddedInTheirOrder(t *testing.T) {
	_, client := newWorker(t, Config{})
	ids, err := client.AddJobs(context.Background(), []NewJob{
		{Task: "a", Payload: 1, Options: []JobOption{Priority(5)}},
		{Task: "b", Options: []JobOption{Queue("q"), Flags("x")}},
	})
	must(t, err)
	equal(t, "ids", len(ids), 2)
	first, second := stored(t, client, ids[0]), stored(t, client, ids[1])
	equal(t, "first", first.Task, "a")
	equal(t, "priority", first.Priority, 5)
	equal(t, "second", second.Task, "b")
	equal(t, "queue", *second.Queue, "q")
	none, err := client.AddJobs(context.Background(), nil)
	if none != nil || err != nil {
		t.Errorf("no jobs: %v, %v", none, err)
	}
}

func TestAJobWithTheSameKeyReplacesTheWaitingOne(t *testing.T) {
	_, client := newWorker(t, Config{})
	later := time.Now().Add(time.Hour).Truncate(time.Microsecond).UTC()
	first := add(t, client, "t", 1, Key("k", Replace), RunAt(later))
	same := add(t, client, "t", 2, Key("k", PreserveRunAt))
	equal(t, "id", same, first)
	job := stored(t, client, first)
	equal(t, "payload", string(job.Payload), "2")
	equal(t, "run at", job.RunAt, later)
	add(t, client, "t", 3, Key("k", UnsafeDedupe))
	equal(t, "payload", string(stored(t, client, first).Payload), "2")

	removed, err := client.RemoveJob(context.Background(), "k")
	must(t, err)
	equal(t, "removed", removed, true)
	removed, err = client.RemoveJob(context.Background(), "k")
	must(t, err)
	equal(t, "removed again", removed, false)
	if _, err := client.RemoveJob(context.Background(), "a\x00b"); !errors.Is(err, ErrUTF8) {
		t.Errorf("a key with a NUL: %v", err)
	}
}

func TestAClosedClientReturnsErrClosed(t *testing.T) {
	_, client := newWorker(t, Config{})
	must(t, client.Check(context.Background(), 10*time.Second))
	must(t, client.Close())
	must(t, client.Close())
	if err := client.Check(context.Background(), time.Second); !errors.Is(err, ErrClosed) {
		t.Errorf("Check: %v", err)
	}
	if _, err := client.AddJob(context.Background(), "t", nil); !errors.Is(err, ErrClosed) {
		t.Errorf("AddJob: %v", err)
	}
}

func TestADryRunChangesNothing(t *testing.T) {
	_, client := newWorker(t, Config{})
	id := add(t, client, "t", nil)
	dry, err := NewClient(context.Background(), Config{FromEnv: true, Schema: client.schema, DryRun: On})
	must(t, err)
	defer dry.Close()
	jobs, err := dry.CompleteJobs(context.Background(), id)
	must(t, err)
	equal(t, "jobs that would be completed", len(jobs), 1)
	stored(t, client, id)
}

func TestConnectingTellsWhatIsWrong(t *testing.T) {
	_, err := NewClient(context.Background(), Config{DatabaseURL: "postgres://none@127.0.0.1:1/none?sslmode=disable"})
	if !errors.Is(err, ErrConnect) {
		t.Errorf("no server listens: %v", err)
	}
	_, err = NewClient(context.Background(), Config{DatabaseURL: "no url"})
	if !errors.Is(err, ErrConfig) {
		t.Errorf("an invalid URL: %v", err)
	}
}

func TestAClientWithoutTheSchemaReturnsErrSchema(t *testing.T) {
	client, err := NewClient(context.Background(), Config{FromEnv: true, Schema: newSchema()})
	must(t, err)
	defer client.Close()
	_, err = client.AddJob(context.Background(), "t", nil)
	var ours *Error
	if !errors.As(err, &ours) || !errors.Is(err, ErrSchema) && !errors.Is(err, ErrDatabase) {
		t.Errorf("AddJob: %v", err)
	}
}

func TestACallWhoseContextEndsHasAnUnknownOutcome(t *testing.T) {
	mute, err := net.Listen("tcp", "127.0.0.1:0") // accepts connections, and never replies
	must(t, err)
	defer mute.Close()
	arrived := make(chan net.Conn, 8)
	go func() {
		for {
			conn, err := mute.Accept()
			if err != nil {
				return
			}
			arrived <- conn
		}
	}()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		_, err := NewClient(ctx, Config{DatabaseURL: "postgres://none@" + mute.Addr().String() + "/none?sslmode=disable", DatabaseTimeout: 20 * time.Second})
		ended <- err
	}()
	conn := await(t, arrived, "the connection")
	cancel()
	err = await(t, ended, "NewClient")
	conn.Close()
	if !errors.Is(err, context.Canceled) || !errors.Is(err, ErrUnknownOutcome) {
		t.Errorf("NewClient: %v", err)
	}

	_, client := newWorker(t, Config{})
	_, err = client.AddJob(ctx, "t", nil)
	if !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnknownOutcome) {
		t.Errorf("a call whose context has ended already: %v", err)
	}
}

func TestACallThatWaitsForAConnectionEndsWithItsContext(t *testing.T) {
	_, client := newWorker(t, Config{})
	for i := 0; i < cap(client.slots); i++ {
		client.slots <- struct{}{}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	_, err := client.AddJob(ctx, "t", nil)
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrUnknownOutcome) {
		t.Errorf("AddJob: %v", err)
	}
	contains(t, err.Error(), "connections")
}

func TestATraceContextIsAddedToThePayload(t *testing.T) {
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for payload, want := range map[string]string{
		`{}`:                 `{"_trace":{"traceparent":"P"}}`,
		` { "b":1.10} `:      `{ "b":1.10,"_trace":{"traceparent":"P"}}`,
		`{"_trace":{"x":1}}`: `{"_trace":{"traceparent":"P","x":1}}`,
		`{"a":"_trace"}`:     `{"_trace":{"traceparent":"P"},"a":"_trace"}`,
		`{"_trace":7}`:       `{"_trace":{"traceparent":"P"}}`,
		`{"_trace":null}`:    `{"_trace":{"traceparent":"P"}}`,
	} {
		got, err := withTraceparent([]byte(payload), parent)
		must(t, err)
		equal(t, payload, string(got), strings.ReplaceAll(want, "P", parent))
	}
}

func TestFlagsBecomeAPostgreSQLArray(t *testing.T) {
	equal(t, "array", arrayText([]string{"a", `b"c`, `d\e`, "f,g", ""}), `{"a","b\"c","d\\e","f,g",""}`)
}

// lossy is a fake database. It returns no row for each 0 in rows, as if a worker had claimed the job.
type lossy struct{ rows []int64 }

func (l *lossy) Connect(context.Context) (driver.Conn, error) { return l, nil }
func (l *lossy) Driver() driver.Driver                        { return nil }
func (l *lossy) Prepare(string) (driver.Stmt, error)          { return nil, errors.New("not here") }
func (l *lossy) Close() error                                 { return nil }
func (l *lossy) Begin() (driver.Tx, error)                    { return lossyTx{}, nil }
func (l *lossy) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	next := l.rows[0]
	l.rows = append(l.rows[1:], next)
	return &lossyRow{next}, nil
}

type lossyTx struct{}

func (lossyTx) Commit() error   { return nil }
func (lossyTx) Rollback() error { return nil }

type lossyRow struct{ id int64 }

func (*lossyRow) Columns() []string { return []string{"id", "key"} }
func (*lossyRow) Close() error      { return nil }
func (r *lossyRow) Next(into []driver.Value) error {
	if r.id == 0 {
		return io.EOF
	}
	into[0], into[1], r.id = r.id, nil, 0
	return nil
}

func TestAddJobTxIsRetriedWhileWorkersClaimTheKey(t *testing.T) {
	_, client := newWorker(t, Config{})
	for _, check := range []struct {
		rows []int64
		want int64
	}{{[]int64{0, 0, 7}, 7}, {[]int64{0}, 0}} {
		db := sql.OpenDB(&lossy{check.rows})
		defer db.Close()
		tx, err := db.Begin()
		must(t, err)
		id, err := client.AddJobTx(context.Background(), tx, "t", nil, Key("k", Replace))
		equal(t, "id", id, check.want)
		if check.want == 0 && !errors.Is(err, ErrConflict) {
			t.Errorf("a worker claims the job during each try: %v", err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := client.AddJobTx(ctx, tx, "t", nil, Key("k", Replace)); !errors.Is(err, context.Canceled) {
			t.Errorf("the context has ended: %v", err)
		}
		must(t, tx.Rollback())
	}
}
