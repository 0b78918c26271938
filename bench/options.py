"""The command line."""

import argparse
from pathlib import Path

import torch

from alrp_cuda.ops import ALGORITHMS

from .cases import DTYPES, REGIMES
from .contenders import LOSSES

EMULATED_SIZES = "--device emulated has other defaults: 1e5 logits, 50 positives"


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
        description="Forward + backward of our loss beside Focal Loss, the per-positive loop, the reference and a copy "
        "of the logits, for every N with every P <= N. Checks first that ours agrees with the reference and the loop; "
        "ends with 1 where it does not. With --device emulated: what a GPU would do for it, counted, and modelled times.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--loss", choices=LOSSES, default="alrp")
    parser.add_argument("--algorithm", choices=("auto", *ALGORITHMS), default="auto", help="which form of ours")
    parser.add_argument("--device", choices=("cpu", "cuda", "emulated"), default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the logits")
    parser.add_argument(
        "--regime",
        choices=REGIMES,
        default="dense",
        help="dense: nearly every negative is within reach of a positive, as early in training; sparse: one in eight",
    )
    parser.add_argument("--logits", type=count, nargs="+", default=[10**4, 10**5, 10**6], metavar="N", help=EMULATED_SIZES)
    parser.add_argument("--positives", type=count, nargs="+", default=[50, 500], metavar="P", help=EMULATED_SIZES)
    parser.add_argument("--repeat", type=count, default=15, metavar="R", help="samples of each at most")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw time against N and P there")
    emulated = parser.add_argument_group("only with --device emulated")
    emulated.add_argument("--classes", type=count, default=0, metavar="C", help="class-index labels over rows of C logits")
    emulated.add_argument("--write-costs", action="store_true", help="write what tests/test_costs.py holds kernels to")
    # The emulated device takes a million times as long as what it stands in for.
    if parser.parse_known_args(argv)[0].device == "emulated":
        parser.set_defaults(logits=[10**5], positives=[50])
    options = parser.parse_args(argv)
    if min(options.positives) > max(options.logits):
        parser.error("every --positives is larger than every --logits")
    if options.device != "emulated" and (options.classes or options.write_costs):
        parser.error("--classes and --write-costs need --device emulated")
    if options.device == "emulated" and options.plot:
        parser.error("--plot draws measured times: --device emulated has none")
    if options.device == "emulated" and min(options.positives) > max(options.logits) // (options.classes or 1):
        parser.error("every --positives is larger than the number of rows")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no CUDA device")
    for path in (options.json, options.plot):  # told now, not after the measurements
        if path is not None and not path.resolve().parent.is_dir():
            parser.error(f"the folder of {path} does not exist")
    return options
