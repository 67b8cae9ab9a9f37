// Runs all due jobs of the task noop, and prints the seconds of wall clock and of CPU that they took.
package main

import (
	"context"
	"fmt"
	"log"
	"syscall"
	"time"

	graphileworker "github.com/graphile-worker-native/libgraphile_worker/bindings/go"
)

func cpu() time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		log.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

func main() {
	startWall, startCPU := time.Now(), cpu()
	worker, err := graphileworker.NewWorker(graphileworker.Config{FromEnv: true, Concurrency: 4})
	if err != nil {
		log.Fatal(err)
	}
	defer worker.Close()
	worker.Handle("noop", func(context.Context, *graphileworker.Job) error { return nil })
	if err := worker.RunOnce(context.Background()); err != nil {
		log.Fatal(err)
	}
	fmt.Println(time.Since(startWall).Seconds(), (cpu() - startCPU).Seconds())
}
