/* Pulled jobs: next, next_batch, the descriptor for event loops, wakeups, cancellations, and the cost of an accessor. */
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fixture.h"

static gw_worker_t *a_pulling_worker(const char *key, const char *value) {
  gw_worker_t *worker = a_worker_with(key, value, NULL);
  add_task(worker, "task", NULL, NULL);
  start(worker);
  return worker;
}

/* How many ms to wait for an immediate event. Shorter than the engine's poll interval, which would hide a missing wakeup. */
static int soon(void) { return check_times_count() ? 5000 : 60000; }

static gw_job_t *pull(gw_worker_t *worker) {
  gw_job_t *job = NULL;
  OK(gw_worker_next(worker, soon(), &job, &err));
  CHECK(job != NULL);
  return job;
}

static void finish(gw_job_t *job) {
  OK(gw_job_complete(job, &err));
  gw_job_free(job);
}

TEST(pulled_job_stays_locked_until_its_outcome) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_pulling_worker(NULL, NULL);
  gw_job_t *untouched = (gw_job_t *)&client, *none = untouched;
  size_t count = 7;
  ANSWERS(GW_TIMEOUT, gw_worker_next(worker, 0, &none, &err));
  ANSWERS(GW_TIMEOUT, gw_worker_next(worker, 10, &none, &err));
  ANSWERS(GW_TIMEOUT, gw_worker_next_batch(worker, 0, &none, 1, &count, &err));
  CHECK(none == untouched);
  CHECK_INT(count, 7);
  int64_t done = add_job(client, "task", "1");
  gw_job_t *job = pull(worker);
  CHECK_INT(gw_job_id(job), done);
  CHECK_INT(gw_job_attempts(job), 1);
  CHECK_JOB(client, done, "state", "locked");
  finish(job);
  int64_t failed = add_job(client, "task", "2");
  job = pull(worker);
  OK(gw_job_fail(job, "no luck", GW_NUL, &err));
  gw_job_free(job);
  int64_t dropped = add_job(client, "task", "3");
  gw_job_free(pull(worker));
  end(worker);
  CHECK(!job_exists(client, done));
  CHECK_JOB(client, failed, "last_error", "no luck");
  CHECK_JOB(client, dropped, "last_error", "handle dropped without a result");
  gw_client_free(client);
}

TEST(pulling_needs_a_started_worker_with_pulled_tasks) {
  gw_worker_t *worker = a_worker();
  gw_job_t *job = NULL;
  add_task(worker, "task", NULL, NULL);
  ANSWERS(GW_ERR_STATE, gw_worker_next(worker, 0, &job, &err));
  gw_worker_free(worker);
  worker = a_worker();
  add_task(worker, "task", succeed, NULL);
  start(worker);
  ANSWERS(GW_ERR_STATE, gw_worker_next(worker, 0, &job, &err));
  end(worker);
}

TEST(no_more_jobs_are_handed_out_at_once_than_the_concurrency) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_pulling_worker("concurrency", "2");
  gw_job_t *none = NULL;
  add_jobs(client, "task", 3);
  gw_job_t *one = pull(worker), *two = pull(worker);
  OK(gw_worker_flush(worker, -1, &err));
  ANSWERS(GW_TIMEOUT, gw_worker_next(worker, 0, &none, &err));
  finish(one);
  one = pull(worker);
  finish(one);
  finish(two);
  end(worker);
  gw_client_free(client);
}

TEST(batch_returns_available_jobs_up_to_capacity) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_pulling_worker("concurrency", "10");
  gw_job_t *jobs[10];
  size_t count = 0, all = 0;
  ANSWERS(GW_TIMEOUT, gw_worker_next_batch(worker, 0, jobs, 10, &count, &err));
  add_jobs(client, "task", 7);
  while (all < 7) {
    OK(gw_worker_next_batch(worker, -1, jobs + all, 4, &count, &err));
    CHECK(count >= 1 && count <= 4);
    all += count;
  }
  CHECK_INT(all, 7);
  for (size_t i = 0; i < 7; i++) finish(jobs[i]);
  end(worker);
  gw_client_free(client);
}

TEST(free_slot_is_filled_before_the_outcome_is_written) {
  gw_client_t *client = a_client();
  gw_worker_t *worker =
      a_worker_with("concurrency", "1", "poll_interval", "1h", "complete_job_batch_delay", "60s", NULL);
  add_task(worker, "task", NULL, NULL);
  start(worker);
  add_jobs(client, "task", 4);
  for (int i = 0; i < 4; i++) finish(pull(worker));
  end(worker);
  gw_client_free(client);
}

static void *pull_until_stopped(void *worker) {
  gw_job_t *job = NULL;
  gw_status_t status;
  while ((status = gw_worker_next(worker, -1, &job, NULL)) == GW_OK) finish(job);
  CHECK_INT(status, GW_STOPPED);
  return NULL;
}

TEST(stop_is_returned_to_every_pulling_thread_and_later_calls) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_pulling_worker(NULL, NULL);
  pthread_t threads[3];
  gw_job_t *job = NULL;
  size_t count = 0;
  add_jobs(client, "task", 5);
  for (int i = 0; i < 3; i++) threads[i] = start_thread(pull_until_stopped, worker);
  gw_worker_request_stop(worker, GW_STOP_GRACEFUL);
  for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
  OK(gw_worker_wait(worker, -1, &err));
  ANSWERS(GW_STOPPED, gw_worker_next(worker, -1, &job, &err));
  ANSWERS(GW_STOPPED, gw_worker_next_batch(worker, -1, &job, 1, &count, &err));
  gw_worker_free(worker);
  gw_client_free(client);
}

TEST(stop_is_returned_although_a_pulled_job_never_ends) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker_with("shutdown_grace_period", "50ms", NULL);
  gw_job_t *next = NULL;
  int64_t id = add_job(client, "task", "{}");
  add_task(worker, "task", NULL, NULL);
  start(worker);
  gw_job_t *job = pull(worker);
  gw_worker_request_stop(worker, GW_STOP_GRACEFUL);
  ANSWERS(GW_STOPPED, gw_worker_next(worker, soon(), &next, &err));
  ANSWERS(GW_ERR_STUCK, gw_worker_wait(worker, -1, &err));
  CHECK_HAS(error_message(), "task");
  ANSWERS(GW_STOPPED, gw_worker_next(worker, -1, &next, &err));
  ANSWERS(GW_ERR_CLOSED, gw_job_complete(job, &err));
  gw_job_free(job);
  if (check_times_count()) CHECK_JOB(client, id, "locked_by", "null"); /* Given back within a second. */
  gw_worker_free(worker);
  gw_client_free(client);
}

TEST(run_once_hands_out_due_jobs_then_returns_stopped) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker();
  gw_job_t *job = NULL;
  int pulled = 0;
  gw_status_t status;
  add_jobs(client, "task", 3);
  add_task(worker, "task", NULL, NULL);
  OK(gw_worker_start(worker, GW_RUN_ONCE, &err));
  while ((status = gw_worker_next(worker, -1, &job, &err)) == GW_OK) finish(job), pulled++;
  CHECK_INT(status, GW_STOPPED);
  CHECK_INT(pulled, 3);
  OK(gw_worker_wait(worker, -1, &err));
  gw_worker_free(worker);
  gw_client_free(client);
}

static void *wake(void *worker) {
  gw_worker_wakeup(worker);
  return NULL;
}

TEST(wakeup_ends_one_waiting_or_later_next) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_pulling_worker(NULL, NULL);
  gw_job_t *job = NULL;
  pthread_t waker = start_thread(wake, worker); /* The wakeup may come before or during the wait. */
  ANSWERS(GW_WOKEN, gw_worker_next(worker, soon(), &job, &err));
  pthread_join(waker, NULL);
  ANSWERS(GW_TIMEOUT, gw_worker_next(worker, 0, &job, &err));
  gw_worker_wakeup(worker);
  ANSWERS(GW_WOKEN, gw_worker_next(worker, -1, &job, &err));
  ANSWERS(GW_TIMEOUT, gw_worker_next(worker, 0, &job, &err));
  CHECK(job == NULL);
  end(worker);
  gw_client_free(client);
}

static gw_worker_t *of_the_signal;
static void stop_by_signal(int number) {
  (void)number;
  gw_worker_request_stop(of_the_signal, GW_STOP_GRACEFUL);
}
static void wake_by_signal(int number) {
  (void)number;
  gw_worker_wakeup(of_the_signal);
}

TEST(signal_handlers_wake_and_stop_a_worker) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = of_the_signal = a_pulling_worker(NULL, NULL);
  gw_job_t *job = NULL;
  signal(SIGUSR1, wake_by_signal);
  signal(SIGTERM, stop_by_signal);
  raise(SIGUSR1);
  ANSWERS(GW_WOKEN, gw_worker_next(worker, -1, &job, &err));
  kill(getpid(), SIGTERM);
  ANSWERS(GW_STOPPED, gw_worker_next(worker, -1, &job, &err));
  OK(gw_worker_wait(worker, -1, &err));
  gw_worker_free(worker);
  gw_client_free(client);
}

static void alarm_often(bool on) {
  struct itimerval often = {{0, on ? 500 : 0}, {0, on ? 500 : 0}};
  setitimer(ITIMER_REAL, &often, NULL);
}

TEST(many_signals_during_calls_lose_no_job) {
  size_t count = check_scaled(500);
  gw_client_t *client = a_client();
  gw_worker_t *worker = of_the_signal = a_pulling_worker("concurrency", "50");
  gw_job_t *job = NULL;
  signal(SIGALRM, wake_by_signal);
  add_jobs(client, "task", count);
  if (check_times_count()) alarm_often(true);
  for (size_t done = 0; done < count;) {
    gw_status_t status = gw_worker_next(worker, -1, &job, &err);
    if (status == GW_OK) finish(job), done++;
    else CHECK_INT(status, GW_WOKEN);
  }
  alarm_often(false);
  OK(gw_worker_flush(worker, -1, &err));
  CHECK_INT(stats_of(worker).completed, count);
  end(worker);
  gw_client_free(client);
}

static void *interrupt_main(void *main_thread) {
  for (int i = 0; i < 200; i++) {
    pthread_kill(*(pthread_t *)main_thread, SIGUSR2);
    struct timespec pause = {0, 100000};
    nanosleep(&pause, NULL);
  }
  return NULL;
}
static void ignore(int number) { (void)number; }

static void *check_often(void *client) {
  for (int i = 0; i < 20; i++) OK(gw_client_check(client, 5000, &err));
  return NULL;
}

TEST(library_threads_receive_no_signals) {
  gw_client_t *client = a_client();
  pthread_t threads[4]; /* More calls at once than one thread of the library can handle. */
  for (int i = 0; i < 4; i++) threads[i] = start_thread(check_often, client);
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
  gw_worker_t *worker = a_pulling_worker(NULL, NULL);
  char line[128], path[64];
  unsigned long long blocked;
  int checked = 0;
  FILE *tasks = popen("ls /proc/$PPID/task", "r");
  while (fgets(line, sizeof line, tasks)) {
    if (atoi(line) == getpid()) continue;
    snprintf(path, sizeof path, "/proc/self/task/%d/status", atoi(line));
    FILE *status = fopen(path, "r");
    if (!status) continue;
    while (fgets(line, sizeof line, status))
      if (sscanf(line, "SigBlk: %llx", &blocked) == 1) {
        unsigned long long wanted = 1ULL << (SIGINT - 1) | 1ULL << (SIGTERM - 1) | 1ULL << (SIGALRM - 1) |
                                    1ULL << (SIGUSR1 - 1) | 1ULL << (SIGCHLD - 1) | 1ULL << (SIGPROF - 1);
        CHECK((blocked & wanted) == wanted);
        checked++;
      }
    fclose(status);
  }
  pclose(tasks);
  CHECK(checked >= 2);
  end(worker);
  gw_client_free(client);
}

TEST(waiting_calls_go_on_after_an_interrupting_signal) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_pulling_worker(NULL, NULL);
  pthread_t self = pthread_self();
  gw_job_t *job = NULL;
  struct sigaction action = {.sa_handler = ignore}; /* Without SA_RESTART. */
  sigaction(SIGUSR2, &action, NULL);
  pthread_t thread = start_thread(interrupt_main, &self);
  for (int i = 0; i < 20; i++) {
    ANSWERS(GW_TIMEOUT, gw_worker_next(worker, 3, &job, &err));
    OK(gw_client_check(client, 5000, &err));
  }
  pthread_join(thread, NULL);
  end(worker);
  gw_client_free(client);
}

/* Pulls until TIMEOUT, and returns the number of jobs. Sets `stopped` on STOPPED. */
static size_t drain(gw_worker_t *worker, bool *stopped) {
  gw_job_t *job = NULL;
  for (size_t count = 0;; count++) {
    gw_status_t status = gw_worker_next(worker, 0, &job, &err);
    if (status == GW_STOPPED) *stopped = true;
    if (status != GW_OK) {
      if (status != GW_STOPPED) CHECK_INT(status, GW_TIMEOUT);
      return count;
    }
    finish(job);
  }
}

TEST(a_poll_loop_gets_every_job_and_the_stop) {
  size_t count = check_scaled(300), done = 0;
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker();
  int fd = gw_worker_fd(worker); /* Before the start, and the same afterwards. */
  struct pollfd ready = {.fd = fd, .events = POLLIN};
  bool stopped = false;
  CHECK(fd >= 0);
  add_task(worker, "task", NULL, NULL);
  start(worker);
  CHECK_INT(gw_worker_fd(worker), fd);
  add_jobs(client, "task", count);
  while (!stopped) {
    CHECK(poll(&ready, 1, soon()) == 1);
    done += drain(worker, &stopped);
    if (done == count) gw_worker_request_stop(worker, GW_STOP_GRACEFUL);
  }
  CHECK_INT(done, count);
  CHECK_INT(poll(&ready, 1, 0), 1); /* Readable, because the worker has stopped. */
  OK(gw_worker_wait(worker, -1, &err));
  gw_worker_free(worker);
  gw_client_free(client);
}

TEST(descriptor_is_readable_while_a_job_waits) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_pulling_worker("concurrency", "2");
  struct pollfd ready = {.fd = gw_worker_fd(worker), .events = POLLIN};
  bool stopped = false;
  add_jobs(client, "task", 2);
  CHECK_INT(poll(&ready, 1, soon()), 1);
  CHECK_INT(poll(&ready, 1, 0), 1); /* Polling does not drain it. */
  size_t done = drain(worker, &stopped);
  while (done < 2) {
    CHECK_INT(poll(&ready, 1, soon()), 1);
    done += drain(worker, &stopped);
  }
  CHECK_INT(drain(worker, &stopped), 0);
  CHECK_INT(poll(&ready, 1, 0), 0);
  gw_worker_wakeup(worker);
  CHECK_INT(poll(&ready, 1, soon()), 1);
  end(worker);
  gw_client_free(client);
}

TEST(descriptor_becomes_readable_when_a_slot_becomes_free) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker_with("concurrency", "1", "local_queue_size", "10", NULL);
  struct pollfd ready = {.fd = gw_worker_fd(worker), .events = POLLIN};
  gw_job_t *none = NULL;
  add_jobs(client, "task", 2);
  add_task(worker, "task", NULL, NULL);
  start(worker);
  gw_job_t *job = pull(worker);
  while (stats_of(worker).held < 1) usleep(1000); /* Claimed, but there is no free slot. */
  do ANSWERS(GW_TIMEOUT, gw_worker_next(worker, 0, &none, &err));
  while (poll(&ready, 1, 100) == 1);
  finish(job);
  CHECK_INT(poll(&ready, 1, soon()), 1);
  finish(pull(worker));
  end(worker);
  gw_client_free(client);
}

TEST(an_edge_triggered_epoll_loop_gets_every_job_and_the_stop) {
  size_t rounds = check_scaled(50), done = 0;
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_pulling_worker(NULL, NULL);
  int poller = epoll_create1(0);
  struct epoll_event event = {.events = EPOLLIN | EPOLLET};
  bool stopped = false;
  CHECK_INT(epoll_ctl(poller, EPOLL_CTL_ADD, gw_worker_fd(worker), &event), 0);
  for (size_t round = 1; round <= rounds; round++) {
    add_job(client, "task", "{}"); /* Each job changes the queue from empty to not empty. */
    while (done < round) {
      CHECK_INT(epoll_wait(poller, &event, 1, soon()), 1);
      done += drain(worker, &stopped);
    }
  }
  gw_worker_request_stop(worker, GW_STOP_GRACEFUL);
  while (!stopped) {
    CHECK_INT(epoll_wait(poller, &event, 1, soon()), 1);
    drain(worker, &stopped);
  }
  close(poller);
  OK(gw_worker_wait(worker, -1, &err));
  gw_worker_free(worker);
  gw_client_free(client);
}

TEST(a_cancellation_is_delivered_with_a_new_handle_of_the_job) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker_with("deliver_cancellations", "true", "shutdown_grace_period", "1s", NULL);
  gw_job_t *cancelled = NULL, *none = NULL;
  gw_status_t status;
  int64_t id = add_job(client, "task", "{}");
  add_task(worker, "task", NULL, NULL);
  start(worker);
  gw_job_t *job = pull(worker);
  gw_worker_request_stop(worker, GW_STOP_GRACEFUL);
  ANSWERS(GW_CANCELLED, gw_worker_next(worker, -1, &cancelled, &err));
  CHECK_INT(gw_job_id(cancelled), id);
  CHECK(gw_job_is_cancelled(cancelled));
  CHECK(gw_job_is_cancelled(job));
  status = gw_job_fail(job, "cancelled", GW_NUL, NULL);
  if (status != GW_OK) CHECK_INT(status, GW_ERR_ALREADY_FINISHED); /* The stop was faster. */
  gw_job_free(job);
  gw_job_free(cancelled);
  ANSWERS(GW_STOPPED, gw_worker_next(worker, -1, &none, &err));
  OK(gw_worker_wait(worker, -1, &err));
  CHECK_JOB(client, id, "locked_by", "null");
  CHECK_JOB(client, id, "attempts", "0");
  gw_worker_free(worker);
  gw_client_free(client);
}

TEST(a_timeout_cancels_a_pulled_job_too) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker_with("deliver_cancellations", "true", NULL);
  gw_job_t *cancelled = NULL;
  int64_t id = add_job(client, "task", "{}");
  add_task(worker, "task", NULL, NULL);
  OK(gw_worker_set_task_option(worker, "task", "timeout", "50ms", &err));
  start(worker);
  gw_job_t *job = pull(worker);
  ANSWERS(GW_CANCELLED, gw_worker_next(worker, soon(), &cancelled, &err));
  CHECK_INT(gw_job_id(cancelled), id);
  gw_job_free(cancelled);
  OK(gw_job_fail(job, "too slow", GW_NUL, &err));
  gw_job_free(job);
  end(worker);
  CHECK_JOB(client, id, "last_error", "timed out: too slow");
  CHECK_JOB(client, id, "attempts", "1");
  gw_client_free(client);
}

static struct latch cancellations = LATCH;
static void *take_cancellations(void *worker) {
  gw_job_t *job = NULL;
  gw_status_t status;
  while ((status = gw_worker_next(worker, -1, &job, NULL)) != GW_STOPPED) {
    if (status == GW_OK) finish(job);
    else gw_job_free(job);
    count_up(&cancellations); /* A job that this thread pulled counts too: it needs no notice of its own. */
  }
  return NULL;
}
static void *take_batches(void *worker) {
  gw_job_t *jobs[4];
  size_t count = 0;
  gw_status_t status;
  while ((status = gw_worker_next_batch(worker, -1, jobs, 4, &count, NULL)) != GW_STOPPED) {
    if (status != GW_OK) {
      CHECK_INT(status, GW_WOKEN);
      continue;
    }
    for (size_t i = 0; i < count; i++) {
      while (!gw_job_is_cancelled(jobs[i])) usleep(100);
      finish(jobs[i]);
    }
  }
  return NULL;
}

TEST(cancellations_are_delivered_beside_threads_that_take_batches) {
  size_t rounds = check_scaled(50);
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker_with("concurrency", "8", "deliver_cancellations", "true", NULL);
  pthread_t threads[4];
  add_task(worker, "task", NULL, NULL);
  OK(gw_worker_set_task_option(worker, "task", "timeout", "5ms", &err));
  start(worker);
  for (int i = 0; i < 4; i++) threads[i] = start_thread(i ? take_batches : take_cancellations, worker);
  for (size_t round = 1; round <= rounds; round++) {
    add_job(client, "task", "{}");
    wait_for(&cancellations, round);
  }
  gw_worker_request_stop(worker, GW_STOP_GRACEFUL);
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
  OK(gw_worker_wait(worker, -1, &err));
  gw_worker_free(worker);
  gw_client_free(client);
}

/* Adds jobs in a child process, so that this process has no threads of a client. */
static void add_jobs_elsewhere(size_t count) {
  int status = 0;
  schema(); /* Parent and child use the same schema. */
  pid_t child = check_fork();
  if (child == 0) {
    gw_client_t *client = a_client();
    add_jobs(client, "task", count);
    gw_client_free(client);
    raise(SIGKILL); /* Leak checkers must not run in the child. */
  }
  CHECK_INT(waitpid(child, &status, 0), child);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static int thread_count(void) {
  char line[128];
  int count = -1;
  FILE *status = fopen("/proc/self/status", "r");
  while (fgets(line, sizeof line, status)) sscanf(line, "Threads: %d", &count);
  fclose(status);
  return count;
}

TEST(ten_thousand_unfinished_pulled_jobs_need_no_more_than_twelve_threads) {
  size_t count = check_scaled(10000), pulled = 0, batch = 0;
  gw_worker_t *worker = a_worker_with("concurrency", "10000", "threads", "2", NULL);
  gw_job_t **jobs = calloc(count, sizeof *jobs);
  add_jobs_elsewhere(count);
  add_task(worker, "task", NULL, NULL);
  start(worker);
  while (pulled < count) {
    OK(gw_worker_next_batch(worker, -1, jobs + pulled, count - pulled, &batch, &err));
    pulled += batch;
  }
  CHECK_INT(stats_of(worker).in_flight, count);
  int threads = thread_count();
  check_note("       the process has %d threads with %zu unfinished jobs\n", threads, count);
  CHECK(threads <= 12);
  for (size_t i = 0; i < count; i++) finish(jobs[i]);
  OK(gw_worker_flush(worker, -1, &err));
  CHECK_INT(stats_of(worker).completed, count);
  free(jobs);
  end(worker);
}

/* Measures the cost of an accessor. */
struct meter {
  gw_job_t *job;
  size_t calls;
};

static void *call_often(void *user_data) {
  const struct meter *meter = user_data;
  struct timespec before, after;
  int64_t sum = 0, *cost = malloc(sizeof *cost);
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before);
  for (size_t i = 0; i < meter->calls; i++) sum += gw_job_id(meter->job);
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after);
  CHECK_INT(sum, gw_job_id(meter->job) * (int64_t)meter->calls);
  *cost = (after.tv_sec - before.tv_sec) * 1000000000LL + after.tv_nsec - before.tv_nsec;
  return cost;
}

static double ns_a_call(gw_job_t *job, size_t threads) {
  struct meter meter = {job, check_scaled(2000000)};
  pthread_t running[4];
  double total = 0;
  for (size_t i = 0; i < threads; i++) running[i] = start_thread(call_often, &meter);
  for (size_t i = 0; i < threads; i++) {
    void *cost;
    pthread_join(running[i], &cost);
    total += (double)*(int64_t *)cost / (double)meter.calls;
    free(cost);
  }
  return total / (double)threads;
}

TEST(job_accessor_takes_nanoseconds_from_one_and_four_threads) {
  enum { ONE = 20, FOUR = 60, NOISE = 3 };
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_pulling_worker(NULL, NULL);
  add_job(client, "task", "{}");
  gw_job_t *job = pull(worker);
  double one = ns_a_call(job, 1), four = ns_a_call(job, 4);
  check_note("       gw_job_id costs %.1f ns from one thread (at most %d), %.1f ns from four (at most %d)\n", one, ONE, four, FOUR);
  if (check_times_count()) {
    CHECK(one <= ONE * NOISE);
    CHECK(four <= FOUR * NOISE);
  }
  finish(job);
  end(worker);
  gw_client_free(client);
}
