"""The command line."""

import argparse
from pathlib import Path

import torch

from alrp_cuda.inputs import ALGORITHMS

from .cases import DTYPES, REGIMES
from .contenders import LOSSES
from .limits import CALL_SECONDS

# What a grid takes where it is not told.
GRID = {"logits": [10**4, 10**5, 10**6], "positives": [50, 500], "regime": "dense", "classes": 0}
# A batch of 16 images of 640 pixels in YOLO, with an anchor a place of three levels and COCO's classes.
DETECTOR = GRID | {"logits": [16 * 8400 * 80], "positives": [5000, 20_000], "classes": 80}
# The emulated device takes a million times as long as what it stands in for.
EMULATED_GRID = GRID | {"logits": [10**5], "positives": [50]}


def count(text: str) -> int:
    """A whole number >= 1, as 1000000 or 1e6."""
    value = float(text)
    if not value.is_integer() or value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number >= 1, got {text}")
    return int(value)


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse the arguments; ends the process with a message where they make no sense."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Forward + backward of our loss, measured against Focal Loss, both eager and by torch.compile (compiled "
        "before it is timed), and beside our tiled form, the per-positive loop, the reference, a copy of the logits and the "
        "memory floor: two reads and a write of the logits and a read of the labels, at the copy's rate. Without options for "
        "cases: dense, sparse and small cases, with what the ratios are to be at most (aLRP, CPU, float32). Checks first that "
        "ours agrees with the reference and the loop; ends with 1 where it does not. With --device emulated: what a GPU would "
        "do, counted, and modelled times.",
    )
    parser.add_argument("--loss", choices=(*LOSSES, "all"), default="alrp", help="default: alrp")
    parser.add_argument("--algorithm", choices=("auto", *ALGORITHMS), default="auto", help="which form of ours; default: auto")
    parser.add_argument("--device", choices=("cpu", "cuda", "emulated"), default="cpu", help="default: cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the logits; default: float32")
    parser.add_argument("--repeat", type=count, default=51, metavar="R", help="samples of each at most; default: 51")
    parser.add_argument(
        "--call-seconds",
        type=float,
        default=CALL_SECONDS,
        metavar="S",
        help=f"leave out the loop and our tiled form where a call takes longer; default: {CALL_SECONDS:g}",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw times there: against N and P, or case by case")
    cases = parser.add_argument_group("cases", "every N with every P that fits; on the emulated device 1e5 and 50")
    cases.add_argument("--logits", type=count, nargs="+", metavar="N", help="default of a grid: 1e4 1e5 1e6")
    cases.add_argument("--positives", type=count, nargs="+", metavar="P", help="default of a grid: 50 500")
    cases.add_argument(
        "--regime",
        choices=REGIMES,
        help="dense (default of a grid): nearly every negative is within reach of a positive, as early in training; "
        "sparse: one in eight",
    )
    cases.add_argument("--classes", type=count, metavar="C", help="class indices over rows of C logits, not a label a logit")
    cases.add_argument("--scaling", action="store_true", help="N = 1e4 to 1e8, then P = 1 to 1e5, in place of a grid")
    cases.add_argument("--detector", action="store_true", help="16 x 8400 anchors of 80 classes, P = 5000 and 20000, by default")
    parser.add_argument("--world", type=count, metavar="W", help="deal each batch out to W processes, joined by gloo")
    parser.add_argument("--levels", action="store_true", help="from maps of a RetinaNet's five levels to their gradients")
    emulated = parser.add_argument_group("only with --device emulated")
    emulated.add_argument("--write-costs", action="store_true", help="write what tests/test_costs.py holds kernels to")
    options = parser.parse_args(argv)
    check(parser, options)
    options.losses = list(LOSSES) if options.loss == "all" else [options.loss]
    return options


def check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Fill in the grid; end the process where options make no sense together."""
    on_emulated = options.device == "emulated"
    options.own_cases = options.detector or any(getattr(options, name) is not None for name in GRID)
    if options.scaling and (options.logits or options.positives or options.classes or options.detector):
        parser.error("--scaling has its own --logits and --positives, and no --classes or --detector")
    grid = DETECTOR if options.detector else EMULATED_GRID if on_emulated else GRID
    for name, default in grid.items():
        if getattr(options, name) is None:
            setattr(options, name, default)
    if min(options.positives) > max(options.logits) // (options.classes or 1):
        what = "number of rows" if options.classes else "--logits"
        parser.error(f"every --positives is larger than every {what}")
    if options.write_costs and not on_emulated:
        parser.error("--write-costs needs --device emulated")
    if on_emulated and options.plot:
        parser.error("--plot draws measured times: --device emulated has none")
    if on_emulated and (options.scaling or options.detector):
        parser.error("--scaling and --detector are too large for --device emulated")
    if options.world is not None:
        if options.device != "cpu":
            parser.error("--world is for --device cpu")
        if options.plot or options.json or options.scaling:
            parser.error("--world prints one table: no --plot, --json or --scaling")
    if options.levels:
        if on_emulated:
            parser.error("--levels measures times: --device emulated has none")
        if options.plot or options.json or options.own_cases or options.scaling or options.world is not None:
            parser.error("--levels has its own cases and prints two tables: no --plot, --json, --scaling or --world")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no CUDA device")
    for path in (options.json, options.plot):  # told now, not after the measurements
        if path is not None and not path.resolve().parent.is_dir():
            parser.error(f"the folder of {path} does not exist")
