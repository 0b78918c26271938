"""Simple faults, by rule: what stands in a line of csrc, and what takes its place."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CSRC = Path(__file__).parents[2] / "csrc"
SUFFIXES = (".h", ".cpp", ".cu", ".cuh")

Exchange = dict[str, str]
SHIFTED: Exchange = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==", "&&": "||", "||": "&&"}
SIGNS: Exchange = {"+": "-", "-": "+", "+=": "-=", "-=": "+="}

# Spaces around an operator tell a comparison from a template's brackets.
RULES: list[tuple[str, str, object]] = [
    ("comparison", r"(?<= )(<=|>=|<|>|==|!=|&&|\|\|)(?= [^t])", lambda m: SHIFTED[m[0]]),
    ("sign", r"(?<= )(\+=|-=|\+|-)(?= )", lambda m: SIGNS[m[0]]),
    ("constant", r"(?<![\w.'\"])(\d+)(?![\w.'\"])", lambda m: str(int(m[0]) + 1)),
    ("arguments", r"(?<=\()(\w+), (\w+)(?=\))", lambda m: f"{m[2]}, {m[1]}"),
    ("atomic", r"\batomic(?:Add|Or)\((.+?), (.+)\)(?=;)", lambda m: f"*({m[1]}) += {m[2]}"),
]
# A whole line that is a statement. A declaration has a type before its name.
ASSIGNMENT, INCREMENT = r"[\w.:>\[\]()*-]+ [-+*|&^/]?=(?!=) .*", r"(?:\+\+|--)[\w.>-]+"
CALL, JUMP = r"[\w.:>-]+(?:<[^;]*>)?\(.*\)", "return|continue|break"
STATEMENT = re.compile(rf"^\s+((?:{ASSIGNMENT}|{INCREMENT}|{CALL}|{JUMP});)(?: *//.*)?$")
NO_CODE = re.compile(r"^\s*(//|#|static_assert|template|using |asm|__launch_bounds__|TORCH_CHECK|m\.def|m\.doc|struct |class )")


@dataclass(frozen=True)
class Fault:
    """A piece of a line of a file under csrc that is exchanged for another."""

    file: str
    line: int
    rule: str
    code: str  # the line
    begin: int  # the piece, in the line
    end: int
    piece: str  # what takes its place

    @property
    def new(self) -> str:
        return self.code[: self.begin] + self.piece + self.code[self.end :]

    def __str__(self) -> str:
        return f"{self.file}:{self.line} ({self.rule}): {self.code.strip()}  ->  {self.new.strip() or '(left out)'}"

    @property
    def key(self) -> str:
        """Without the number, which changes with every line above."""
        return f"{self.file} | {self.code.strip()} | {self.new.strip()}"


def faults_of(path: Path) -> Iterator[Fault]:
    """All faults of a source file, in order."""
    name = str(path.relative_to(CSRC))
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if NO_CODE.match(line):
            continue
        code = line.partition("//")[0]
        for rule, pattern, change in RULES:
            for match in re.finditer(pattern, code):
                yield Fault(name, number, rule, line, *match.span(), change(match))  # type: ignore[operator]
        if match := STATEMENT.match(line):
            yield Fault(name, number, "statement", line, *match.span(1), "")


def listed(name: str) -> set[str]:
    """The lines of a list of tests/data; those that begin with # say why."""
    lines = (Path(__file__).parents[1] / "data" / f"{name}.txt").read_text().splitlines()
    return {line for line in lines if line and not line.startswith("#")}
