// Package graphileworker runs and adds jobs of a PostgreSQL job queue, on the tables of Graphile Worker. It is a door
// to libgraphile_worker, a C library that must be installed: see README.md.
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
// A handler that returns nil completes its job. An error or a panic fails the attempt, and the job is tried again
// later: after [RetryAfter], its task's backoff, or e^attempts seconds. Handlers get their payload decoded
// ([Handle]), as a list of which only failed items are tried again ([HandleBatch]), or as JSON ([Worker.Handle]).
// The end of Run's context stops the worker gracefully; the contexts of the jobs end when the grace period is over.
//
// Each job runs on a goroutine of its own, Config.Concurrency of them at most. Waiting for jobs costs no thread.
//
// # Adding jobs
//
// A [Client] adds jobs on connections of its own, [Client.AddJobTx] on a transaction of the caller's, so that a job
// exists if and only if what it is about was committed. Handlers have a client too: [Job.Client].
//
// # Errors
//
// They are of type *[Error] and are told apart with errors.Is and a [Status], such as [ErrConnect].
package graphileworker
