"""All faults of a source file in one text, each behind a switch: ``(FAULT(7) ? (a - b) : (a + b))``."""

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping

from .rules import CSRC, Fault

OPENS, CLOSES = "([{", ")]}"
# What ends an expression where no bracket does: an assignment leaves what it assigns to outside.
SEPARATOR = re.compile(r"[,;?]|(?<!:):(?!:)|(?<![=!<>])=(?!=)|\b(?:return|else|case|throw|do)\b")
UNSWITCHED = re.compile(
    r"\b(constexpr|static_assert|using|enum|case|alignas|virtual|__global__|__launch_bounds__|template|typename)\b|^\s*#|\boperator\b"
)
FIXED = re.compile(r"(?<!if )\bconstexpr\b|\benum\b")  # before braces
CONTROL = re.compile(r"\b(?:if|for|while|switch)\s*(?:constexpr\s*)?$")


def masked(text: str) -> str:
    """The text with blanks for comments, strings and directives, in their places."""
    what = r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])\'|^[ \t]*#(?:\\\n|[^\n])*'
    return re.sub(what, lambda m: re.sub(r"[^\n]", " ", m[0]), text, flags=re.MULTILINE | re.DOTALL)


class Structure:
    """Where brackets open and close, those of templates among them, and what stands between them."""

    def __init__(self, text: str) -> None:
        self.text = masked(text)
        self.pairs: dict[int, int] = {}  # opening -> closing
        stack: list[int] = []
        for i, c in enumerate(self.text):
            before, after = self.text[i - 1 : i], self.text[i + 1 : i + 2]
            if c in OPENS or (
                c == "<" and (before.isalnum() or before == "_" or self.text[:i].endswith("template ")) and after != "="
            ):
                stack.append(i)
            elif c in CLOSES:
                while stack and self.text[stack[-1]] == "<":
                    stack.pop()
                if stack:
                    self.pairs[stack.pop()] = i
            elif c == ">" and stack and self.text[stack[-1]] == "<" and before != "-":
                self.pairs[stack.pop()] = i
        self.opens = sorted(self.pairs)

    def around(self, begin: int, end: int) -> tuple[int, int]:
        """Inside of the innermost brackets around a piece that are not a template's; the whole text if there are none."""
        for at in reversed(self.opens[: bisect_right(self.opens, begin - 1)]):
            if self.text[at] != "<" and self.pairs[at] >= end:
                return at + 1, self.pairs[at]
        return 0, len(self.text)

    def is_block(self, at: int) -> bool:
        """Whether the brace at a place begins statements rather than values."""
        return bool(
            re.search(r"(?:[);{}]|\b(?:else|do|const|noexcept|override|try)|->\s*[\w:<>]+)\s*$", self.text[max(0, at - 80) : at])
        )

    def clause(self, begin: int, end: int, *, whole: bool = False) -> tuple[int, int]:
        """The expression around a piece, as far as it can be exchanged; all of the statement's rest if whole."""
        first, last = self.around(begin, end)
        i, start = first, first
        while i < last:
            pattern = re.compile(";") if whole else SEPARATOR
            c = self.text[i]
            if i in self.pairs:
                close = self.pairs[i]
                if i < begin and close >= end:  # a template's, around the piece
                    i += 1
                    continue
                ends = (c == "{" and self.is_block(i)) or (c == "(" and bool(CONTROL.search(self.text[:i])))
                if ends and close < begin:
                    start = close + 1
                elif ends and i >= end:
                    return self._stripped(start, i)
                i = close + 1
                continue
            inside = any(self.text[o] == "<" and o < i < self.pairs[o] for o in self.opens[: bisect_right(self.opens, i)][-3:])
            match = None if inside else pattern.match(self.text, i)
            if match and match.end() <= begin:
                start = match.end()
            elif match and i >= end:
                return self._stripped(start, i)
            i = match.end() if match else i + 1
        return self._stripped(start, last)

    def call(self, begin: int, end: int) -> tuple[int, int]:
        """The brackets around a piece."""
        first, last = self.around(begin, end)
        return first - 1, last + 1

    def is_intrinsic(self, begin: int, end: int) -> bool:
        """Whether a piece is an argument of a function of the compiler's, which may want it constant."""
        return bool(re.search(r"\b_mm\w+$", self.text[: self.around(begin, end)[0] - 1]))

    def begins_statement(self, at: int) -> bool:
        """Whether a statement can begin at a place; it may be the rest of a longer one."""
        before = self.text[:at].rstrip()
        if before.endswith(")"):
            return any(close == len(before) - 1 and CONTROL.search(before[:opening]) for opening, close in self.pairs.items())
        return bool(re.search(r"(?:[;{}]|\belse|\bdo)$", before))

    def _stripped(self, begin: int, end: int) -> tuple[int, int]:
        while begin < end and self.text[begin].isspace():
            begin += 1
        while begin < end and self.text[end - 1].isspace():
            end -= 1
        return begin, end

    def is_switchable(self, begin: int, end: int) -> bool:
        """Whether what stands here is evaluated when the program runs, as far as words tell."""
        blocks = [at for at in self.opens[: bisect_right(self.opens, begin)] if self.text[at] == "{" and self.pairs[at] >= end]
        heads = [self._head(at, at) for at in blocks]
        if heads and re.search(r"\b(?:struct|class)\b", heads[-1]):
            return False  # a member's default, which constants may take
        return not UNSWITCHED.search(self._head(begin, end)) and not any(FIXED.search(head) for head in heads)

    def _head(self, begin: int, end: int) -> str:
        """From the beginning of the statement that a piece is in to the end of the piece."""
        return self.text[max(self.text.rfind(c, 0, begin) for c in ";{}") + 1 : end]


def planted(text: str, faults: Mapping[int, Fault]) -> tuple[str, set[int]]:
    """The text with those of the numbered faults that can be switched, and their numbers. Lines keep their numbers."""
    structure = Structure(text)
    starts = [0, *(m.end() for m in re.finditer("\n", text))]
    edits: dict[tuple[int, int], list[tuple[int, str]]] = defaultdict(list)  # place -> number and what stands there instead
    for number, fault in faults.items():
        begin, end = starts[fault.line - 1] + fault.begin, starts[fault.line - 1] + fault.end
        if not structure.is_switchable(begin, end):
            continue
        if fault.rule in ("statement", "atomic"):
            if fault.rule == "atomic":
                end += 1  # with its semicolon
            if not structure.begins_statement(begin):
                continue
            edits[begin, end].append((number, fault.piece + ";" * (fault.rule == "atomic")))
            continue
        place = structure.clause(begin, end, whole=fault.piece in ("+=", "-="))
        if fault.rule == "arguments":
            place = structure.clause(*structure.call(*place))
        while structure.is_intrinsic(*place):
            place = structure.clause(*structure.call(*place))
        if not (place[0] <= begin and end <= place[1]):
            continue
        edits[place].append((number, text[place[0] : begin] + fault.piece + text[end : place[1]]))
    kept: set[int] = set()
    result = _written(text, 0, len(text), sorted(edits, key=lambda e: (e[0], -e[1])), edits, kept)
    return result, kept


def is_switched(fault: Fault) -> bool:
    """Whether a switch can plant it; else it wants a build of its own."""
    return bool(planted((CSRC / fault.file).read_text(), {0: fault})[1])


def _written(
    text: str,
    begin: int,
    end: int,
    places: Iterable[tuple[int, int]],
    edits: Mapping[tuple[int, int], list[tuple[int, str]]],
    kept: set[int],
) -> str:
    """text[begin:end] with the edits of the places, which lie in it, the outer before the inner."""
    out, at = [], begin
    places = list(places)
    while places:
        place = places.pop(0)
        if place[0] < at or place[1] > end:
            continue  # neither beside the one before nor in it
        inner = [p for p in places if p[0] >= place[0] and p[1] <= place[1]]
        places = [p for p in places if p not in inner]
        out.append(text[at : place[0]])
        body = _written(text, *place, inner, edits, kept)
        is_statement = text[place[1] - 1] == ";"
        for number, instead in edits[place]:
            kept.add(number)
            flat = re.sub(r"//[^\n]*|\n", " ", instead)
            body = (
                f"{{ if (FAULT({number})) {{ {flat} }} else {{ {body} }} }}"
                if is_statement
                else f"(FAULT({number}) ? ({flat}) : ({body}))"
            )
        out.append(body)
        at = place[1]
    out.append(text[at:end])
    return "".join(out)
