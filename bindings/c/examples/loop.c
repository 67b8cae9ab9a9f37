/* loop.c: runs jobs in the program's own poll() loop, on its own thread, until stdin ends. */
#include <graphile_worker.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

static int say(gw_error_t *error) {
    fprintf(stderr, "%s\n", gw_error_message(error));
    gw_error_free(error);
    return 1;
}

/* Runs all available jobs. Returns GW_TIMEOUT when there is none, and GW_STOPPED when the worker has stopped. */
static gw_status_t work(gw_worker_t *worker, gw_error_t **error) {
    gw_job_t *job;
    gw_status_t status;
    while ((status = gw_worker_next(worker, 0, &job, error)) == GW_OK) {
        printf("%s: %s\n", gw_job_task(job), gw_job_payload(job, NULL));
        fflush(stdout);
        gw_job_complete(job, NULL);
        gw_job_free(job);
    }
    return status;
}

int main(void) {
    gw_error_t *error = NULL;
    gw_worker_t *worker = NULL;
    gw_status_t status = GW_OK;
    gw_config_t *config = gw_config_new();
    if (gw_config_load_env(config, &error) < 0 ||
        gw_worker_new(config, &worker, &error) < 0 ||
        gw_worker_add_task(worker, "line", NULL, NULL, NULL, &error) < 0 || /* No function: pulled. */
        gw_worker_start(worker, GW_RUN_FOREVER, &error) < 0) return say(error);
    gw_config_free(config);

    struct pollfd ready[2] = {{gw_worker_fd(worker), POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
    gw_spec_t *spec = gw_spec_new("line");
    char line[64];
    while (status != GW_STOPPED) {
        poll(ready, 2, -1);
        if ((status = work(worker, &error)) < 0) return say(error);
        if (ready[1].revents == 0) continue;
        if (read(STDIN_FILENO, line, sizeof line) > 0) { /* Input: add a job. */
            gw_spec_set_payload(spec, "{\"from\": \"stdin\"}", GW_NUL);
            if (gw_client_add_job(gw_worker_client(worker), spec, NULL, &error) < 0) return say(error);
        } else {
            gw_worker_request_stop(worker, GW_STOP_GRACEFUL);
            ready[1].fd = -1;
        }
    }
    gw_worker_free(worker);
    gw_spec_free(spec);
    return 0;
}
