"""One command, with a limit."""

import os
import signal
import subprocess
import threading
import time

from .outcomes import Outcome
from .source import ROOT
from .steps import Step

# What pytest takes from the moment it is out of time to its end: the test that runs, and its workers.
CLOSING_SECONDS = 20.0


def command(step: Step, record: str, limit: float) -> tuple[str, ...]:
    """What is run: one that records is told where, and when to stop."""
    if not step.records:
        return step.command
    until = time.time() + max(0.0, limit - CLOSING_SECONDS)
    plugin = ("-p", "tests.gpu_check.recorder", "--record", record, "--step", step.name, "--until", f"{until:.0f}")
    return (*step.command, *plugin)


def run(step: Step, record: str, limit: float) -> Outcome:
    """Run a command in the repository, ``limit`` seconds at most; what it says is shown and kept."""
    begin = time.monotonic()
    try:
        process = subprocess.Popen(
            command(step, record, limit),
            cwd=ROOT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | step.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            process_group=0,  # with all that it starts it can be ended at once
        )
    except OSError as error:
        return Outcome(None, str(error))
    killed = threading.Event()

    def kill() -> None:
        killed.set()
        os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(limit, kill)
    timer.start()
    lines = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
        status = process.wait()
    finally:
        timer.cancel()
        if process.poll() is None:  # Ctrl-C, which does not reach another group
            kill()
    return Outcome(status, "".join(lines), time.monotonic() - begin, killed.is_set())
