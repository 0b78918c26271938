"""How the steps ended, in the folder of the results: what the next run goes on from."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from .recorder import OUT_OF_TIME, Record, forget, read
from .steps import SANITIZER_STATUS, TOOLS, Step


@dataclass(frozen=True)
class Outcome:
    """How a command ended; ``status`` None: it could not be started. ``killed``: it was ended at its limit."""

    status: int | None
    output: str
    seconds: float = 0.0
    killed: bool = False


@dataclass(frozen=True)
class Ended:
    """How a step ended, and what is written down of one that records."""

    outcome: Outcome
    record: Record | None = None

    @property
    def failure(self) -> str | None:
        """What went wrong, if anything did."""
        status, record = self.outcome.status, self.record
        if status is None:
            return "could not be started"
        if status == SANITIZER_STATUS:
            return "the tool reported errors"
        if record is not None:
            if failed := record.count("failed"):
                return f"{failed} of {record.collected} tests failed"
            # pytest's 2: it was interrupted, by the clock or by an error; 5: all had passed before.
            if record.left is not None and (status == 5 or (status == 2 and OUT_OF_TIME in self.outcome.output)):
                return None
        return None if self.outcome.killed or status == 0 else f"exit status {status}"

    @property
    def is_cut(self) -> bool:
        """Whether something of it is left to run."""
        return self.outcome.killed if self.record is None else self.record.left != 0

    @property
    def has_passed(self) -> bool:
        return self.failure is None and not self.is_cut


class Results:
    """What a folder holds of earlier runs. ``key`` names what the outcomes are of: with another one they are void."""

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.record = folder, folder / "tests.jsonl"
        self._file = folder / "outcomes.json"
        folder.mkdir(parents=True, exist_ok=True)
        kept = json.loads(self._file.read_text()) if self._file.exists() else {"key": key}
        self.build: str | None = kept.get("build")  # the key of the extension that lies here
        self.are_new = kept["key"] != key
        if self.are_new:
            self.record.unlink(missing_ok=True)
        self._key, self._outcomes = key, {} if self.are_new else kept.get("outcomes", {})

    def ended(self, step: Step) -> Ended | None:
        """How a step ended the last time; None: it has not begun."""
        kept = self._outcomes.get(step.name)
        return Ended(Outcome(**kept), read(self.record, step.name) if step.records else None) if kept else None

    def begin(self, step: Step) -> None:
        """Before a step runs: a tool that found errors, or was killed, has said nothing of the tests that passed under it."""
        last = self.ended(step)
        if last and step.name in TOOLS and (last.outcome.killed or last.outcome.status == SANITIZER_STATUS):
            forget(self.record, step.name)

    def end(self, step: Step, outcome: Outcome) -> Ended:
        """Keep how a step ended."""
        self._outcomes[step.name] = asdict(outcome)
        self.save()
        return Ended(outcome, read(self.record, step.name) if step.records else None)

    def save(self) -> None:
        text = json.dumps({"key": self._key, "build": self.build, "outcomes": self._outcomes}, indent=1)
        self._file.with_suffix(".new").write_text(text)
        self._file.with_suffix(".new").replace(self._file)  # at once: a run may be ended at any moment
