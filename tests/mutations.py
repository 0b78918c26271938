"""Faults to plant in copies of csrc/cuda, one at a time: each is a text that occurs once, and what takes its place.

A new kernel brings a fault for each of its barriers, bounds, index types and launches: a row in one of these tables. A fault
that test_kernel_mutations.py does not report shows a check that its selection, or the suite, lacks.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from emulated import CSRC, SOURCES
from emulator.compiler import cache_directory, digest

BARRIER = "    __syncthreads();\n"


@dataclass(frozen=True)
class Mutation:
    """`file` under csrc; `units`: the .cu files in which a header's change shows, by default the file itself. Of an inline
    function of the host, the linker takes any unit's copy: then all units that use it."""

    file: str
    old: str
    new: str
    units: tuple[str, ...] = ()
    algorithm: str = "tiled"

    def sources(self) -> tuple[Path, ...]:
        """The sources of csrc/cuda with the fault: its copy lies beside the compiled code, by content as that does."""
        text = (CSRC / self.file).read_text()
        count = text.count(self.old)
        assert count == 1, f"csrc/{self.file} has {count} times what the mutation replaces: {self.old!r}"
        assert self.old != self.new
        contents = [path.read_bytes() for path in sorted(CSRC.rglob("*")) if path.is_file()]
        copy = cache_directory() / f"mutation-{digest(self.file, self.old, self.new, *contents)}"
        shutil.copytree(CSRC, copy, dirs_exist_ok=True)
        (copy / self.file).write_text(text.replace(self.old, self.new))
        changed = self.units or (self.file,)
        return tuple(copy / path.relative_to(CSRC) if str(path).endswith(changed) else path for path in SOURCES)


TILED, TERMS, POSITIVES = "cuda/tiled.cu", "cuda/terms.cu", "cuda/positives.cu"
# Headers: the unit that shows the fault is compiled with the copy.
BLOCK, TERMS_HEADER, PAIRS, LAUNCH, KEYS = "cuda/block.cuh", "cuda/terms.cuh", "cuda/pairs.cuh", "cuda/launch.cuh", "keys.h"


def no_barriers_of_pairs(unit: str) -> list[Mutation]:
    """A sweep without the barrier after a tile is stored, and without that before the next tile."""
    stored = "    tile[threadIdx.x] = own < end ? read(own) : nothing;\n"
    next_tile = "    __syncthreads();  // before the next tile overwrites what is being read\n"
    return [Mutation(PAIRS, stored + BARRIER, stored, (unit,)), Mutation(PAIRS, next_tile, "", (unit,))]


BARRIERS = {
    **dict(
        zip(("no barrier after a tile is stored", "no barrier before the next tile"), no_barriers_of_pairs(TILED), strict=True)
    ),
    "no barrier before a scan's storage is used again": Mutation(
        BLOCK, "  __syncthreads();  // storage is used again\n", "", units=(TERMS,)
    ),
    # Not here, because nothing goes wrong without it: the barrier at the end of hard_sums (those of the scan that follows
    # also order what it wrote).
}

BOUNDS = {
    "one negative too many is counted": Mutation(PAIRS, "own < end ? read(own)", "own <= end ? read(own)", (TILED,)),
    "the last tile is left out": Mutation(PAIRS, "base = begin; base < end;", "base = begin; base + kTile <= end;", (TILED,)),
    "a part begins one negative late": Mutation(
        TILED, "begin = blockIdx.y * parts.size;", "begin = blockIdx.y * parts.size + 1;"
    ),
    "one positive too many is written": Mutation(TILED, "if (i < positives.p) parts.sums[", "if (i <= positives.p) parts.sums["),
    "the last part is not summed": Mutation(TILED, "part < parts.count; ++part", "part + 1 < parts.count; ++part"),
    "one gradient too many is written": Mutation(TILED, "if (j >= input.n) return;", "if (j > input.n) return;"),
    "one sum of weights too many is written": Mutation(
        TILED, "if (i < positives.p) out[place[i]]", "if (i <= positives.p) out[place[i]]"
    ),
    "one driven error too many is written": Mutation(
        TERMS, "if (r >= p) return;\n  const double error", "if (r > p) return;\n  const double error"
    ),
    "one loc_error's gradient too many is written": Mutation(
        TERMS, "if (r >= input.p) return;\n  if (gradients.grad", "if (r > input.p) return;\n  if (gradients.grad"
    ),
    "one key too few is made": Mutation(POSITIVES, "if (r >= input.p) return;\n", "if (r + 1 >= input.p) return;\n"),
    "shared memory of a tile is one short": Mutation(PAIRS, "Item tile[kTile];", "Item tile[kTile - 1];", (TILED,)),
    "positives beyond the capacity are written": Mutation(POSITIVES, "      if (place >= sink.capacity) return;\n", "\n"),
    "positives that were not found are read": Mutation(POSITIVES, "if (place >= status->found) {", "if (false) {"),
    "-1 is a place to scatter to": Mutation(TERMS, "gradients.grad_cls && tables.index[r] >= 0", "gradients.grad_cls"),
}

WIDTHS = {
    "logits are counted in 32 bits": Mutation(
        LAUNCH,
        "return int64_t{blockIdx.x} * kThreads + threadIdx.x;",
        "return static_cast<int>(blockIdx.x * kThreads + threadIdx.x);",
        (TILED,),
    ),
    "parts begin at 32 bits": Mutation(
        TILED, "begin = blockIdx.y * parts.size;", "begin = static_cast<int>(blockIdx.y * parts.size);"
    ),
    "flat indices have 32 bits": Mutation(
        POSITIVES,
        "labels.classes ? label * labels.classes + row_class(labels, label_bits(labels, label)) : label;",
        "labels.classes ? static_cast<int>(label * labels.classes + row_class(labels, label_bits(labels, label))) : label;",
    ),
    "half precision is loaded at 32-bit offsets": Mutation(
        "cuda/array.cuh",
        "static_cast<const __half*>(array.data)[i]);",
        "static_cast<const __half*>(array.data)[int(i)]);",
        (TILED,),
    ),
    "rows are counted in 32 bits": Mutation(
        "labels.h", "const int64_t row = i / labels.classes;", "const int64_t row = int(i) / int(labels.classes);", (TILED,)
    ),
    "a grid is cut to 32 bits": Mutation(
        LAUNCH,
        "  if (blocks > INT_MAX)\n",
        "  if (false)\n",
        (POSITIVES, TERMS, TILED, "cuda/parts.cu", "cuda/sort_errors.cu", "cuda/build_tables.cu"),
    ),
}

MATHEMATICS = {
    "the step's sign is swapped": Mutation(
        TILED, "sum += weight_of<kSkewed>(step(positives.h, s_j, s_i)", "sum += weight_of<kSkewed>(step(positives.h, s_i, s_j)"
    ),
    "a positive's own step is counted": Mutation(TILED, "if (k == i) return;", "if (false) return;"),
    "a positive's own rank is weighed by a half": Mutation(
        TILED, "i == k ? 1.0 : step(positives.h, s_k, s_i)", "step(positives.h, s_k, s_i)"
    ),
    "a positive's own weight is summed": Mutation(TILED, "if (k != i) sum +=", "sum +="),
    "the product of pairs is not transposed": Mutation(TILED, "kTransposed ? step(", "false ? step("),
    "errors are driven at the place of the score": Mutation(TERMS, "drive.errors[drive.place[r]]", "drive.errors[r]"),
    "the spread has no skew": Mutation(
        TILED, "weighted(weight_of<kSkewed>(step(positives.h, s_j, s_i), input.skew)", "weighted(step(positives.h, s_j, s_i)"
    ),
    "the norms have no skew": Mutation(
        TILED, "sum += weight_of<kSkewed>(step(positives.h, s_j, s_i), input.skew)", "sum += step(positives.h, s_j, s_i)"
    ),
    "shares are sent at eps": Mutation("losses.h", "n_fp > eps ? error / (z", "n_fp >= eps ? error / (z", (TERMS,)),
    "gradients are sent at eps": Mutation("losses.h", "n_fp > eps ? -error / z", "n_fp >= eps ? -error / z", (TERMS,)),
    "an infinite weight times no step is NaN": Mutation("step.h", "h > 0 ? h * weight : 0.0", "h * weight", (TILED,)),
    "equal infinities do not tie": Mutation("step.h", "s_j == s_i ? 0.0 : s_j - s_i", "s_j - s_i", (TILED,)),
    "ties ascend by flat index": Mutation(POSITIVES, "const int64_t place = input.p - 1 - r;", "const int64_t place = r;"),
    "-0.0 sorts below 0.0": Mutation(KEYS, "score == 0 ? 0.0 : score", "score", units=(POSITIVES,)),
    "a scan forgets the chunks before": Mutation(
        BLOCK, "prefix = operation(carry, operation", "prefix = operation(T(), operation", units=(TERMS,)
    ),
}

REPORTS = {
    "a negative's NaN is not reported": Mutation(TILED, "if (s_j != s_j) raise(&status->nan);", ""),
    "a positive's NaN is not reported": Mutation(POSITIVES, "if (nan) raise(&status->nan);", ""),
    "an impossible label is not reported": Mutation(POSITIVES, "if (invalid) raise(&status->invalid);", ""),
    "status is raised without an atomic": Mutation(
        "cuda/array.cuh",
        "atomicOr(reinterpret_cast<unsigned long long*>(field), 1ULL);",
        "*field = 1;",
        (TILED,),
    ),
    "status is not reset": Mutation(
        POSITIVES,
        '  check(cudaMemsetAsync(status, 0, sizeof(Status), stream), "memset of status");\n  // Not looked for',
        "  // Not looked for",
    ),
    "a wrong number of positives is not reported": Mutation(TERMS_HEADER, " || status.found != p ?", " ?", units=(TERMS,)),
    "ranks are not poisoned": Mutation(TERMS_HEADER, "rank + poison", "rank", units=(TERMS,)),
    "the positives' gradients are not poisoned": Mutation(TERMS_HEADER, "eps, z) + poison;", "eps, z);", units=(TERMS,)),
    "the others' gradients are not poisoned": Mutation(TILED, "(sum + *tables.poison) * load_scalar", "sum * load_scalar"),
    "ignored logits get no gradient": Mutation(TILED, "if (j >= input.n) return;", "if (j >= input.n || !negative) return;"),
}

FIND, RANK, TABLES, COUNT, SPREAD, LOSSES = (
    f"cuda/{name}.cu" for name in ("find", "rank_positives", "build_tables", "count", "spread", "compute_losses")
)


def in_sorted(file: str, old: str, new: str, units: tuple[str, ...] = ()) -> Mutation:
    """A fault in the kernels of the sorted form."""
    return Mutation(file, old, new, units, algorithm="sorted")


def no_sorted_barrier(file: str, call: str) -> Mutation:
    """Without the barrier before a call."""
    return in_sorted(file, BARRIER + "    " + call, "    " + call)


SORTED = {
    "sorted: a sum loses its carry": in_sorted(COUNT, '"addc.u32 high', '"add.u32 high'),
    "sorted: a count without an atomic": in_sorted(
        COUNT,
        '"red.shared.add.u32 [%0 + 4], %1;',
        '"ld.shared.u32 after, [%0 + 4]; add.u32 after, after, %1; st.shared.u32 [%0 + 4], after;',
    ),
    "sorted: bins are not zeroed": in_sorted(COUNT, "record[1] = record[2] = record[3] = 0;", "record[1] = record[2] = 0;"),
    "sorted: no barrier before the bins are added up": in_sorted(
        COUNT, "plan, starts, own, status);\n" + BARRIER, "plan, starts, own, status);\n"
    ),
    "sorted: a bin too few is zeroed": in_sorted(
        COUNT,
        "m < segments; m += kStreamThreads) {\n      uint32_t* record",
        "m < segments - 1; m += kStreamThreads) {\n      uint32_t* record",
    ),
    "sorted: what a warp holds is forgotten": in_sorted(COUNT, "  held.release(bins);\n", ""),
    "sorted: a warp holds what lies below its segment": in_sorted(COUNT, "begin = bins.upper(m - 1);", "begin = bins.upper(0);"),
    "sorted: scores above all knots are not limited": in_sorted(COUNT, "        limit(plan.high, s[u]);\n", ""),
    "sorted: no barrier before the tables of count are read": no_sorted_barrier(COUNT, "count_narrow<T>(input"),
    "sorted: no barrier before the tables are read": no_sorted_barrier(SPREAD, "spread_narrow<T>(input"),
    "sorted: the rest behind the tiles is left out": in_sorted(
        SPREAD, "sweep_grid<kStreamThreads>(4 * own.vectors", "sweep_grid<kStreamThreads>(own.size"
    ),
    "sorted: ignored rows are counted": in_sorted(COUNT, "if (status->ignored && is_walked(input))", "if (false)"),
    "sorted: ignored logits are counted": in_sorted(COUNT, "if (own.reads_labels) drop", "if (false) drop"),
    "sorted: ignored logits are spread over": in_sorted(SPREAD, "if (own.reads_labels) drop", "if (false) drop"),
    "sorted: NaN is reported where it is ignored": in_sorted(COUNT, "nan += taken_out ? -1 : 1;", "nan += 1;"),
    "sorted: one more and one less is nothing": in_sorted(COUNT, "if (record[1] | record[2] | record[3])", "if (record[1])"),
    "sorted: a count below 0 is a great one": in_sorted(COUNT, "int64_t{static_cast<int32_t>(wrapped)}", "int64_t{wrapped}"),
    "sorted: ignored rows keep what was spread": in_sorted(TERMS, "if (status && status->ignored)", "if (false)"),
    "sorted: ignored labels are not reported": in_sorted(FIND, "any_ignored |= mark == Mark::kIgnored;", ""),
    "sorted: positives beyond the capacity are listed": in_sorted(FIND, "  if (slot >= search.input.p) return;\n", ""),
    "sorted: positives stay in the bins": in_sorted(TABLES, "if (index[i] >= 0) take_out", "if (false) take_out"),
    "sorted: a NaN positive is not reported": in_sorted(FIND, "if (nan) raise", "if (false) raise"),
    "sorted: tied positives in the order of their index": in_sorted(
        RANK, "rest, %2, %3; subc.cc.u32 rest, %4, %5;", "rest, %3, %2; subc.cc.u32 rest, %5, %4;"
    ),
    "sorted: half of the positives are not compared": in_sorted(RANK, "j < listed; j += 32", "j < listed; j += 64"),
    "sorted: a warp ranks one positive too few": in_sorted(RANK, "lane >= kOwn ||", "lane >= kOwn - 1 ||"),
    "sorted: a block too few ranks": in_sorted(
        RANK, "per_item(input.p, kThreads, kRanked)", "per_item(input.p, kThreads, kRanked + 1)"
    ),
    "sorted: bins are not emptied before they are filled": in_sorted(RANK, "[k] = {0, 0};", "[k] = {0, 1};"),
    "sorted: clusters of other blocks are not counted": in_sorted(TABLES, "atomicAdd(&before, count), ", ""),
    "sorted: a cluster begins with the first positive": in_sorted(TABLES, ", atomicMax(&latest, last)", ""),
    "sorted: a cluster goes on to the last positive": in_sorted(TABLES, "  if (k < p) atomicMin(&next, k);\n", ""),
    "sorted: a cluster ends with its warp": in_sorted(TABLES, "w >= 0; --w) {", "w > warp; --w) {"),
    "sorted: no barrier before clusters are counted": in_sorted(
        TABLES, "begun[warp] = own;\n  __syncthreads();\n", "begun[warp] = own;\n"
    ),
    "sorted: no barrier after clusters are counted": in_sorted(
        TABLES, "atomicMin(&next, k);\n  __syncthreads();\n", "atomicMin(&next, k);\n"
    ),
    "sorted: the positive's own weight is forgotten": in_sorted(LOSSES, "+ (1 - self) * per_rank(i)", ""),
    "sorted: a run of sums forgets the warps before": Mutation(
        BLOCK, "(scanned.before + rows[u])", "rows[u]", units=(LOSSES,), algorithm="sorted"
    ),
    "sorted: a run of sums forgets the runs before": Mutation(
        BLOCK, "carry = carry + scanned.total;\n  }", "carry = scanned.total;\n  }", units=(LOSSES,), algorithm="sorted"
    ),
    "sorted: no barrier after sums are laid out": Mutation(
        BLOCK,
        "carry = carry + scanned.total;\n  }\n  __syncthreads();",
        "carry = carry + scanned.total;\n  }",
        units=(LOSSES,),
        algorithm="sorted",
    ),
    "sorted: ties of knots and positives are not passed": in_sorted(TABLES, "x[k] + shift == own ?", "false ?"),
    "sorted: a cell skips one knot too many": in_sorted(TABLES, "      if (s.cell >= c) return;\n", ""),
    "sorted: one block of knots too few": in_sorted(
        TABLES, "per_item(std::max(input.p, runs),", "per_item(std::max(input.p, runs) - kKnotThreads + 1,"
    ),
    "sorted: driven errors do not reach the tables": in_sorted(
        "cuda/backend.cu", "  if (is_sorted_form(input)) sorted::drive(input, tables, stream_);\n", ""
    ),
    "sorted: tables stay in positions": in_sorted(LOSSES, "slope *= position.scale;", ""),
    "sorted: errors at the place of the score": in_sorted(
        LOSSES, "error_gradient[sums.place[i]] = steps", "error_gradient[i] = steps"
    ),
}

MAPS, IGNORED, STREAM, ARRAY = "cuda/maps.cu", "cuda/ignored.cuh", "cuda/stream.cuh", "cuda/array.cuh"
STREAMS, WALKS = ("count.cu", "spread.cu"), ("count.cu", "terms.cu")
LISTS = {
    "lists: the second chunk of maps is the first": in_sorted(MAPS, "std::copy_n(maps + begin", "std::copy_n(maps"),
    "lists: a map too few is written": in_sorted(MAPS, "k < count) to[k]", "k + 1 < count) to[k]"),
    "lists: count begins each map anew": in_sorted(COUNT, "    v -= own.vectors;\n", ""),
    "lists: spread begins each map anew": in_sorted(SPREAD, "    v -= own.vectors;\n", ""),
    "lists: what a map's crowd held is lost": in_sorted(COUNT, "    held.release(bins);\n", ""),
    "lists: labels of the first map": in_sorted(STREAM, "labels_from(input.labels, map.begin)", "input.labels", STREAMS),
    "lists: labels in the order of memory": in_sorted(STREAM, "has_labels(map, labels) &&", "labels.classes == 0 &&", STREAMS),
    "lists: ignored logits are taken out twice": in_sorted(IGNORED, "if (place.has_labels) return;", "", WALKS),
    "lists: a row of classes lies together": in_sorted(IGNORED, "c * place.step", "c", WALKS),
    "lists: gradients go to the first map": in_sorted(
        ARRAY, "return {map.logits, map.gradient,", "return {map.logits, logits.maps[0].gradient,", ("terms.cu", "spread.cu")
    ),
    "lists: a positive is read in the order of memory": in_sorted(
        ARRAY, "map.gradient, offset_of(map, i),", "map.gradient, i - map.begin,", ("find.cu",)
    ),
}

SORT = "cuda/sort_errors.cu"

SORT_ERRORS = {
    **dict(
        zip(
            ("sort errors: no barrier after a tile is stored", "sort errors: no barrier before the next tile"),
            no_barriers_of_pairs(SORT),
            strict=True,
        )
    ),
    "sort errors: one label too many is gathered": Mutation(SORT, "if (r < p) errors.label[r]", "if (r <= p) errors.label[r]"),
    "sort errors: -1 is a place to gather from": Mutation(SORT, "errors.label_at[r] >= 0 ? load(", "true ? load("),
    "sort errors: one error too many is written": Mutation(SORT, "% 32 != 0 || i >= p) return;", "% 32 != 0 || i > p) return;"),
    "sort errors: one gradient too many is written": Mutation(
        SORT, "k < p) output.tables.error_gradient[k]", "k <= p) output.tables.error_gradient[k]"
    ),
    "sort errors: a tile too many is passed over": Mutation(
        SORT, "score[min(begin + kSortThreads, p) - 1], score", "score[begin], score"
    ),
    "sort errors: a tile too few is spread": Mutation(SORT, "step(h, highest, score[end]) > 0", "false"),
    "sort errors: the step's sign is swapped": Mutation(SORT, "step(h, k.score, s_i)", "step(h, s_i, k.score)"),
    "sort errors: equal labels are sent a share": Mutation(SORT, "i.label > y_k", "i.label >= y_k"),
    "sort errors: equal labels are lower ones": Mutation(
        "losses.h", "difference < 0 ? 0.0 : h", "difference <= 0 ? 0.0 : h", (SORT,)
    ),
    "sort errors: the loss is not poisoned": Mutation(
        SORT, "static_cast<double>(p) + *output.tables.poison);", "static_cast<double>(p));"
    ),
    "sort errors: one block too few": Mutation(
        SORT, "per_item(input.p, kSortThreads", "per_item(std::max<int64_t>(1, input.p - kRows), kSortThreads"
    ),
    "sort errors: a positive counts itself by 1": Mutation("losses.h", "rank_pos - 1 + tie + n_fp", "rank_pos + n_fp", (TERMS,)),
}

LESS = "per_item(std::max<int64_t>(1, input.p - kThreads))"

LAUNCHES = {
    "one block of logits too few": Mutation(TILED, "per_item(input.n)", "per_item(std::max<int64_t>(1, input.n - kThreads))"),
    "one block of weights too few": Mutation(
        TILED, "per_item(input.p), stream, Positives(input, tables), place", f"{LESS}, stream, Positives(input, tables), place"
    ),
    "one block of driven errors too few": Mutation(TERMS, "drive_errors, per_item(input.p)", f"drive_errors, {LESS}"),
    "one block of positives too few": Mutation(TILED, "sum_pairs, per_item(input.p)", f"sum_pairs, {LESS}"),
    "one part too few": Mutation(
        TILED, "static_cast<unsigned>(parts.count))", "static_cast<unsigned>(std::max<int64_t>(1, parts.count - 1)))"
    ),
    "parts are one tile short": Mutation(
        TILED,
        "blocks_for((input.n + count - 1) / count) * kThreads;",
        "(blocks_for((input.n + count - 1) / count) - 1) * kThreads;",
    ),
    "more threads than the kernel is written for": Mutation(
        TERMS, "terms_kernel, one_block(input.p)", "terms_kernel, Shape{1, 2 * kMostThreads}"
    ),
    "the default stream": Mutation(TILED, "sum_parts, each, stream", "sum_parts, each, nullptr"),
    "workspace for half the partial sums": Mutation(
        TILED,
        "static_cast<size_t>(Parts(input, nullptr).count * input.p) * sizeof(double);",
        "static_cast<size_t>(Parts(input, nullptr).count * input.p) * sizeof(float);",
    ),
}

MUTATIONS = BARRIERS | BOUNDS | WIDTHS | MATHEMATICS | REPORTS | LAUNCHES | SORTED | LISTS | SORT_ERRORS
