// Package drivertest tests AddJobTx with real drivers. It is a module of its own, so that the package itself needs only
// the standard library.
package drivertest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/lib/pq"

	gw "github.com/graphile-worker-native/libgraphile_worker/bindings/go"
)

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

var background = context.Background()

func TestMain(m *testing.M) {
	if os.Getenv("DATABASE_URL") == "" {
		log.Fatal("these tests need a PostgreSQL that they may fill: run ../test.sh, or set DATABASE_URL to what `graphile-worker dev` prints")
	}
	os.Exit(m.Run())
}

// setting is a driver, a client with a schema of its own, and that schema.
type setting struct {
	db     *sql.DB
	client *gw.Client
	schema string
}

// schemas counts the schemas. It needs no lock, because tests run one after the other.
var schemas int

// each runs a test with every driver, and with pgx's mode for poolers that do not keep prepared statements.
func each(t *testing.T, test func(t *testing.T, s setting)) {
	url := os.Getenv("DATABASE_URL")
	plain := url + "?sslmode=disable"
	if strings.Contains(url, "?") {
		plain = url + "&sslmode=disable"
	}
	for name, source := range map[string][2]string{
		"pgx":        {"pgx", plain},
		"pgx simple": {"pgx", plain + "&default_query_exec_mode=simple_protocol"},
		"pq":         {"postgres", plain},
		"pq binary":  {"postgres", plain + "&binary_parameters=yes"},
	} {
		t.Run(name, func(t *testing.T) {
			db, err := sql.Open(source[0], source[1])
			must(t, err)
			defer db.Close()
			schemas++
			schema := fmt.Sprintf("drivertest_%d_%d", os.Getpid(), schemas)
			client, err := gw.NewClient(background, gw.Config{FromEnv: true, Schema: schema})
			must(t, err)
			defer client.Close()
			must(t, client.Migrate(background))
			test(t, setting{db, client, schema})
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// total returns the number of jobs.
func total(t *testing.T, client *gw.Client) int64 {
	t.Helper()
	stats, err := client.JobStats(background)
	must(t, err)
	return stats.Total
}

func TestAJobExistsOnlyIfItsTransactionCommits(t *testing.T) {
	each(t, func(t *testing.T, s setting) {
		for _, commits := range []bool{true, false} {
			tx, err := s.db.BeginTx(background, nil)
			must(t, err)
			_, err = tx.Exec("create table if not exists " + s.schema + ".users (name text)")
			must(t, err)
			id, err := s.client.AddJobTx(background, tx, "greet", map[string]string{"name": "Ada"})
			must(t, err)
			if id == 0 {
				t.Error("no id")
			}
			if commits {
				equal(t, "jobs before the commit", total(t, s.client), 0)
				must(t, tx.Commit())
			} else {
				must(t, tx.Rollback())
			}
			equal(t, "jobs", total(t, s.client), 1)
		}
	})
}

func TestEveryOptionReachesTheDatabase(t *testing.T) {
	each(t, func(t *testing.T, s setting) {
		runAt := time.Date(2031, 1, 2, 3, 4, 5, 678901000, time.FixedZone("", 3600))
		flags := []string{"plain", `quo"te`, `back\slash`, "com,ma", "sp ace", "ä"}
		tx, err := s.db.BeginTx(background, nil)
		must(t, err)
		defer tx.Rollback()
		id, err := s.client.AddJobTx(background, tx, "greet", map[string]string{"name": `O'Hara \ "x" $1 ?`},
			gw.Queue("one two"), gw.RunAt(runAt), gw.MaxAttempts(7), gw.Priority(-5), gw.Key("my key", gw.PreserveRunAt),
			gw.Flags(flags...), gw.Traceparent(parent))
		must(t, err)
		must(t, tx.Commit())
		job, err := s.client.Job(background, id)
		must(t, err)
		equal(t, "task", job.Task, "greet")
		equal(t, "payload", string(job.Payload), `{"name":"O'Hara \\ \"x\" $1 ?","_trace":{"traceparent":"`+parent+`"}}`)
		equal(t, "queue", *job.Queue, "one two")
		equal(t, "run at", job.RunAt.UTC(), runAt.UTC())
		equal(t, "max attempts", job.MaxAttempts, 7)
		equal(t, "priority", job.Priority, -5)
		equal(t, "key", *job.Key, "my key")
		equal(t, "flags", len(job.Flags), len(flags))
		for _, flag := range flags {
			if !strings.Contains(strings.Join(job.Flags, "\n")+"\n", flag+"\n") {
				t.Errorf("flag %q is missing in %q", flag, job.Flags)
			}
		}
	})
}

func TestTheModesOfAKeyReachTheDatabase(t *testing.T) {
	each(t, func(t *testing.T, s setting) {
		conn, err := s.db.Conn(background)
		must(t, err)
		defer conn.Close()
		at := time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)
		first, err := s.client.AddJobTx(background, conn, "t", 1, gw.Key("k", gw.Replace), gw.RunAt(at))
		must(t, err)
		for _, mode := range []gw.KeyMode{gw.PreserveRunAt, gw.UnsafeDedupe} {
			again, err := s.client.AddJobTx(background, conn, "t", int(mode), gw.Key("k", mode), gw.RunAt(at.Add(time.Hour)))
			must(t, err)
			equal(t, "id", again, first)
		}
		job, err := s.client.Job(background, first)
		must(t, err)
		equal(t, "payload", string(job.Payload), fmt.Sprint(int(gw.PreserveRunAt)))
		equal(t, "run at", job.RunAt.UTC(), at)
	})
}

func TestAJobIsAddedWhileAWorkerClaimsItsKey(t *testing.T) {
	each(t, func(t *testing.T, s setting) {
		old, err := s.client.AddJob(background, "t", 1, gw.Key("k", gw.Replace))
		must(t, err)
		taking, err := s.db.BeginTx(background, nil)
		must(t, err)
		defer taking.Rollback()
		_, err = taking.Exec("update "+s.schema+"._private_jobs set locked_at = now(), locked_by = 'a worker' where id = $1", old)
		must(t, err)

		adding, err := s.db.BeginTx(background, nil)
		must(t, err)
		defer adding.Rollback()
		var pid int
		must(t, adding.QueryRow("select pg_backend_pid()").Scan(&pid))
		type added struct {
			id  int64
			err error
		}
		ended := make(chan added, 1)
		go func() {
			id, err := s.client.AddJobTx(background, adding, "t", 2, gw.Key("k", gw.Replace))
			ended <- added{id, err}
		}()
		waitForLock(t, s.db, pid)
		must(t, taking.Commit())
		select {
		case added := <-ended:
			must(t, added.err)
			must(t, adding.Commit())
			if added.id == old {
				t.Error("the running job was changed")
			}
		case <-time.After(30 * time.Second):
			t.Fatal("the job was not added")
		}
		equal(t, "jobs", total(t, s.client), 2)
	})
}

// waitForLock returns when the session pid waits for a lock of another session.
func waitForLock(t *testing.T, db *sql.DB, pid int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		var waits bool
		must(t, db.QueryRow("select cardinality(pg_blocking_pids($1)) > 0", pid).Scan(&waits))
		if waits {
			return
		}
	}
	t.Fatal("the session does not wait for a lock")
}

func TestAnErrorOfTheDriverIsKept(t *testing.T) {
	each(t, func(t *testing.T, s setting) {
		other, err := gw.NewClient(background, gw.Config{FromEnv: true, Schema: "not_there"})
		must(t, err)
		defer other.Close()
		tx, err := s.db.BeginTx(background, nil)
		must(t, err)
		defer tx.Rollback()
		_, err = other.AddJobTx(background, tx, "t", nil)
		if err == nil {
			t.Fatal("it succeeded without a schema")
		}
		var coded interface{ SQLState() string }
		if !errors.As(err, &coded) || coded.SQLState() != "3F000" {
			t.Errorf("the driver's error is lost: %v", err)
		}
		if !strings.Contains(err.Error(), `task "t"`) {
			t.Errorf("the error does not name the task: %v", err)
		}
	})
}

func TestAWorkerRunsAJobAddedInATransaction(t *testing.T) {
	each(t, func(t *testing.T, s setting) {
		worker, err := gw.NewWorker(gw.Config{FromEnv: true, Schema: s.schema})
		must(t, err)
		defer worker.Close()
		ran := make(chan string, 1)
		worker.Handle("greet", func(_ context.Context, job *gw.Job) error {
			ran <- string(job.Payload) + job.Traceparent()
			return nil
		})
		started := make(chan struct{}, 1)
		worker.On("WorkerStart", func(gw.Event) { started <- struct{}{} })
		ctx, cancel := context.WithTimeout(background, 30*time.Second)
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- worker.Run(ctx) }()
		<-started
		tx, err := s.db.BeginTx(background, nil)
		must(t, err)
		defer tx.Rollback()
		_, err = s.client.AddJobTx(background, tx, "greet", map[string]string{}, gw.Traceparent(parent))
		must(t, err)
		must(t, tx.Commit())
		select {
		case got := <-ran:
			equal(t, "job", got, `{"_trace":{"traceparent":"`+parent+`"}}`+parent)
		case <-ctx.Done():
			t.Error("the job was not run")
		}
		cancel()
		must(t, <-ended)
	})
}

func TestAddJobSQLWorksWithPgx(t *testing.T) {
	client, err := gw.NewClient(background, gw.Config{FromEnv: true})
	must(t, err)
	defer client.Close()
	must(t, client.Migrate(background))
	conn, err := pgx.Connect(background, os.Getenv("DATABASE_URL"))
	must(t, err)
	defer conn.Close(background)
	tx, err := conn.Begin(background)
	must(t, err)
	defer tx.Rollback(background)

	query, args, err := client.AddJobSQL("pgx", map[string]int{"n": 1}, gw.Queue("q"), gw.RunAt(time.Now()), gw.MaxAttempts(3),
		gw.Priority(1), gw.Key("pgx", gw.Replace), gw.Flags("a", "b"))
	must(t, err)
	rows, err := tx.Query(background, query, args...)
	must(t, err)
	added, err := pgx.CollectOneRow(rows, pgx.RowToMap)
	must(t, err)
	must(t, tx.Commit(background))
	job, err := client.Job(background, added["id"].(int64))
	must(t, err)
	equal(t, "payload", string(job.Payload), `{"n":1}`)
	equal(t, "flags", len(job.Flags), 2)
	_, err = client.CompleteJobs(background, job.ID)
	must(t, err)
}

func TestARunningWorkerStoresItsCrontabEntries(t *testing.T) {
	each(t, func(t *testing.T, s setting) {
		worker, err := gw.NewWorker(gw.Config{FromEnv: true, Schema: s.schema, Crontab: "0 0 1 1 * yearly"})
		must(t, err)
		defer worker.Close()
		var failure *gw.Error
		if err := worker.AddCrontab("0 0 1 1"); !errors.As(err, &failure) || failure.Status != gw.ErrCrontab {
			t.Errorf("an invalid crontab: %v", err)
		}
		must(t, worker.AddCrontab("0 0 2 1 * yearly ?id=second"))
		worker.Handle("yearly", func(context.Context, *gw.Job) error { return nil })
		started := make(chan struct{}, 1)
		worker.On("WorkerStart", func(gw.Event) { started <- struct{}{} })
		ctx, cancel := context.WithCancel(background)
		ended := make(chan error, 1)
		go func() { ended <- worker.Run(ctx) }()
		<-started
		var known int
		for deadline := time.Now().Add(30 * time.Second); known != 2 && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			must(t, s.db.QueryRow("select count(*) from "+s.schema+"._private_known_crontabs").Scan(&known))
		}
		equal(t, "known entries", known, 2)
		cancel()
		must(t, <-ended)
	})
}

// errors.As finds an error of lib/pq in the error of AddJobTx.
var _ interface{ SQLState() string } = (*pq.Error)(nil)

func Example() {
	ctx := context.Background()
	db, err := sql.Open("pgx", os.Getenv("DATABASE_URL"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close()
	client, err := gw.NewClient(ctx, gw.Config{FromEnv: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	signUp := func(name string) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if _, err := tx.ExecContext(ctx, "create table if not exists users (name text primary key)"); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "insert into users values ($1) on conflict do nothing", name); err != nil {
			return err
		}
		if _, err := client.AddJobTx(ctx, tx, "welcome", map[string]string{"name": name}); err != nil {
			return err
		}
		return tx.Commit()
	}
	fmt.Println(signUp("ada"))
	// Output: <nil>
}
