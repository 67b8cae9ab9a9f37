/* check.h: a test runner. Each test is a function and runs in a process of its own.
 * Knows nothing of jobs. C99 with GNU attributes; the C++ tests use it too. */
#ifndef CHECK_H
#define CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Defines a test, and registers it before main starts. */
#define TEST(name) CHECK_TEST_(name, false)

/* The same for a test that forks while other threads run. It is skipped in a program with AddressSanitizer, because its
 * allocator may stay locked in such a child. */
#define TEST_THAT_FORKS_BESIDE_THREADS(name) CHECK_TEST_(name, true)

#define CHECK_TEST_(name, beside_threads)                                                                    \
  static void name(void);                                                                                    \
  __attribute__((constructor)) static void register_##name(void) { check_add(__FILE__, #name, name, beside_threads); } \
  static void name(void)

/* The first check that fails ends the test, on any thread. */
#define CHECK(condition) check_that(__FILE__, __LINE__, #condition, (condition))
#define CHECK_INT(actual, expected) \
  check_int(__FILE__, __LINE__, #actual, (long long)(actual), (long long)(expected))
#define CHECK_TEXT(actual, expected) check_text(__FILE__, __LINE__, #actual, (actual), (expected))
#define CHECK_HAS(text, part) check_has(__FILE__, __LINE__, #text, (text), (part))

/* Forks. The test fails if it has other threads and is not one of TEST_THAT_FORKS_BESIDE_THREADS. */
pid_t check_fork(void);

void check_add(const char *file, const char *name, void (*test)(void), bool beside_threads);
void check_that(const char *file, int line, const char *expression, bool holds);
void check_int(const char *file, int line, const char *expression, long long actual, long long expected);
void check_text(const char *file, int line, const char *expression, const char *actual, const char *expected);
void check_has(const char *file, int line, const char *expression, const char *text, const char *part);
__attribute__((format(printf, 3, 4), noreturn)) void check_fail(const char *file, int line, const char *format, ...);

/* Prints a line, such as a measurement, even if the test succeeds. */
__attribute__((format(printf, 1, 2))) void check_note(const char *format, ...);

/* Scales a count, for example 10,000 jobs. It is smaller in slow environments (CHECK_SCALE=0.03), and at least 1. */
size_t check_scaled(size_t count);

/* Whether measured times are meaningful. They are not under valgrind (CHECK_SLOW=1). */
bool check_times_count(void);

#ifdef __cplusplus
}
#endif
#endif
