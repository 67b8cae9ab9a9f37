"""Adds a job and runs it."""

from graphile_worker import Worker

worker = Worker()  # connects to DATABASE_URL


@worker.task
def hello(payload):
    print(f"Hello, {payload['name']}!")


worker.client.add_job("hello", {"name": "Ada"})
worker.run_once()  # runs all due jobs and returns; run() runs until Ctrl-C
