"""Adds a job, and runs it."""

from graphile_worker import Worker

worker = Worker()  # the database is that of DATABASE_URL


@worker.task
def hello(payload):
    print(f"Hello, {payload['name']}!")


worker.client.add_job("hello", {"name": "Ada"})
worker.run_once()  # runs what is due and returns; run() goes on until Ctrl-C
