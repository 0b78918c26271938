"""PTX text -> functions, variables and statements, each with its line. No meaning is attached here."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from .errors import UnsupportedPTX

# Bytes of each fundamental type (PTX ISA 5.2); predicates are kept in one byte.
WIDTH = {
    **dict.fromkeys(("b8", "s8", "u8", "pred"), 1),
    **dict.fromkeys(("b16", "s16", "u16", "f16", "bf16"), 2),
    **dict.fromkeys(("b32", "s32", "u32", "f32", "f16x2", "bf16x2", "tf32"), 4),
    **dict.fromkeys(("b64", "s64", "u64", "f64", "f32x2"), 8),
    "b128": 16,
}


@dataclass
class Variable:
    """A variable or parameter declaration."""

    space: str
    name: str
    type: str
    alignment: int
    size: int  # bytes; 0 where `unsized`
    initializer: str | None = None
    unsized: bool = False  # `extern .shared x[]`: dynamic shared memory
    offset: int = 0  # of an entry's parameter, in the parameter block


@dataclass
class Statement:
    """One PTX statement: `{`, `}`, `label:`, a directive or an instruction."""

    line: int
    text: str


@dataclass
class Function:
    """An `.entry` (kernel) or a `.func` (device function) with a body."""

    kind: str
    name: str
    line: int
    returns: list[Variable]
    parameters: list[Variable]
    directives: str  # .maxntid, .reqntid, ... between the head and the body
    body: list[Statement]

    @property
    def is_kernel(self) -> bool:
        return self.kind == "entry"

    @property
    def parameter_bytes(self) -> int:
        last = self.parameters[-1] if self.parameters else None
        return last.offset + last.size if last else 0


@dataclass
class Source:
    """A parsed PTX module."""

    functions: list[Function] = field(default_factory=list)
    variables: list[Variable] = field(default_factory=list)  # .global, .const, .shared; also those in functions

    def kernels(self) -> list[Function]:
        return [f for f in self.functions if f.is_kernel]


def split_operands(text: str) -> list[str]:
    """Split at the commas which no bracket encloses."""
    parts, depth, start = [], 0, 0
    for m in re.finditer(r"[\[{(\]}),]", text):
        c = m.group()
        if c == "," and depth == 0:
            parts.append(text[start : m.start()].strip())
            start = m.end()
        elif c != ",":
            depth += 1 if c in "[{(" else -1
    last = text[start:].strip()
    return [*parts, last] if last else parts


_VARIABLE = re.compile(
    r"^(?:\.(?:visible|extern|weak|common)\s+)*\.(?P<space>global|const|shared|local|param)\b\s*"
    r"(?P<qualifiers>(?:\.\w+(?:::\w+)?\s+|\d+\s+|\.ptr\s+|\.attribute\([^)]*\)\s*)*)"
    r"(?P<name>[\w$%]+)\s*(?P<dimensions>(?:\[[^\]]*\])*)\s*(?:=\s*(?P<initializer>.*))?$",
    re.S,
)


def parse_variable(text: str) -> Variable | None:
    m = _VARIABLE.match(text.strip())
    if not m:
        return None
    align = re.search(r"\.align\s+(\d+)", m["qualifiers"])
    types = [q for q in re.findall(r"\.(\w+)", m["qualifiers"]) if q in WIDTH]
    type_ = types[-1] if types else "b8"
    count, unsized = 1, False
    for dimension in re.findall(r"\[([^\]]*)\]", m["dimensions"]):
        if dimension.strip():
            count *= int(dimension, 0)
        else:
            unsized = True
    return Variable(
        space=m["space"],
        name=m["name"],
        type=type_,
        alignment=int(align[1]) if align else WIDTH[type_],
        size=0 if unsized else count * WIDTH[type_],
        initializer=m["initializer"],
        unsized=unsized,
    )


def _blank(match: re.Match[str]) -> str:
    """Spaces of the same shape, so that offsets still give the right line."""
    return re.sub(r"[^\n]", " ", match.group())


def _without_comments(text: str) -> str:
    text = re.sub(r"/\*.*?\*/", _blank, text, flags=re.S)
    text = re.sub(r"//[^\n]*", _blank, text)
    text = re.sub(r"^[ \t]*\.(?:loc|file)\b[^\n]*", _blank, text, flags=re.M)
    return re.sub(r"\.section\s+[\w.$]+\s*\{.*?\}\s*(?=\n|$)", _blank, text, flags=re.S)


class _Parser:
    def __init__(self, text: str):
        self.text = _without_comments(text)
        self.line_starts = [m.end() for m in re.finditer(r"\n", self.text)]

    def line(self, position: int) -> int:
        return bisect_right(self.line_starts, position) + 1

    def closing_brace(self, position: int) -> int:
        depth = 0
        for m in re.compile(r"[{}]").finditer(self.text, position):
            depth += 1 if m.group() == "{" else -1
            if depth == 0:
                return m.start()
        raise UnsupportedPTX(f"line {self.line(position)}: `{{` is never closed")

    def module(self) -> Source:
        source, text, i = Source(), self.text, 0
        blank = re.compile(r"\s*")
        one_line = re.compile(r"\.(?:version|target|address_size)[^\n]*|\.pragma[^;]*;")
        function = re.compile(r"((?:\.(?:visible|extern|weak)\s+)*)\.(entry|func)\b")
        while True:
            i = blank.match(text, i).end()  # type: ignore[union-attr]
            if i >= len(text):
                return source
            if m := one_line.match(text, i):
                i = m.end()
            elif m := function.match(text, i):
                brace, semicolon = text.find("{", m.end()), text.find(";", m.end())
                if semicolon != -1 and (brace == -1 or semicolon < brace):  # a prototype
                    i = semicolon + 1
                    continue
                end = self.closing_brace(brace)
                source.functions.append(self.function(m.group(2), m.start(), m.end(), brace, end, source))
                i = end + 1
            else:
                end = self.end_of_declaration(i)
                declaration = " ".join(text[i:end].split())
                variable = parse_variable(declaration)
                if variable:
                    source.variables.append(variable)
                elif declaration and not declaration.startswith(".alias"):
                    raise UnsupportedPTX(f"line {self.line(i)}: module directive `{declaration[:100]}`")
                i = end + 1

    def end_of_declaration(self, position: int) -> int:
        depth = 0
        for m in re.compile(r"[{};]").finditer(self.text, position):
            if m.group() == ";" and depth == 0:
                return m.start()
            depth += {"{": 1, "}": -1, ";": 0}[m.group()]
        raise UnsupportedPTX(f"line {self.line(position)}: declaration without `;`")

    def function(self, kind: str, start: int, head_start: int, brace: int, end: int, source: Source) -> Function:
        head = re.match(
            r"\s*(?:\((?P<returns>[^)]*)\))?\s*(?P<name>[\w$]+)\s*"
            r"(?:\((?P<parameters>[^)]*)\))?(?P<directives>.*)$",
            self.text[head_start:brace],
            re.S,
        )
        if not head:
            raise UnsupportedPTX(f"line {self.line(start)}: function head")
        parameters = _parameters(head["parameters"])
        offset = 0
        for p in parameters:  # the parameter block is laid out as a C struct
            p.offset = -(-offset // p.alignment) * p.alignment
            offset = p.offset + p.size
        body = []
        for statement in self.statements(brace + 1, end):
            if re.match(r"\.(shared|global|const)\b", statement.text):
                variable = parse_variable(statement.text)
                if not variable:
                    raise UnsupportedPTX(f"line {statement.line}: directive `{statement.text}`")
                source.variables.append(variable)
            else:
                body.append(statement)
        return Function(
            kind=kind,
            name=head["name"],
            line=self.line(start),
            returns=_parameters(head["returns"]),
            parameters=parameters,
            directives=head["directives"],
            body=body,
        )

    def statements(self, start: int, end: int) -> Iterator[Statement]:
        """`{` opens a scope where a statement could begin, else it encloses a vector operand."""
        text, depth, begin = self.text, 0, start
        for m in re.compile(r"[;{}]|:(?!:)").finditer(text, start, end):
            c, pending = m.group(), text[begin : m.start()].strip()
            if c in "{}" and not pending and depth == 0:
                yield Statement(self.line(m.start()), c)
                begin = m.end()
            elif c in "{}":
                depth += 1 if c == "{" else -1
            elif depth == 0 and c == ";":
                if pending:
                    first = begin + len(text[begin : m.start()]) - len(text[begin : m.start()].lstrip())
                    yield Statement(self.line(first), " ".join(pending.split()))
                begin = m.end()
            elif depth == 0 and c == ":" and re.fullmatch(r"[\w$]+", pending):
                yield Statement(self.line(m.start()), pending + ":")
                begin = m.end()


def _parameters(text: str | None) -> list[Variable]:
    result = []
    for p in split_operands(text or ""):
        p = re.sub(r"\.ptr(\s*\.(global|shared|local|const))?(\s*\.align\s+\d+)?", "", p)
        variable = parse_variable(p)
        if not variable:
            raise UnsupportedPTX(f"parameter `{p}`")
        result.append(variable)
    return result


def parse(text: str) -> Source:
    return _Parser(text).module()
