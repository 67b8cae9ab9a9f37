/* check.c: runs the registered tests one after the other, each in a child process with a time limit.
 * Usage: PROGRAM [PART OF A NAME]...   Environment: CHECK_TIMEOUT: seconds for each test (default 60), CHECK_SCALE, CHECK_SLOW, CHECK_PART. */
#define _GNU_SOURCE
#include "check.h"

#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST_TESTS = 512, FAILED = 1 };

static struct {
  const char *file;
  const char *name;
  void (*run)(void);
  bool beside_threads;
} tests[MOST_TESTS];
static size_t test_count;
static int notes = -1; /* check_note writes here: the runner's stdout, which children do not have. */

static bool may_fork_beside_threads; /* Whether this process's test may fork while it has other threads. */

#if defined(__SANITIZE_ADDRESS__)
static const bool has_address_sanitizer = true;
#else
static const bool has_address_sanitizer = false;
#endif

void check_add(const char *file, const char *name, void (*test)(void), bool beside_threads) {
  if (test_count == MOST_TESTS) abort();
  tests[test_count].file = file;
  tests[test_count].name = name;
  tests[test_count].beside_threads = beside_threads;
  tests[test_count++].run = test;
}

void check_fail(const char *file, int line, const char *format, ...) {
  const char *slash = strrchr(file, '/');
  va_list arguments;
  fprintf(stderr, "    %s:%d: ", slash ? slash + 1 : file, line);
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fputc('\n', stderr);
  fflush(stderr);
  _exit(FAILED); /* Not exit, because other threads may still run. */
}

void check_that(const char *file, int line, const char *expression, bool holds) {
  if (!holds) check_fail(file, line, "%s is false", expression);
}

void check_int(const char *file, int line, const char *expression, long long actual, long long expected) {
  if (actual != expected) check_fail(file, line, "%s is %lld, not %lld", expression, actual, expected);
}

static const char *or_null(const char *text) { return text ? text : "(NULL)"; }

void check_text(const char *file, int line, const char *expression, const char *actual, const char *expected) {
  if (actual == expected || (actual && expected && strcmp(actual, expected) == 0)) return;
  check_fail(file, line, "%s is '%s', not '%s'", expression, or_null(actual), or_null(expected));
}

void check_has(const char *file, int line, const char *expression, const char *text, const char *part) {
  if (!text || !strstr(text, part)) check_fail(file, line, "%s is '%s', without '%s'", expression, or_null(text), part);
}

void check_note(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vdprintf(notes, format, arguments);
  va_end(arguments);
}

size_t check_scaled(size_t count) {
  const char *scale = getenv("CHECK_SCALE");
  size_t scaled = scale ? (size_t)((double)count * atof(scale)) : count;
  return scaled ? scaled : 1;
}

bool check_times_count(void) { return getenv("CHECK_SLOW") == NULL; }

pid_t check_fork(void) {
  struct stat threads;
  /* Each thread is a folder in it. Only Linux has it; elsewhere the check is skipped. */
  if (!may_fork_beside_threads && stat("/proc/self/task", &threads) == 0 && threads.st_nlink > 3)
    check_fail(__FILE__, __LINE__, "the test forks while it has %d threads", (int)threads.st_nlink - 2);
  return fork();
}

static long now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Whether the name of a test, or of its file, contains one of the arguments. */
static bool wanted(size_t test, char **parts) {
  if (!*parts) return true;
  for (; *parts; parts++)
    if (strstr(tests[test].name, *parts) || strstr(tests[test].file, *parts)) return true;
  return false;
}

/* Prints the output of a failed child. */
static void show(FILE *output) {
  char buffer[4096];
  size_t length;
  rewind(output);
  while ((length = fread(buffer, 1, sizeof buffer, output)) > 0) fwrite(buffer, 1, length, stdout);
}

/* Waits for a child. If the time is over, kills it and returns false. */
static bool ended_in_time(pid_t child, int *status, long limit) {
  sigset_t only_children;
  long deadline = now_ms() + limit * 1000;
  sigemptyset(&only_children);
  sigaddset(&only_children, SIGCHLD);
  while (waitpid(child, status, WNOHANG) == 0) {
    long left = deadline - now_ms();
    struct timespec timeout = {left / 1000, left % 1000 * 1000000};
    if (left <= 0) {
      kill(-child, SIGKILL);
      waitpid(child, status, 0);
      return false;
    }
    sigtimedwait(&only_children, NULL, &timeout);
  }
  kill(-child, SIGKILL); /* Kills processes that the child started and left behind. */
  return true;
}

static bool passes(const char *name, void (*run)(void), long limit, const sigset_t *usual) {
  FILE *output = tmpfile();
  long start = now_ms();
  int status = 0;
  if (!output) abort();
  fflush(stdout);
  pid_t child = fork();
  if (child < 0) abort();
  if (child == 0) {
    setpgid(0, 0);
    sigprocmask(SIG_SETMASK, usual, NULL);
    dup2(fileno(output), STDOUT_FILENO);
    dup2(fileno(output), STDERR_FILENO);
    run();
    exit(0); /* Not _exit, because leak checkers run at exit. */
  }
  setpgid(child, child);
  bool in_time = ended_in_time(child, &status, limit);
  bool passed = in_time && WIFEXITED(status) && WEXITSTATUS(status) == 0;
  printf("%s %s (%ld ms)\n", passed ? "ok    " : "FAILED", name, now_ms() - start);
  if (!in_time) printf("    not done after %ld s\n", limit);
  else if (WIFSIGNALED(status)) printf("    ended by signal %d (%s)\n", WTERMSIG(status), strsignal(WTERMSIG(status)));
  else if (!passed) printf("    exit status %d\n", WEXITSTATUS(status));
  if (!passed) show(output);
  fclose(output);
  return passed;
}

/* CHECK_PART=2/3 runs every third test, from the second, so that several processes can share the tests. */
static void part(size_t *first, size_t *step) {
  const char *part = getenv("CHECK_PART");
  *first = *step = 1;
  if (part && (sscanf(part, "%zu/%zu", first, step) != 2 || *first < 1 || *first > *step)) {
    fprintf(stderr, "CHECK_PART must have the form 1/2, not %s\n", part);
    exit(2);
  }
}

int main(int count, char **arguments) {
  const char *limit = getenv("CHECK_TIMEOUT");
  size_t ran = 0, failed = 0, found = 0, first, step;
  sigset_t children, usual;
  (void)count;
  sigemptyset(&children);
  sigaddset(&children, SIGCHLD);
  sigprocmask(SIG_BLOCK, &children, &usual);
  notes = dup(STDOUT_FILENO);
  part(&first, &step);
  for (size_t i = 0; i < test_count; i++) {
    if (!wanted(i, arguments + 1) || found++ % step != first - 1) continue;
    ran++;
    may_fork_beside_threads = tests[i].beside_threads;
    if (has_address_sanitizer && tests[i].beside_threads) {
      printf("skip   %s (AddressSanitizer)\n", tests[i].name);
      continue;
    }
    if (!passes(tests[i].name, tests[i].run, limit ? atol(limit) : 60, &usual)) failed++;
  }
  printf("%zu tests, %zu failed\n", ran, failed);
  return ran == 0 || failed > 0;
}
