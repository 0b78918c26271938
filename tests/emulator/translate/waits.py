"""Where a warp waits for memory: which loads make up the chains of dependent loads.

A warp issues its instructions in their order, and waits where one needs what a load has not brought yet; loads that were
issued until then come together. ptxas moves the loads of a basic block up as far as it may. So loads have levels: within a
block, a load is one level above what its address was computed from, and above stores to its memory and barriers before it.
The loads of a level take one wait, which is counted where the first of them is executed. What a block loads and does not
use is pending at its end, and a later block's loads come together with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .instruction import Instruction
from .scope import Register

# Of memories that are waited for together the one that takes longest decides. A generic address may be of either.
_RANK = {"shared": 1, "generic": 2, "global": 3}
_NO_DESTINATION = re.compile(
    r"st|red|bra|brx|ret|exit|trap|bar|barrier|membar|fence|cp|prefetchu?|discard|applypriority|nanosleep"
)


@dataclass
class _Step:
    """What an instruction means here."""

    instruction: Instruction
    reads: frozenset[str]
    writes: frozenset[str]
    space: str | None  # whose loads and stores are told apart; None: no access
    loads: bool = False  # the warp has to wait for what it writes
    stores: bool = False
    is_barrier: bool = False
    is_call: bool = False


@dataclass(frozen=True)
class _State:
    """Between blocks: the registers that are pending, and the rank of the loads that were counted for them."""

    pending: frozenset[str] = frozenset()
    rank: int = 0

    def met(self, other: _State) -> _State:
        return _State(self.pending | other.pending, min(self.rank, other.rank))


def waiting_loads(blocks: Sequence[Sequence[Instruction]], successors: Sequence[Sequence[int]]) -> set[int]:
    """The ids of the instructions that are counted for a wait each."""
    steps = [[_step(ins) for ins in block] for block in blocks]
    read = frozenset[str]().union(*(step.reads for block in steps for step in block))
    for block in steps:
        for step in block:  # nobody waits for an atomic's old value that is not used
            step.loads = step.loads and not (step.stores and not step.writes & read)
    into = [_State(rank=max(_RANK.values())) for _ in blocks]
    into[0] = _State()
    changed = {*range(len(blocks))}
    while changed:
        block = min(changed)
        changed.remove(block)
        _, after = _walk(steps[block], into[block])
        for target in successors[block]:
            met = into[target].met(after)
            if met != into[target]:
                into[target] = met
                changed.add(target)
    return {id(ins) for block, state in zip(steps, into, strict=True) for ins in _walk(block, state)[0]}


def _walk(steps: Iterable[_Step], before: _State) -> tuple[list[Instruction], _State]:
    """The loads of a block that are counted, and what is pending after it."""
    level = dict.fromkeys(before.pending, 1)
    floor = dict.fromkeys(_RANK, 0)  # by memory: loads come above it
    awaited = 0  # the highest level that something was computed from
    loads: dict[int, list[_Step]] = {}
    for step in steps:
        if step.is_call:
            own = max(level.values(), default=0)
        else:
            own = max((level.get(register, 0) for register in step.reads), default=0)
        awaited = max(awaited, own)
        written = own
        if step.loads and step.space:
            written = max(own, floor[step.space]) + 1
            loads.setdefault(written, []).append(step)
        for register in step.writes:
            level[register] = max(written, level.get(register, 0)) if step.instruction.guard else written
        if step.is_barrier or step.is_call:
            floor = dict.fromkeys(_RANK, awaited)
        elif step.stores and step.space:
            for space in _RANK if step.space == "generic" else (step.space, "generic"):
                floor[space] = max(floor[space], own)
    counted = []
    for height, together in loads.items():
        longest = max(together, key=lambda step: (_RANK[step.space or ""], not step.instruction.guard))
        if height > 1 or _RANK[longest.space or ""] > before.rank:
            counted.append(longest.instruction)
    pending = frozenset(register for register, height in level.items() if height > awaited)
    last = [_RANK[step.space or ""] for step in loads.get(awaited + 1, ())]
    rank = max([before.rank] * (awaited == 0) + last, default=0)
    return counted, _State(pending, rank if pending else 0)


def _step(ins: Instruction) -> _Step:
    has_destination = not _NO_DESTINATION.fullmatch(ins.opcode) or (ins.opcode in ("bar", "barrier") and ins.has("red"))
    first = int(has_destination and bool(ins.operands))
    writes = _registers(ins, ins.operands[:first])
    reads = _registers(ins, ins.operands[first:]) | _registers(ins, [ins.guard or ""])
    step = _Step(ins, reads, writes, None)
    if ins.opcode in ("ld", "ldu", "st", "atom", "red"):
        space = (ins.one_of("global", "shared", "shared::cta", "local", "const", "param") or "generic").split("::")[0]
        step.space = space if space in _RANK else None
        step.loads = step.space is not None and ins.opcode in ("ld", "ldu", "atom")
        step.stores = step.space is not None and ins.opcode in ("st", "atom", "red")
    step.is_barrier = ins.opcode in ("bar", "barrier", "membar", "fence") and not ins.has("warp")
    step.is_call = ins.opcode == "call"
    return step


def _registers(ins: Instruction, operands: Iterable[str]) -> frozenset[str]:
    found = (ins.scope.find(name) for operand in operands for name in re.findall(r"[\w$%]+", operand))
    return frozenset(x.name for x in found if isinstance(x, Register))
