// Package graphileworker runs and adds jobs of a PostgreSQL job queue, on the tables of Graphile Worker. It is a binding
// for libgraphile_worker, a C library that must be installed: see README.md.
//
// # Running jobs
//
// A [Worker] has one handler per task:
//
//	worker, err := graphileworker.NewWorker(graphileworker.Config{FromEnv: true, Concurrency: 50})
//	if err != nil {
//		return err
//	}
//	defer worker.Close()
//	graphileworker.Handle(worker, "send_email", func(ctx context.Context, job *graphileworker.Job, email Email) error {
//		return email.send(ctx)
//	})
//	return worker.Run(ctx)
//
// A handler that returns nil completes its job. An error or a panic fails the attempt, and the job is retried: after
// the delay of [RetryAfter], its task's backoff, or e^attempts seconds. Handlers receive their payload decoded
// ([Handle]), as a list of which only failed items are retried ([HandleBatch]), or as JSON ([Worker.Handle]).
// The end of Run's context stops the worker gracefully. The contexts of the jobs end when the grace period is over.
//
// Each job runs on a goroutine of its own, at most Config.Concurrency at once. Waiting for jobs needs no thread.
//
// # Adding jobs
//
// A [Client] adds jobs on its own connections. [Client.AddJobTx] adds a job in the caller's transaction, so that the job
// exists if and only if the transaction commits. Handlers have a client too: [Job.Client].
//
// # Errors
//
// Errors have the type *[Error]. Use errors.Is with a [Status], such as [ErrConnect], to find their kind.
package graphileworker
