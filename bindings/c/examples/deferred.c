/* deferred.c: a task hands its job to another thread, which ends it. No worker thread waits meanwhile. */
#include <graphile_worker.h>
#include <pthread.h>
#include <stdio.h>

static pthread_t post;

/* Simulates the callback of an HTTP client, on a thread of its own. It may run before push has returned. */
static void *answered(void *job) {
    printf("%s: delivered\n", gw_job_payload(job, NULL));
    gw_job_complete(job, NULL); /* or gw_job_fail(job, "refused", GW_NUL, NULL) */
    gw_job_free(job);           /* Without an outcome, the job would fail here. */
    return NULL;
}

static gw_outcome_t push(gw_job_t *job, void *user_data) {
    gw_job_t *ours = gw_job_retain(job); /* `job` is valid within this function only. */
    (void)user_data;
    if (pthread_create(&post, NULL, answered, ours) != 0) {
        gw_job_free(ours);
        return GW_TASK_FAILED;
    }
    return GW_TASK_PENDING;
}

int main(void) {
    gw_error_t *error = NULL;
    gw_client_t *client = NULL;
    gw_worker_t *worker = NULL;
    gw_config_t *config = gw_config_new();
    gw_spec_t *spec = gw_spec_new("push");
    gw_spec_set_payload(spec, "{\"to\": \"https://example.org/hook\"}", GW_NUL);

    if (gw_config_load_env(config, &error) < 0 ||
        gw_client_new(config, &client, &error) < 0 ||
        gw_client_migrate(client, &error) < 0 ||
        gw_client_add_job(client, spec, NULL, &error) < 0 ||
        gw_worker_new(config, &worker, &error) < 0 ||
        gw_worker_add_task(worker, "push", push, NULL, NULL, &error) < 0 ||
        gw_worker_run_once(worker, &error) < 0) {
        fprintf(stderr, "%s\n", gw_error_message(error));
        gw_error_free(error);
        return 1;
    }
    pthread_join(post, NULL);

    gw_worker_free(worker);
    gw_client_free(client);
    gw_spec_free(spec);
    gw_config_free(config);
    return 0;
}
