package graphileworker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

type greeting struct {
	Name string `json:"name"`
}

func TestAJobRunsWithThePayloadItWasAddedWith(t *testing.T) {
	worker, client := newWorker(t, Config{})
	names := make(chan string, 1)
	Handle(worker, "greet", func(_ context.Context, _ *Job, payload greeting) error {
		names <- payload.Name
		return nil
	})
	id := add(t, client, "greet", greeting{"Ada <ada@example.org>"})
	equal(t, "stored payload", string(stored(t, client, id).Payload), `{"name":"Ada <ada@example.org>"}`)
	runOnce(t, worker)
	equal(t, "name", await(t, names, "the job"), "Ada <ada@example.org>")
	job, err := client.Job(context.Background(), id)
	must(t, err)
	if job != nil {
		t.Errorf("a completed job still exists: %+v", job)
	}
}

func TestAHandlerSeesEveryFieldOfItsJob(t *testing.T) {
	worker, client := newWorker(t, Config{})
	runAt := time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	id := add(t, client, "look", nil, Queue("q"), RunAt(runAt), MaxAttempts(7), Priority(-3), Key("k", PreserveRunAt),
		Flags("a", "b"), Traceparent(parent))
	row := stored(t, client, id)
	worker.Handle("look", func(_ context.Context, job *Job) error {
		equal(t, "id", job.ID, id)
		equal(t, "task", job.Task, "look")
		equal(t, "payload", string(job.Payload), string(row.Payload))
		equal(t, "key", job.Key, "k")
		equal(t, "worker", job.WorkerID, worker.ID())
		equal(t, "attempts", job.Attempts, 1)
		equal(t, "max attempts", job.MaxAttempts, 7)
		equal(t, "priority", job.Priority, -3)
		equal(t, "revision", job.Revision, row.Revision)
		equal(t, "run at", job.RunAt, runAt)
		if age := time.Since(job.CreatedAt); age < -time.Minute || age > time.Hour {
			t.Errorf("created at %v", job.CreatedAt)
		}
		equal(t, "traceparent", job.Traceparent(), parent)
		all, err := job.JSON()
		must(t, err)
		contains(t, string(all), `"job_queue_id":`, `"look"`, `"b"`)
		return nil
	})
	runOnce(t, worker)
	equal(t, "completed", worker.Stats().Completed, 1)
}

func TestAnErrorFailsTheAttemptAndKeepsItsText(t *testing.T) {
	worker, client := newWorker(t, Config{})
	for text, want := range map[string]string{
		"no such address":              "no such address",
		"":                             "",
		"not \xff UTF-8, a \x00":       "not \uFFFD UTF-8, a \uFFFD",
		strings.Repeat("long ", 10000): strings.Repeat("long ", 10000),
	} {
		text, task := text, "t"+strconv.Itoa(len(text))
		worker.Handle(task, func(context.Context, *Job) error { return errors.New(text) })
		id, want := add(t, client, task, nil), want
		defer func() {
			job := stored(t, client, id)
			equal(t, "attempts", job.Attempts, 1)
			equal(t, "state", job.State, StateScheduled)
			equal(t, "error", lastError(t, client, id), want)
		}()
	}
	runOnce(t, worker)
}

func TestAPanicFailsTheAttemptAndIsLoggedWithItsStack(t *testing.T) {
	records := captureLog(t, LogError)
	worker, client := newWorker(t, Config{})
	worker.Handle("panic", func(context.Context, *Job) error { panic("out of cheese") })
	id := add(t, client, "panic", nil)
	runOnce(t, worker)
	equal(t, "error", lastError(t, client, id), "panic: out of cheese")
	for {
		record := await(t, records, "the log of the panic")
		if record.Message == "a handler panicked" {
			contains(t, string(record.Fields), "worker_test.go", "out of cheese", fmt.Sprintf(`"job_id":%d`, id))
			return
		}
	}
}

func TestGoexitFailsTheAttempt(t *testing.T) {
	worker, client := newWorker(t, Config{})
	worker.Handle("goexit", func(context.Context, *Job) error { runtime.Goexit(); return nil })
	id := add(t, client, "goexit", nil)
	runOnce(t, worker)
	contains(t, lastError(t, client, id), "runtime.Goexit")
}

func TestAPayloadOfAnotherTypeFailsTheAttempt(t *testing.T) {
	worker, client := newWorker(t, Config{})
	Handle(worker, "greet", func(context.Context, *Job, greeting) error { return nil })
	HandleBatch(worker, "many", func(context.Context, *Job, []int) []error { return nil })
	wrong, noList := add(t, client, "greet", []int{1}), add(t, client, "many", greeting{"x"})
	runOnce(t, worker)
	contains(t, lastError(t, client, wrong), "payload of task greet", "cannot unmarshal array")
	contains(t, lastError(t, client, noList), "payload of task many", "cannot unmarshal object")
}

func TestRetryAfterSetsTheDelay(t *testing.T) {
	worker, client := newWorker(t, Config{})
	cause := errors.New("too many requests")
	wrapped := fmt.Errorf("sending: %w", RetryAfter(time.Hour, cause))
	if !errors.Is(wrapped, cause) {
		t.Error("RetryAfter hides the error that it wraps")
	}
	worker.Handle("later", func(context.Context, *Job) error { return wrapped })
	id := add(t, client, "later", nil)
	before := time.Now()
	runOnce(t, worker)
	job := stored(t, client, id)
	equal(t, "error", *job.LastError, "sending: too many requests")
	equal(t, "attempts", job.Attempts, 1)
	if wait := job.RunAt.Sub(before); wait < 59*time.Minute || wait > 61*time.Minute {
		t.Errorf("retried after %v", wait)
	}
}

func TestSnoozeRunsAJobAgainWithoutCountingTheAttempt(t *testing.T) {
	worker, client := newWorker(t, Config{})
	var leaked *Job
	worker.Handle("snooze", func(_ context.Context, job *Job) error {
		leaked = job
		if err := job.Snooze(-time.Second); !errors.Is(err, ErrConfig) {
			t.Errorf("a negative delay: %v", err)
		}
		return job.Snooze(time.Hour)
	})
	id := add(t, client, "snooze", nil)
	before := time.Now()
	runOnce(t, worker)
	job := stored(t, client, id)
	equal(t, "attempts", job.Attempts, 0)
	if wait := job.RunAt.Sub(before); wait < 59*time.Minute || wait > 61*time.Minute {
		t.Errorf("runs again after %v", wait)
	}
	if err := leaked.Snooze(time.Hour); !errors.Is(err, ErrAlreadyFinished) {
		t.Errorf("snoozing a completed job: %v", err)
	}
	equal(t, "traceparent of a job that is over", leaked.Traceparent(), "")
}

func TestAJobMadeByHandAcceptsEveryCall(t *testing.T) {
	job := &Job{ID: 1, Task: "greet", Payload: json.RawMessage(`{}`)}
	must(t, job.Snooze(time.Second))
	equal(t, "traceparent", job.Traceparent(), "")
	if job.Client() != nil {
		t.Error("it has a client")
	}
}

func TestOnlyFailedItemsOfABatchAreRetried(t *testing.T) {
	worker, client := newWorker(t, Config{})
	HandleBatch(worker, "batch", func(_ context.Context, _ *Job, items []int) []error {
		errs := make([]error, len(items))
		for i, item := range items {
			if item < 0 {
				errs[i] = RetryAfter(time.Hour, fmt.Errorf("%d is negative", item))
			}
		}
		return errs
	})
	HandleBatch(worker, "all", func(context.Context, *Job, []int) []error { return nil })
	HandleBatch(worker, "miscounted", func(context.Context, *Job, []int) []error { return []error{nil} })
	some := add(t, client, "batch", []int{1, -2, 3, -4})
	all := add(t, client, "batch", []int{1, 3})
	none := add(t, client, "all", []int{1, -2})
	miscounted := add(t, client, "miscounted", []int{1, 2})
	before := time.Now()
	runOnce(t, worker)

	job := stored(t, client, some)
	equal(t, "what is left", strings.ReplaceAll(string(job.Payload), " ", ""), "[-2,-4]")
	contains(t, *job.LastError, "-2 is negative")
	if wait := job.RunAt.Sub(before); wait < 59*time.Minute {
		t.Errorf("retried after %v", wait)
	}
	for _, id := range []int64{all, none} {
		if job, err := client.Job(context.Background(), id); job != nil || err != nil {
			t.Errorf("a completed batch still exists: %+v, %v", job, err)
		}
	}
	contains(t, lastError(t, client, miscounted), "1 errors for 2 items")
	equal(t, "what is left of the miscounted", strings.ReplaceAll(string(stored(t, client, miscounted).Payload), " ", ""), "[1,2]")
}

func TestATimeoutEndsTheContextAndFailsTheAttempt(t *testing.T) {
	worker, client := newWorker(t, Config{})
	worker.Handle("slow", func(ctx context.Context, _ *Job) error {
		<-ctx.Done()
		return ctx.Err()
	}, Timeout(50*time.Millisecond), FixedBackoff(time.Hour))
	id := add(t, client, "slow", nil)
	before := time.Now()
	runOnce(t, worker)
	job := stored(t, client, id)
	equal(t, "attempts", job.Attempts, 1)
	equal(t, "timed out", worker.Stats().TimedOut, 1)
	if wait := job.RunAt.Sub(before); wait < 59*time.Minute {
		t.Errorf("retried after %v, which is not the backoff of its task", wait)
	}
}

func TestEachBackoffSetsItsDelay(t *testing.T) {
	worker, client := newWorker(t, Config{})
	for task, check := range map[string]struct {
		backoff TaskOption
		want    time.Duration
	}{
		"fixed":       {FixedBackoff(10 * time.Minute), 10 * time.Minute},
		"linear":      {LinearBackoff(20*time.Minute, time.Hour), 20 * time.Minute},
		"exponential": {ExponentialBackoff(30*time.Minute, time.Hour), 30 * time.Minute},
	} {
		worker.Handle(task, func(context.Context, *Job) error { return errors.New("no") }, check.backoff)
		id, before, check, task := add(t, client, task, nil), time.Now(), check, task
		defer func() {
			if wait := stored(t, client, id).RunAt.Sub(before); wait < check.want-time.Minute || wait > check.want+time.Minute {
				t.Errorf("%s: retried after %v, want %v", task, wait, check.want)
			}
		}()
	}
	runOnce(t, worker)
}

func TestAbortCancelsJobsAndCountsNoAttempt(t *testing.T) {
	worker, client := newWorker(t, Config{ShutdownGracePeriod: time.Hour})
	started, cancelled := make(chan struct{}, 1), make(chan time.Time, 1)
	worker.Handle("wait", func(ctx context.Context, _ *Job) error {
		started <- struct{}{}
		<-ctx.Done()
		cancelled <- time.Now()
		return ctx.Err()
	})
	id := add(t, client, "wait", nil)
	stop := running(t, worker)
	await(t, started, "the job")
	before := time.Now()
	worker.Stop(Abort)
	if latency := await(t, cancelled, "the cancellation").Sub(before); latency > time.Second {
		t.Errorf("cancelled after %v", latency)
	}
	must(t, stop())
	if took := time.Since(before); took > 2*time.Second {
		t.Errorf("stopped after %v", took)
	}
	equal(t, "attempts", stored(t, client, id).Attempts, 0)
}

func TestAGracefulStopLetsJobsFinish(t *testing.T) {
	worker, client := newWorker(t, Config{ShutdownGracePeriod: time.Hour})
	started, release := make(chan struct{}, 1), make(chan struct{})
	worker.Handle("wait", func(ctx context.Context, _ *Job) error {
		started <- struct{}{}
		<-release
		return ctx.Err() // nil unless the context is cancelled
	})
	id := add(t, client, "wait", nil)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- worker.Run(ctx) }()
	await(t, started, "the job")
	cancel()
	select {
	case err := <-ended:
		t.Fatalf("Run did not wait for the job: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	close(release)
	must(t, await(t, ended, "the end of Run"))
	if job, err := client.Job(context.Background(), id); job != nil || err != nil {
		t.Errorf("the job was not completed: %+v, %v", job, err)
	}
}

func TestJobsAreCancelledWhenTheGracePeriodIsOver(t *testing.T) {
	worker, client := newWorker(t, Config{ShutdownGracePeriod: 50 * time.Millisecond})
	started := make(chan struct{}, 1)
	worker.Handle("wait", func(ctx context.Context, _ *Job) error {
		started <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	})
	id := add(t, client, "wait", nil)
	stop := running(t, worker)
	await(t, started, "the job")
	must(t, stop())
	equal(t, "attempts", stored(t, client, id).Attempts, 0)
}

func TestAHandlerThatIgnoresItsCancellationIsNamed(t *testing.T) {
	worker, client := newWorker(t, Config{})
	started, release, returned := make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	worker.Handle("deaf", func(context.Context, *Job) error {
		defer close(returned)
		started <- struct{}{}
		<-release
		return nil
	})
	id := add(t, client, "deaf", nil)
	stop := running(t, worker)
	await(t, started, "the job")
	worker.Stop(Abort)
	err := stop()
	if !errors.Is(err, ErrStuck) {
		t.Fatalf("Run: %v", err)
	}
	contains(t, err.Error(), strconv.FormatInt(id, 10), "deaf")
	must(t, worker.Close())
	close(release) // its outcome arrives after the end of the worker, and has no effect
	await(t, returned, "the handler")
}

type contextKey struct{}

func TestJobsGetTheValuesOfTheContextOfRun(t *testing.T) {
	worker, client := newWorker(t, Config{})
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), contextKey{}, "value"))
	worker.Handle("look", func(job context.Context, _ *Job) error {
		cancel()
		equal(t, "value", fmt.Sprint(job.Value(contextKey{})), "value")
		return job.Err()
	})
	id := add(t, client, "look", nil)
	must(t, worker.Run(ctx))
	if job, err := client.Job(context.Background(), id); job != nil || err != nil {
		t.Errorf("the job was not completed: %+v, %v", job, err)
	}
}

func TestRunOnceReturnsTheErrorOfItsContext(t *testing.T) {
	worker, client := newWorker(t, Config{})
	ctx, cancel := context.WithCancel(context.Background())
	worker.Handle("cut", func(context.Context, *Job) error { cancel(); return nil })
	add(t, client, "cut", nil)
	if err := worker.RunOnce(ctx); !errors.Is(err, context.Canceled) && err != nil {
		t.Errorf("RunOnce: %v", err)
	}
	if err := worker.RunOnce(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("RunOnce with a context that has ended: %v", err)
	}
	must(t, worker.Run(ctx))
}

func TestALateStopDoesNotStopTheNextRun(t *testing.T) {
	worker, client := newWorker(t, Config{})
	var last *run
	runs := 0
	worker.Handle("task", func(context.Context, *Job) error {
		runs++
		last = worker.running
		return nil
	})
	for want := 1; want <= 2; want++ {
		add(t, client, "task", nil)
		runOnce(t, worker)
		equal(t, "runs", runs, want)
		last.stop(Graceful) // like a context that ends at the same time as the run
	}
}

func TestAWorkerRunsAgainButOnlyOnceAtATime(t *testing.T) {
	worker, client := newWorker(t, Config{})
	runs := make(chan error, 4)
	worker.Handle("again", func(context.Context, *Job) error {
		runs <- worker.RunOnce(context.Background())
		return nil
	})
	for i := 0; i < 2; i++ {
		add(t, client, "again", nil)
		runOnce(t, worker)
		if err := await(t, runs, "the job"); !errors.Is(err, ErrState) {
			t.Errorf("a second run at once: %v", err)
		}
	}
}

func TestAThousandWaitingHandlersNeedFewThreads(t *testing.T) {
	const jobs = 1000
	worker, client := newWorker(t, Config{Concurrency: jobs})
	var waiting sync.WaitGroup
	waiting.Add(jobs)
	worker.Handle("wait", func(ctx context.Context, _ *Job) error {
		waiting.Done()
		<-ctx.Done()
		return ctx.Err()
	})
	addMany(t, client, "wait", jobs)
	before := threads(t)
	stop := running(t, worker)
	all := make(chan struct{})
	go func() { waiting.Wait(); close(all) }()
	await(t, all, "a thousand handlers at once")
	if more := threads(t) - before; more > 40 {
		t.Errorf("%d waiting handlers need %d threads", jobs, more)
	}
	worker.Stop(Abort)
	must(t, stop())
}

func TestAThousandHandlersThatAddJobsNeedFewThreads(t *testing.T) {
	const jobs = 1000
	worker, client := newWorker(t, Config{Concurrency: jobs})
	var most atomic.Int64
	worker.Handle("parent", func(ctx context.Context, job *Job) error {
		_, err := job.Client().AddJob(ctx, "child", nil)
		for now := int64(threads(t)); ; {
			if seen := most.Load(); now <= seen || most.CompareAndSwap(seen, now) {
				return err
			}
		}
	})
	var children atomic.Int64
	worker.Handle("child", func(context.Context, *Job) error { children.Add(1); return nil })
	addMany(t, client, "parent", jobs)
	before := threads(t)
	runOnce(t, worker)
	equal(t, "children", children.Load(), jobs)
	if more := most.Load() - int64(before); more > 60 {
		t.Errorf("%d handlers that add jobs need %d threads", jobs, more)
	}
}

// threads returns the number of threads of the process.
func threads(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "\nThreads:\t")
	number, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.Atoi(number)
	must(t, err)
	return n
}

func addMany(t *testing.T, client *Client, task string, n int) []int64 {
	t.Helper()
	jobs := make([]NewJob, n)
	for i := range jobs {
		jobs[i] = NewJob{Task: task, Payload: i}
	}
	ids, err := client.AddJobs(context.Background(), jobs)
	must(t, err)
	equal(t, "ids", len(ids), n)
	return ids
}

func TestTenThousandJobsAreEachRunOnceWhileGarbageIsCollected(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(1))
	const jobs = 10000
	worker, client := newWorker(t, Config{Concurrency: 100})
	var ran [jobs]atomic.Int32
	Handle(worker, "count", func(_ context.Context, _ *Job, number int) error {
		ran[number].Add(1)
		if number%100 == 99 {
			return RetryAfter(time.Hour, errors.New("one in a hundred"))
		}
		return nil
	})
	addMany(t, client, "count", jobs)
	runOnce(t, worker)
	for number := range ran {
		if times := ran[number].Load(); times != 1 {
			t.Fatalf("job %d ran %d times", number, times)
		}
	}
	stats, err := client.JobStats(context.Background())
	must(t, err)
	equal(t, "what is left", stats, JobStats{Total: jobs / 100, Scheduled: jobs / 100})
	equal(t, "completed", worker.Stats().Completed, jobs-jobs/100)
	equal(t, "failed", worker.Stats().Failed, jobs/100)
}

func TestASignalStormDisturbsNoJob(t *testing.T) {
	const inTheStorm = "GO_TEST_IN_THE_STORM"
	if os.Getenv(inTheStorm) == "" {
		// The storm runs in a process of its own, because its last signals arrive late.
		child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		child.Env = append(os.Environ(), inTheStorm+"=1")
		if output, err := child.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, output)
		}
		return
	}
	const jobs = 2000
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	worker, client := newWorker(t, Config{Concurrency: 20})
	var ran, arrived atomic.Int64
	worker.Handle("count", func(context.Context, *Job) error { ran.Add(1); return nil })
	addMany(t, client, "count", jobs)
	over := make(chan struct{})
	go func() {
		for range signals {
			arrived.Add(1)
		}
	}()
	go func() {
		for {
			select {
			case <-over:
				return
			default:
				_ = syscall.Kill(os.Getpid(), syscall.SIGINT)
				_ = syscall.Kill(os.Getpid(), syscall.SIGTERM)
				runtime.Gosched()
			}
		}
	}()
	runOnce(t, worker)
	close(over)
	equal(t, "jobs", ran.Load(), jobs)
	if arrived.Load() == 0 {
		t.Error("no signal was sent")
	}
}

func TestASignalStopsAWorkerByItsContext(t *testing.T) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT)
	defer stop()
	worker, client := newWorker(t, Config{})
	worker.Handle("signal", func(context.Context, *Job) error { return syscall.Kill(os.Getpid(), syscall.SIGINT) })
	add(t, client, "signal", nil)
	must(t, worker.Run(ctx))
}

func TestMiddlewareIsCalledFromTheOutsideIn(t *testing.T) {
	worker, client := newWorker(t, Config{})
	calls := make(chan string, 8)
	named := func(name string) func(HandlerFunc) HandlerFunc {
		return func(next HandlerFunc) HandlerFunc {
			return func(ctx context.Context, job *Job) error {
				calls <- name
				err := next(ctx, job)
				calls <- fmt.Sprint(name, " saw ", err)
				return nil
			}
		}
	}
	worker.Handle("task", func(context.Context, *Job) error { return errors.New("no") })
	worker.Use(named("outer"), named("inner"))
	add(t, client, "task", nil)
	runOnce(t, worker)
	for _, want := range []string{"outer", "inner", "inner saw no", "outer saw <nil>"} {
		equal(t, "call", await(t, calls, want), want)
	}
}

func TestRunReturnsMistakesInRegistering(t *testing.T) {
	nothing := func(context.Context, *Job) error { return nil }
	for what, register := range map[string]func(*Worker){
		"has no handler":   func(w *Worker) { w.Handle("t", nil) },
		"\"typed\" has no": func(w *Worker) { Handle[int](w, "typed", nil) },
		"\"batch\" has no": func(w *Worker) { HandleBatch[int](w, "batch", nil) },
		"already":          func(w *Worker) { w.Handle("t", nothing); w.Handle("t", nothing) },
		"128":              func(w *Worker) { w.Handle(strings.Repeat("x", 129), nothing) },
		"NUL":              func(w *Worker) { w.Handle("a\x00b", nothing) },
		"timeout":          func(w *Worker) { w.Handle("t", nothing, Timeout(-time.Second)) },
		"backoff":          func(w *Worker) { w.Handle("t", nothing, TaskOption{"backoff", "now and then"}) },
		"NoSuchEvent":      func(w *Worker) { w.On("NoSuchEvent", func(Event) {}) },
		"has no hook":      func(w *Worker) { w.On("JobComplete", nil) },
	} {
		worker, _ := newWorker(t, Config{})
		register(worker)
		worker.Handle("another", nothing) // must not replace the first error
		err := worker.RunOnce(context.Background())
		var ours *Error
		if !errors.As(err, &ours) {
			t.Errorf("%s: RunOnce returned %v", what, err)
			continue
		}
		contains(t, err.Error(), what)
	}
}

func TestTheNextRunReturnsALateRegistration(t *testing.T) {
	worker, client := newWorker(t, Config{})
	worker.Handle("late", func(context.Context, *Job) error {
		worker.Handle("another", func(context.Context, *Job) error { return nil })
		return nil
	})
	add(t, client, "late", nil)
	runOnce(t, worker)
	if err := worker.RunOnce(context.Background()); !errors.Is(err, ErrState) {
		t.Errorf("RunOnce: %v", err)
	}
}

func TestAClosedWorkerReturnsErrClosed(t *testing.T) {
	worker, client := newWorker(t, Config{})
	worker.Handle("t", func(context.Context, *Job) error { return nil })
	if _, err := worker.Client().AddJob(context.Background(), "t", nil); !errors.Is(err, ErrState) {
		t.Errorf("the client of a worker that has not run: %v", err)
	}
	equal(t, "id", worker.ID(), "")
	add(t, client, "t", nil)
	runOnce(t, worker)
	if worker.ID() == "" {
		t.Error("no id after a run")
	}
	must(t, worker.Close())
	must(t, worker.Close())
	if err := worker.Run(context.Background()); !errors.Is(err, ErrClosed) {
		t.Errorf("Run: %v", err)
	}
	if err := worker.AddCrontab("* * * * * t"); !errors.Is(err, ErrClosed) {
		t.Errorf("AddCrontab: %v", err)
	}
	if _, err := worker.Client().AddJob(context.Background(), "t", nil); !errors.Is(err, ErrClosed) {
		t.Errorf("the client of a closed worker: %v", err)
	}
	if err := worker.Flush(time.Second); err == nil {
		t.Error("Flush succeeds")
	}
	equal(t, "stats", worker.Stats(), Stats{})
	if worker.StatsJSON() != nil {
		t.Error("a closed worker has stats")
	}
	worker.Stop(Abort)
}

func TestCloseEndsAWorkerThatRuns(t *testing.T) {
	worker, client := newWorker(t, Config{ShutdownGracePeriod: time.Hour})
	started := make(chan struct{}, 1)
	worker.Handle("wait", func(ctx context.Context, _ *Job) error {
		started <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	})
	add(t, client, "wait", nil)
	ended := make(chan error, 1)
	go func() { ended <- worker.Run(context.Background()) }()
	await(t, started, "the job")
	var closing sync.WaitGroup
	for i := 0; i < 3; i++ {
		closing.Add(1)
		go func() { defer closing.Done(); _ = worker.Close() }()
	}
	must(t, await(t, ended, "the end of Run"))
	closing.Wait()
}

func TestAWorkerThatCannotConnectFailsAtOnce(t *testing.T) {
	worker, err := NewWorker(Config{DatabaseURL: "postgres://none@127.0.0.1:1/none?sslmode=disable"})
	must(t, err)
	defer worker.Close()
	worker.Handle("t", func(context.Context, *Job) error { return nil })
	before := time.Now()
	err = worker.Run(context.Background())
	var ours *Error
	if !errors.As(err, &ours) || !errors.Is(err, ErrConnect) {
		t.Fatalf("Run: %v", err)
	}
	if !ours.Retryable {
		t.Error("the error is not retryable, although the database may start later")
	}
	if took := time.Since(before); took > 5*time.Second {
		t.Errorf("the error was returned after %v", took)
	}
}
