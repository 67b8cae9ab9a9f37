"""`python -m graphile_worker module:worker --processes N`: runs a worker, in N processes of its own if N is above 1.

Knows nothing of jobs. The processes are fresh interpreters, not forks. They stop when this process ends, also when it
is killed.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Dict, Optional, Sequence

from . import GraphileWorkerError, Worker, options

logger = logging.getLogger("graphile_worker")

#: Seconds until a process that was killed is started again.
RESTART_PAUSE = 1.0


def main(arguments: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m graphile_worker",
        description="Runs the worker of a module until Ctrl-C or SIGTERM; the second signal cancels running jobs.",
    )
    parser.add_argument("worker", nargs="?", help="the worker to run: module:variable, as in app.jobs:worker")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="run it in N processes, to use N CPUs")
    parser.add_argument("--once", action="store_true", help="run every job that is due, then end")
    parser.add_argument("--log-level", default="INFO", metavar="LEVEL", help="level of logging; INFO if not given")
    parser.add_argument("--options", action="store_true", help="print the options of Worker(...) and their defaults")
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)  # a pipe that closes when the parent ends
    given = parser.parse_args(arguments)
    if given.options:
        return _print_options()
    if not given.worker:
        parser.error("the worker is missing: pass module:variable")
    if given.processes < 1:
        parser.error("--processes: must be at least 1")
    logging.basicConfig(
        level=given.log_level.upper(), format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"
    )
    if given.processes > 1:
        return Processes(given.worker, given.processes, given.once, given.log_level).run()
    return _work(given.worker, given.once, given.parent)


def _work(place: str, once: bool, parent: Optional[int]) -> int:
    """Runs the worker in this process."""
    try:
        worker = _find(place)
        if parent is not None:
            threading.Thread(target=_end_with, args=(parent,), name="graphile-worker-parent", daemon=True).start()
        worker.run_once() if once else worker.run()
        return 0
    except GraphileWorkerError as error:
        logger.error("%s: %s", error.status, error)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _find(place: str) -> Worker:
    """Returns the worker at `module:variable`; searches the module in the current folder too."""
    module, _, variable = place.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    worker = getattr(importlib.import_module(module), variable or "worker", None)
    if not isinstance(worker, Worker):
        sys.exit(f"{place}: module {module} has no graphile_worker.Worker of this name")
    return worker


def _end_with(parent: int) -> None:
    """Sends SIGTERM to this process as soon as the parent's end of the pipe is closed."""
    os.read(parent, 1)
    os.kill(os.getpid(), signal.SIGTERM)


class Processes:
    """N processes that run the same worker.

    If one is killed, it is started again. If one ends with an error status, all are stopped.
    """

    def __init__(self, place: str, count: int, once: bool, log_level: str) -> None:
        self._command = [sys.executable, "-m", "graphile_worker", place, "--log-level", log_level]
        self._command += ["--once"] if once else []
        self._count = count
        self._read, self._write = os.pipe()  # each child stops when the write end closes
        self._children: Dict[int, subprocess.Popen[bytes]] = {}
        self._signal: Optional[int] = None
        self._status = 0

    def run(self) -> int:
        """Runs until all processes have ended; returns the exit status."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._pass_on)
        for _ in range(self._count):
            self._start()
        while self._children:
            pid, wait_status = os.wait()
            if child := self._children.pop(pid, None):
                child.returncode = os.waitstatus_to_exitcode(wait_status)
                self._ended(child)
        return self._status

    def _start(self) -> None:
        # Each child has its own session: a Ctrl-C of the terminal then reaches it once, through this process.
        child = subprocess.Popen(
            [*self._command, "--parent", str(self._read)], pass_fds=[self._read], start_new_session=True
        )
        self._children[child.pid] = child
        if self._signal is not None:  # the signal arrived while this child was starting
            self._pass_on(self._signal)

    def _ended(self, child: subprocess.Popen[bytes]) -> None:
        status = child.returncode
        if status < 0 and self._signal is None:
            logger.warning("process %d was killed by signal %d: starting another one", child.pid, -status)
            time.sleep(RESTART_PAUSE)
            if self._signal is None:
                self._start()
        elif status > 0:
            self._status = self._status or status
            if self._signal is None:
                logger.error("process %d failed with status %d: stopping all processes", child.pid, status)
                self._pass_on(signal.SIGTERM)

    def _pass_on(self, number: int, _frame: object = None) -> None:
        self._signal = number
        for child in list(self._children.values()):
            # send_signal would poll the child and so take its exit status away from run().
            try:
                os.kill(child.pid, number)
            except ProcessLookupError:
                pass


def _print_options() -> int:
    for option in options():
        default = option.get("default")
        print(f"{option['key']} ({option['type']}, {'no default' if default is None else default}): {option['doc']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
