/* Runs all due jobs of the task noop, and prints the seconds of wall clock and of CPU that they took. */
#define _POSIX_C_SOURCE 200809L
#include <graphile_worker.h>
#include <stdio.h>
#include <time.h>

static double seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static gw_outcome_t noop(gw_job_t *job, void *user_data) {
    (void)job, (void)user_data;
    return GW_TASK_DONE;
}

int main(void) {
    gw_error_t *error = NULL;
    gw_worker_t *worker = NULL;
    gw_config_t *config = gw_config_new();
    double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    if (gw_config_load_env(config, &error) < 0 ||
        gw_config_set(config, "concurrency", "4", &error) < 0 ||
        gw_worker_new(config, &worker, &error) < 0 ||
        gw_worker_add_task(worker, "noop", noop, NULL, NULL, &error) < 0 ||
        gw_worker_run_once(worker, &error) < 0) {
        fprintf(stderr, "%s\n", gw_error_message(error));
        return 1;
    }
    printf("%f %f\n", seconds(CLOCK_MONOTONIC) - wall, seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu);
    gw_worker_free(worker);
    gw_config_free(config);
    return 0;
}
