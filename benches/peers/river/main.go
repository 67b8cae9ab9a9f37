// The driver of River. benches/peers.rs describes its words and lines.
//
// The best settings are those that cmd/river/riverbench of River has: 2,000 workers, and short times between fetches.
// River keeps finished jobs for 24 hours, until its cleaner deletes them. So both settings keep them during a run.
package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

type noop struct{}

func (noop) Kind() string { return "noop" }

type stamp struct {
	N int `json:"n"`
}

func (stamp) Kind() string { return "stamp" }

var ran atomic.Int64

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func number(text string) int { return must(strconv.Atoi(text)) }

func main() {
	if os.Args[1] == "version" {
		info, _ := debug.ReadBuildInfo()
		for _, module := range info.Deps {
			if module.Path == "github.com/riverqueue/river" {
				fmt.Printf("River %s (%s)\n", module.Version, runtime.Version())
			}
		}
		return
	}
	ctx := context.Background()
	pool := must(pgxpool.New(ctx, os.Getenv("DATABASE_URL")))
	defer pool.Close()
	settings, rest := os.Args[2], os.Args[3:]
	switch os.Args[1] {
	case "setup":
		migrator := must(rivermigrate.New(riverpgxv5.New(pool), nil))
		must(migrator.Migrate(ctx, rivermigrate.DirectionUp, nil))
	case "add":
		add(ctx, pool, number(rest[0]), number(rest[1]))
	case "trickle":
		trickle(ctx, pool, number(rest[0]))
	case "work":
		workers := 100 // River has no default. This is the number in its documentation.
		if settings == "best" {
			workers = 2000
		}
		if len(rest) > 0 {
			workers = number(rest[0])
		}
		work(ctx, pool, settings, workers)
	default:
		log.Fatal("unknown words")
	}
}

func add(ctx context.Context, pool *pgxpool.Pool, jobs, batch int) {
	client := must(river.NewClient(riverpgxv5.New(pool), &river.Config{}))
	for left := jobs; left > 0; left -= batch {
		many := make([]river.InsertManyParams, min(batch, left))
		for i := range many {
			many[i].Args = noop{}
		}
		must(client.InsertManyFast(ctx, many))
	}
}

func trickle(ctx context.Context, pool *pgxpool.Pool, jobs int) {
	client := must(river.NewClient(riverpgxv5.New(pool), &river.Config{}))
	start := time.Now()
	for n := range jobs {
		time.Sleep(time.Until(start.Add(time.Duration(n) * 10 * time.Millisecond)))
		err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			_, err := client.InsertTx(ctx, tx, stamp{n}, nil)
			fmt.Println("added", n, time.Now().UnixMicro())
			return err
		})
		if err != nil {
			log.Fatal(err)
		}
	}
}

func work(ctx context.Context, pool *pgxpool.Pool, settings string, maxWorkers int) {
	workers := river.NewWorkers()
	river.AddWorker(workers, river.WorkFunc(func(context.Context, *river.Job[noop]) error {
		ran.Add(1)
		return nil
	}))
	river.AddWorker(workers, river.WorkFunc(func(_ context.Context, job *river.Job[stamp]) error {
		fmt.Println("at", job.Args.N, time.Now().UnixMicro())
		return nil
	}))
	config := &river.Config{
		Queues:  map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: maxWorkers}},
		Workers: workers,
	}
	if settings == "best" {
		config.FetchCooldown, config.FetchPollInterval = 2*time.Millisecond, 20*time.Millisecond
	}
	client := must(river.NewClient(riverpgxv5.New(pool), config))
	stop, _ := signal.NotifyContext(ctx, syscall.SIGTERM)
	fmt.Println("ready")
	input := bufio.NewReader(os.Stdin)
	must(input.ReadString('\n'))
	go func() {
		_, err := input.ReadString('\n')
		log.Fatal("the bench has ended: ", err)
	}()
	if err := client.Start(ctx); err != nil {
		log.Fatal(err)
	}
	var printed int64
	for tick := time.NewTicker(10 * time.Millisecond); stop.Err() == nil; {
		select {
		case <-stop.Done():
		case <-tick.C:
			if now := ran.Load(); now != printed {
				fmt.Println("ran", now)
				printed = now
			}
		}
	}
	if err := client.Stop(ctx); err != nil {
		log.Fatal(err)
	}
}
