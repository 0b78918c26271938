"""A pytest plugin: writes down how each test ended, leaves out what has passed before, and stops in time.

    python -m pytest -p tests.gpu_check.recorder --record FILE --step NAME --until SECONDS

FILE has a line of JSON for each test that began and for each that ended, so that a run that was cut off is not lost; it holds
any number of steps, told apart by NAME. SECONDS are those of time.time(), after which no test begins. Under pytest-xdist the
controller writes, and every worker leaves out and stops.
"""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

STARTED = "started"
OUT_OF_TIME = "out of time"
GIVEN = "outcomes before"  # of a worker's input


@dataclass
class Record:
    """The tests of a step: how many there are, None before they were collected, and the last outcome of each that began."""

    collected: int | None = None
    outcomes: dict[str, str] = field(default_factory=dict)

    def count(self, outcome: str) -> int:
        return sum(value == outcome for value in self.outcomes.values())

    @property
    def done(self) -> set[str]:
        """Those that need not run again."""
        return {test for test, outcome in self.outcomes.items() if outcome in ("passed", "skipped")}

    @property
    def left(self) -> int | None:
        """How many have not ended yet; None where nobody knows."""
        return None if self.collected is None else self.collected - len(self.outcomes) + self.count(STARTED)


def read(path: Path, step: str) -> Record:
    """What is written down of a step."""
    record = Record()
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue  # the last line of a run that was killed
        if entry["step"] != step:
            continue
        if "collected" in entry:
            record.collected = entry["collected"]
        else:
            record.outcomes[entry["test"]] = entry["outcome"]
    return record


def forget(path: Path, step: str) -> None:
    """Take back what is written down of a step."""
    if path.exists():
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if f'"step": "{step}"' not in line))


class Recorder:
    """``before`` is what was written down before this run began: to a worker of xdist the controller gives it, for all must leave
    out the same, also one that takes the place of another that died."""

    def __init__(self, path: Path, step: str, until: float, given: dict[str, str] | None) -> None:
        self.path, self.step, self.until, self.writes = path, step, until, given is None
        self.before = read(path, step) if given is None else Record(None, given)
        self.worst: dict[str, str] = {}
        self.session: pytest.Session | None = None

    def write(self, **entry: object) -> None:
        if self.writes:
            with self.path.open("a") as file:  # opened each time: what a killed run wrote is there
                file.write(json.dumps({"step": self.step, **entry}) + "\n")

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self.session = session

    @pytest.hookimpl(trylast=True)  # after -m and -k
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        done, began = self.before.done, self.before.outcomes
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in done])
        # What did not end the last time goes last: if it hangs, the others have run.
        items[:] = sorted((item for item in items if item.nodeid not in done), key=lambda item: began.get(item.nodeid) == STARTED)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.write(collected=len(self.before.done) + len(session.items))

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput[GIVEN] = self.before.outcomes

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        self.write(collected=len(self.before.done) + len(ids))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.write(test=nodeid, outcome=STARTED)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        worst = self.worst.get(report.nodeid, "passed")
        if worst == "passed" or report.failed:
            worst = report.outcome
        self.worst[report.nodeid] = worst
        if report.when not in ("setup", "call"):  # teardown, or xdist's report of a worker that died
            self.write(test=report.nodeid, outcome=worst)

    def pytest_runtest_logfinish(self) -> None:
        if self.session is not None and time.time() > self.until:
            self.session.shouldstop = OUT_OF_TIME


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", type=Path, required=True)
    parser.addoption("--step", required=True)
    parser.addoption("--until", type=float, required=True)


def pytest_configure(config: pytest.Config) -> None:
    options = [config.getoption(name) for name in ("--record", "--step", "--until")]
    config.pluginmanager.register(Recorder(*options, getattr(config, "workerinput", {}).get(GIVEN)))
