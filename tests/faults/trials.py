"""Tests that are collected once and run again and again, each time with another fault: in forks of a process that ran none.

``python -m tests.faults.trials OPTION...`` takes pytest's options. It prints, as a line of JSON, what each test took and reached
with no fault tried, or which failed; then, for every line with a fault and the tests to try it by, the first that fails.
"""

import json
import mmap
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import pytest

NONE = 0xFFFF  # tried where no fault is; reached by nothing
PAGE = 4 + (1 << 16)  # bytes, as in fault.h
# A test that takes so many times as long, and so many seconds more, of a processor is in an endless loop; one that takes IDLE
# times as many of the clock waits for what never comes. What it asks for, and loads, is loaded anew in every fork.
SLOWER, AT_LEAST, IDLE = 5, 10, 10
SETUP = 600  # seconds for what a test asks for: that may be compiled
MEMORY = 12 << 30  # bytes of addresses


class Page:
    """What fault.h reads and writes, shared with all processes that load the copy."""

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:
            self.bytes = mmap.mmap(file.fileno(), PAGE)

    def begin(self, fault: int) -> None:
        self.bytes[:] = fault.to_bytes(4, sys.byteorder) + bytes(PAGE - 4)

    def reached(self) -> list[int]:
        return [n for n, byte in enumerate(self.bytes[4:]) if byte]


class Trials:
    """A plugin of pytest that runs nothing by itself."""

    def __init__(self) -> None:
        self.page = Page(os.environ["FAULT_PAGE"])
        self.page.begin(NONE)
        self.limit = 0  # seconds; 0: none
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # to write a core takes seconds
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        self.questions, self.answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")  # pytest takes the others for the tests
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        at_import = self.page.reached()
        tests = self.forked(session, session.items, NONE)
        if len(tests) < len(items):
            self.say({"failed": session.items[len(tests)].nodeid})
            return True
        self.say({"import": at_import, "tests": tests})
        seconds = {name: took for name, (took, _) in tests}
        for line in self.questions:
            fault, names = json.loads(line)
            *_, last = self.forked(session, [items[name] for name in names], fault, seconds)
            self.say(last)
        return True

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Iterator[None]:
        """Not what the test asks for, which was ready when the test was timed."""
        signal.setitimer(signal.ITIMER_PROF, self.limit)
        signal.alarm(IDLE * self.limit)
        yield
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)

    def say(self, answer: object) -> None:
        print(json.dumps(answer), file=self.answers, flush=True)

    def forked(
        self, session: pytest.Session, items: Sequence[pytest.Item], fault: int, seconds: dict[str, float] | None = None
    ) -> list[Any]:
        """What run() yields in a fork of this process."""
        read, write = os.pipe()
        if (child := os.fork()) == 0:
            os.setpgid(0, 0)
            with os.fdopen(write, "w") as pipe:
                for answer in self.run(session, items, fault, seconds):
                    print(json.dumps(answer), file=pipe, flush=True)
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            answers = [json.loads(line) for line in pipe]
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what its tests have started
        os.waitpid(child, 0)
        return answers

    def run(
        self, session: pytest.Session, items: Sequence[pytest.Item], fault: int, seconds: dict[str, float] | None
    ) -> Iterator[Any]:
        """With no seconds known, the name, the seconds and the faults reached of each test; else the name of each, and None at
        the end, so that the last one is that of the test that failed, or ended the process."""
        for item, following in zip(items, [*items[1:], None], strict=True):
            self.page.begin(fault)
            if seconds:
                yield item.nodeid
                signal.alarm(SETUP)  # at which the process ends
                self.limit = int(AT_LEAST + SLOWER * seconds[item.nodeid])
            begin = time.monotonic()
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.testsfailed:
                return
            if not seconds:
                yield item.nodeid, (time.monotonic() - begin, self.page.reached())
        yield from [None] if seconds else []


if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[1:], plugins=[Trials()]))
