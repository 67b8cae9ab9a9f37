// Adds a job and runs it.
package main

import (
	"context"
	"fmt"
	"log"

	graphileworker "github.com/graphile-worker-native/libgraphile_worker/bindings/go"
)

type Hello struct {
	Name string `json:"name"`
}

func main() {
	worker, err := graphileworker.NewWorker(graphileworker.Config{FromEnv: true}) // DATABASE_URL
	if err != nil {
		log.Fatal(err)
	}
	defer worker.Close()
	graphileworker.Handle(worker, "hello", func(_ context.Context, job *graphileworker.Job, hello Hello) error {
		fmt.Printf("Hello, %s! Attempt %d of job %d.\n", hello.Name, job.Attempts, job.ID)
		return nil
	})

	ctx := context.Background()
	client, err := graphileworker.NewClient(ctx, graphileworker.Config{FromEnv: true})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	if err := client.Migrate(ctx); err != nil {
		log.Fatal(err)
	}
	if _, err := client.AddJob(ctx, "hello", Hello{Name: "Ada"}); err != nil {
		log.Fatal(err)
	}
	// Runs all due jobs and returns. Run runs until its context ends.
	if err := worker.RunOnce(ctx); err != nil {
		log.Fatal(err)
	}
}
