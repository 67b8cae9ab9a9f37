package graphileworker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	graphileworker "github.com/graphile-worker-native/libgraphile_worker/bindings/go"
)

type Email struct {
	To string `json:"to"`
}

// fromEnv reads DATABASE_URL.
var fromEnv = graphileworker.Config{FromEnv: true}

// newClient makes a client, and installs the schema.
func newClient(ctx context.Context) *graphileworker.Client {
	client, err := graphileworker.NewClient(ctx, fromEnv)
	if err != nil {
		panic(err)
	}
	if err := client.Migrate(ctx); err != nil {
		panic(err)
	}
	return client
}

func Example() {
	ctx := context.Background()
	client := newClient(ctx)
	defer client.Close()
	if _, err := client.AddJob(ctx, "send_email", Email{To: "ada@example.org"}); err != nil {
		fmt.Println(err)
	}

	worker, err := graphileworker.NewWorker(fromEnv)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer worker.Close()
	graphileworker.Handle(worker, "send_email", func(ctx context.Context, job *graphileworker.Job, email Email) error {
		fmt.Println("attempt", job.Attempts, "to", email.To)
		return nil
	})
	fmt.Println(worker.RunOnce(ctx))
	// Output:
	// attempt 1 to ada@example.org
	// <nil>
}

// A worker that stops gracefully at Ctrl-C and at SIGTERM.
func ExampleWorker_Run() {
	worker, err := graphileworker.NewWorker(graphileworker.Config{
		FromEnv:             true,
		Concurrency:         100,
		ShutdownGracePeriod: 30 * time.Second,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer worker.Close()
	worker.Handle("send_email", func(ctx context.Context, job *graphileworker.Job) error {
		return syscall.Kill(os.Getpid(), syscall.SIGTERM)
	}, graphileworker.Timeout(10*time.Minute), graphileworker.ExponentialBackoff(10*time.Second, time.Hour))

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	client := newClient(ctx)
	defer client.Close()
	if _, err := client.AddJob(ctx, "send_email", Email{To: "ada@example.org"}); err != nil {
		fmt.Println(err)
	}
	fmt.Println(worker.Run(ctx))
	// Output: <nil>
}

// The payload as JSON, and further jobs on the worker's own connections.
func ExampleWorker_Handle() {
	ctx := context.Background()
	worker, err := graphileworker.NewWorker(fromEnv)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer worker.Close()
	worker.Handle("split", func(ctx context.Context, job *graphileworker.Job) error {
		var words []json.RawMessage
		if err := json.Unmarshal(job.Payload, &words); err != nil {
			return err
		}
		for _, word := range words {
			if _, err := job.Client().AddJob(ctx, "shout", word, graphileworker.Queue("in order")); err != nil {
				return err
			}
		}
		return nil
	})
	graphileworker.Handle(worker, "shout", func(_ context.Context, _ *graphileworker.Job, word string) error {
		fmt.Println(word + "!")
		return nil
	})

	client := newClient(ctx)
	defer client.Close()
	if _, err := client.AddJob(ctx, "split", []string{"one", "two"}); err != nil {
		fmt.Println(err)
	}
	fmt.Println(worker.RunOnce(ctx))
	// Output:
	// one!
	// two!
	// <nil>
}

// A list in one job: only the items that failed are retried.
func ExampleHandleBatch() {
	ctx := context.Background()
	worker, err := graphileworker.NewWorker(fromEnv)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer worker.Close()
	graphileworker.HandleBatch(worker, "letters", func(_ context.Context, job *graphileworker.Job, letters []Email) []error {
		errs := make([]error, len(letters))
		for i, letter := range letters {
			if letter.To == "" {
				errs[i] = errors.New("the letter has no address")
			}
		}
		return errs
	}, graphileworker.FixedBackoff(time.Hour))

	client := newClient(ctx)
	defer client.Close()
	id, err := client.AddJob(ctx, "letters", []Email{{To: "ada@example.org"}, {}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(worker.RunOnce(ctx))
	job, err := client.Job(ctx, id)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(string(job.Payload), *job.LastError)
	// Output:
	// <nil>
	// [{"to":""}] 1 of 2 batch items failed: 1: the letter has no address
}

func ExampleWorker_Use() {
	ctx := context.Background()
	worker, err := graphileworker.NewWorker(fromEnv)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer worker.Close()
	worker.Use(func(next graphileworker.HandlerFunc) graphileworker.HandlerFunc {
		return func(ctx context.Context, job *graphileworker.Job) error {
			fmt.Println("before", job.Task)
			err := next(ctx, job)
			fmt.Println("after", job.Task, err)
			return err
		}
	})
	worker.Handle("middle", func(context.Context, *graphileworker.Job) error { return nil })

	client := newClient(ctx)
	defer client.Close()
	if _, err := client.AddJob(ctx, "middle", nil); err != nil {
		fmt.Println(err)
	}
	fmt.Println(worker.RunOnce(ctx))
	// Output:
	// before middle
	// after middle <nil>
	// <nil>
}

func ExampleWorker_On() {
	ctx := context.Background()
	worker, err := graphileworker.NewWorker(fromEnv)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer worker.Close()
	worker.Handle("observed", func(context.Context, *graphileworker.Job) error { return errors.New("not today") })
	worker.On("JobPermanentlyFail", func(e graphileworker.Event) {
		var data struct{ Error string }
		if err := e.Decode(&data); err != nil {
			fmt.Println(err)
		}
		fmt.Println(e.Name, data.Error)
	})

	client := newClient(ctx)
	defer client.Close()
	if _, err := client.AddJob(ctx, "observed", nil, graphileworker.MaxAttempts(1)); err != nil {
		fmt.Println(err)
	}
	fmt.Println(worker.RunOnce(ctx))
	// Output:
	// JobPermanentlyFail not today
	// <nil>
}

func ExampleRetryAfter() {
	cause := errors.New("too many requests")
	err := graphileworker.RetryAfter(time.Minute, cause)
	fmt.Println(err, errors.Is(err, cause))
	// Output: too many requests true
}

func ExampleError() {
	_, err := graphileworker.NewWorker(graphileworker.Config{Options: map[string]string{"concurrency": "many"}})
	var failure *graphileworker.Error
	fmt.Println(errors.Is(err, graphileworker.ErrConfig), errors.As(err, &failure), failure.Status.String())
	// Output: true true GW_ERR_CONFIG
}

func ExampleParseCrontab() {
	crontab, err := graphileworker.ParseCrontab("0 8 * * 1 report ?tz=Europe/Berlin")
	if err != nil {
		fmt.Println(err)
		return
	}
	after := time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)
	for _, at := range crontab.Next(0, after, 2) {
		fmt.Println(crontab.Items[0].Task, at.Format(time.RFC3339))
	}
	_, err = graphileworker.ParseCrontab("0 8 * *")
	fmt.Println(errors.Is(err, graphileworker.ErrCrontab))
	// Output:
	// report 2026-11-30T07:00:00Z
	// report 2026-12-07T07:00:00Z
	// true
}
