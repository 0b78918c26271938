"""The report: one for all parts."""

import shlex
from collections.abc import Mapping, Sequence

from .outcomes import Ended, Results
from .recorder import STARTED
from .steps import Step

CLOSING_LINES = 25


def tests_of(ended: Ended) -> str:
    """The tests that ended, in words."""
    if ended.record is None:
        return ""
    counts = {outcome: ended.record.count(outcome) for outcome in ("passed", "failed", "skipped")}
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)


def verdict(step: Step, ended: Ended | None) -> str:
    if ended is None:
        return f"left out: needs {' and '.join(step.missing)}" if step.missing else "not run yet"
    words = [f"**failed**: {ended.failure}"] if ended.failure else []
    if ended.is_cut:
        left = ended.record and ended.record.left
        words.append(f"**cut off**, {left} tests left" if left else "**cut off**")
    return ", ".join([*(words or ["passed"]), *filter(None, [tests_of(ended)])])


def section(step: Step, ended: Ended) -> list[str]:
    """What a step said: all of a table, else the last lines."""
    variables = [f"{name}={value}" for name, value in step.environment.items()]
    lines = ["", f"## {step.name}", "", f"    {shlex.join([*variables, *step.command])}", ""]
    said = ended.outcome.output.rstrip().splitlines()
    if step.table and ended.has_passed:
        return lines + said
    if ended.record is not None:
        unfinished = [test for test, outcome in ended.record.outcomes.items() if outcome == STARTED]
        lines += [f"    did not end: {test}" for test in unfinished]
    return lines + [f"    {line}".rstrip() for line in said[-CLOSING_LINES:]]


def markdown(about: Mapping[str, str], parts: Mapping[str, Sequence[Step]], results: Results) -> str:
    """All parts, those too that have not run."""
    lines = ["# GPU check", "", *(f"- {name}: {value}" for name, value in about.items()), ""]
    lines += ["| part | step | outcome | seconds |", "|---|---|---|---|"]
    sections = []
    for part, steps in parts.items():
        for step in steps:
            ended = results.ended(step)
            seconds = f"{ended.outcome.seconds:.0f}" if ended else "-"
            lines.append(f"| {part} | {step.name} | {verdict(step, ended)} | {seconds} |")
            sections += section(step, ended) if ended else []
    return "\n".join(lines + sections) + "\n"
