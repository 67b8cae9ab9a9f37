/* hello.c: adds a job and runs it.   cc hello.c $(pkg-config --cflags --libs graphile_worker) && DATABASE_URL=… ./a.out */
#include <graphile_worker.h>
#include <stdio.h>

static int say(gw_error_t *error) {
    fprintf(stderr, "%s: %s\n", gw_status_name(gw_error_status(error)), gw_error_message(error));
    gw_error_free(error);
    return 1;
}

/* Called on a thread of the library. */
static gw_outcome_t hello(gw_job_t *job, void *user_data) {
    (void)user_data;
    printf("Hello! Attempt %d of job %lld: %s\n", gw_job_attempts(job), (long long)gw_job_id(job),
           gw_job_payload(job, NULL));
    return GW_TASK_DONE;
}

int main(void) {
    gw_error_t *error = NULL;
    gw_client_t *client = NULL;
    gw_worker_t *worker = NULL;
    gw_config_t *config = gw_config_new();
    gw_spec_t *spec = gw_spec_new("hello");
    gw_spec_set_payload(spec, "{\"name\": \"Ada\"}", GW_NUL);

    if (gw_config_load_env(config, &error) < 0 || /* DATABASE_URL */
        gw_client_new(config, &client, &error) < 0 ||
        gw_client_migrate(client, &error) < 0 ||
        gw_client_add_job(client, spec, NULL, &error) < 0 ||
        gw_worker_new(config, &worker, &error) < 0 ||
        gw_worker_add_task(worker, "hello", hello, NULL, NULL, &error) < 0 ||
        gw_worker_run_once(worker, &error) < 0) { /* gw_worker_run runs until gw_worker_request_stop. */
        return say(error);
    }

    gw_worker_free(worker);
    gw_client_free(client);
    gw_spec_free(spec);
    gw_config_free(config);
    return 0;
}
