"""What the tests share: databases, separate programs, and waiting for a condition."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

import graphile_worker
from graphile_worker import Client, Worker

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parent
CHECKOUT = PACKAGE.parent.parent
#: Seconds within which an awaited event must happen.
SOON = 20.0

_server = os.environ["TEST_DATABASE_URL"]
_numbers = iter(range(1_000_000))


def psql(url, query):
    """Runs a query; returns its rows, each as text with its fields joined by `|`."""
    command = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", query, url]
    answer = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    if answer.returncode:
        raise AssertionError(f"{query}: {answer.stderr}")
    return answer.stdout.splitlines()


def until(condition, what="the condition"):
    """Waits until `condition()` is true, and returns its value."""
    end = time.monotonic() + SOON
    while not (answer := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not become true within {SOON} s")
        time.sleep(0.01)
    return answer


class DatabaseTest(unittest.TestCase):
    """A test with a database of its own, whose URL is `self.url`, and with the schema in it."""

    def setUp(self):
        name = f"gw_python_{os.getpid()}_{next(_numbers)}"
        psql(_server, f"create database {name}")
        self.addCleanup(psql, _server, f"drop database {name} with (force)")
        base, _, query = _server.partition("?")
        self.url = base.rpartition("/")[0] + f"/{name}" + (f"?{query}" if query else "")
        self.client = Client(self.url)
        self.addCleanup(self.client.close)
        self.client.migrate()

    def worker(self, **options):
        """Makes a worker that is closed at the end of the test."""
        worker = Worker(self.url, **{"shutdown_grace_period": 0.2, "concurrency": 4, **options})
        self.addCleanup(worker.close)
        return worker

    def sql(self, query):
        """Runs a query; returns its rows as texts."""
        return psql(self.url, f"set search_path = graphile_worker, public; {query}")

    def value(self, query):
        """Runs a query; returns its only row."""
        (row,) = self.sql(query)
        return row

    @contextlib.contextmanager
    def logged(self):
        """Collects the records of the package and of the library. The library's records arrive a little later."""
        records, logger = [], logging.getLogger("graphile_worker")
        handler = logging.Handler()
        handler.emit = records.append
        level, logger.propagate = logger.level, False
        logger.addHandler(handler)
        try:
            yield records
        finally:
            logger.removeHandler(handler)
            logger.propagate = True
            graphile_worker.set_log_level(level)

    def program(self, source, *arguments, **options):
        """Starts a separate Python program, with this database as DATABASE_URL."""
        program = Program(source, self.url, arguments, **options)
        self.addCleanup(program.close)
        return program


def _take_signals():
    """Gives a program the default signal handling, even if the caller of the tests ignores signals, as nohup does."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Program:
    """A separate Python program: its output line by line, its exit status, and its stderr."""

    def __init__(self, source, url, arguments, module=None):
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "program.py"
        path.write_text(source, encoding="utf-8")
        command = [sys.executable, *(["-m", module] if module else [str(path)]), *map(str, arguments)]
        self.process = subprocess.Popen(
            command, cwd=self.folder.name, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "DATABASE_URL": url, "PYTHONUNBUFFERED": "1"},
            preexec_fn=_take_signals,
        )
        self._errors = []
        self._reader = threading.Thread(target=lambda: self._errors.extend(self.process.stderr), daemon=True)
        self._reader.start()
        self._alarm = threading.Timer(60, self.process.kill)
        self._alarm.start()

    def line(self):
        """Returns the next line that the program prints."""
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"the program ended with {self.process.wait()}: {self.errors()}")
        return line.rstrip("\n")

    def signal(self, number):
        """Sends a signal; returns the time before that."""
        now = time.monotonic()
        self.process.send_signal(number)
        return now

    def ended(self):
        """Waits for the end of the program; returns its status."""
        status = self.process.wait(SOON)
        self._reader.join(SOON)
        return status

    def errors(self):
        """Returns what the program has written to stderr so far; all of it after `ended`."""
        return "".join(self._errors)

    def close(self):
        self._alarm.cancel()
        self.process.kill()
        self.process.wait()
        self._reader.join(SOON)
        self.process.stdout.close()
        self.process.stderr.close()
        self.folder.cleanup()
