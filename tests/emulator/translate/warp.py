"""Instructions in which threads meet: barriers, shuffles, votes, matches, reductions (PTX ISA 9.7.13)."""

from __future__ import annotations

from ..errors import UnsupportedPTX
from ..parser import WIDTH
from .function import FunctionTranslator
from .instruction import Instruction, translates

_ALL_LANES = "-1"  # forms without .sync name no lanes


def _collective(
    f: FunctionTranslator,
    operation: str,
    mask: str,
    value: str,
    b: str = "0",
    c: str = "0",
    found: str = "nullptr",
) -> str:
    arguments = ", ".join([operation, f.value(mask, "u32"), value, b, c, f.site(), found])
    return f"warp_collective(t, {arguments})"


def _write_with_predicate(f: FunctionTranslator, ins: Instruction, call: str) -> None:
    """d|p = call"""
    targets = ins.operands[0].split("|")
    f.emit(f"{{ uint32_t found; const uint32_t collected = (uint32_t){call};")
    f.write(targets[0], "b32", "collected")
    if len(targets) > 1:
        f.write(targets[1], "pred", "found")
    f.emit("}")


@translates("bar barrier", "cta warp sync red arrive popc and or aligned cluster wait acquire release relaxed")
def barrier(f: FunctionTranslator, ins: Instruction) -> None:
    operands = ins.operands
    if ins.modifiers[0] == "warp":
        f.emit(_collective(f, "WARP_SYNC", operands[0], "0") + ";")
        return
    if ins.modifiers[0] == "cluster":  # a cluster is one block
        f.emit(f"block_barrier(t, CLUSTER_BARRIER, 0, NO_REDUCTION, 0, {f.site()});" if ins.has("wait") else "")
        return
    kind = ins.require("sync", "red", "arrive")
    if kind == "sync":
        threads = f.value(operands[1], "u32") if len(operands) > 1 else "0"
        f.emit(f"block_barrier(t, {f.value(operands[0], 'u32')}, {threads}, NO_REDUCTION, 0, {f.site()});")
    elif kind == "arrive":
        f.emit(f"barrier_arrive(t, {f.value(operands[0], 'u32')}, {f.value(operands[1], 'u32')}, {f.site()});")
    else:
        operation = ins.require("popc", "and", "or")
        threads = f.value(operands[2], "u32") if len(operands) == 4 else "0"
        predicate = f.predicate(operands[-1])
        number = f.value(operands[1], "u32")
        call = f"block_barrier(t, {number}, {threads}, REDUCE_{operation.upper()}, {predicate}, {f.site()})"
        f.write(operands[0], "u32" if operation == "popc" else "pred", call)


@translates("shfl", "sync up down bfly idx")
def shuffle(f: FunctionTranslator, ins: Instruction) -> None:
    mask = ins.operands[4] if ins.has("sync") else _ALL_LANES
    b, c = (f.value(o, "u32") for o in ins.operands[2:4])
    mode = ins.require("up", "down", "bfly", "idx").upper()
    call = _collective(f, f"SHUFFLE_{mode}", mask, f.bits(ins.operands[1], 4), b, c, "&found")
    _write_with_predicate(f, ins, call)


@translates("vote", "sync any all uni ballot")
def vote(f: FunctionTranslator, ins: Instruction) -> None:
    mask = ins.operands[2] if ins.has("sync") else _ALL_LANES
    kind = ins.require("ballot", "any", "all", "uni")
    call = _collective(f, f"VOTE_{kind.upper()}", mask, f.predicate(ins.operands[1]))
    f.write(ins.operands[0], "b32" if kind == "ballot" else "pred", call)


@translates("match", "any all sync")
def match(f: FunctionTranslator, ins: Instruction) -> None:
    kind = ins.require("any", "all").upper()
    value = f.bits(ins.operands[1], WIDTH[ins.type])
    _write_with_predicate(f, ins, _collective(f, f"MATCH_{kind}", ins.operands[2], value, found="&found"))


@translates("redux", "sync add min max and or xor")
def reduce(f: FunctionTranslator, ins: Instruction) -> None:
    if ins.type == "f32":
        raise UnsupportedPTX("redux of f32")
    operation = ins.require("add", "min", "max", "and", "or", "xor").upper()
    if operation in ("MIN", "MAX"):
        operation += "_SIGNED" if ins.type[0] == "s" else "_UNSIGNED"
    call = _collective(f, f"REDUCE_LANES_{operation}", ins.operands[2], f.bits(ins.operands[1], 4))
    f.write(ins.operands[0], "b32", call)


@translates("elect", "sync")
def elect(f: FunctionTranslator, ins: Instruction) -> None:
    _write_with_predicate(f, ins, _collective(f, "ELECT", ins.operands[1], "0", found="&found"))


@translates("activemask")
def active_mask(f: FunctionTranslator, ins: Instruction) -> None:
    """Which lanes are active together is the scheduler's choice: one lane alone is a legal one."""
    f.write(ins.operands[0], "b32", "(1u << t->lane)")
