"""Train a small detector from scratch on pictures of handwritten digits, on the CPU.

python -m examples.digits                        # a RetinaNet with aLRP Loss
python -m examples.digits --loss own             # with torchvision's own losses, everything else the same
python -m examples.digits --detector fcos

Writes two pictures and history.json into --out. A run that was stopped goes on after its last whole epoch when it is called
again with the same arguments. Losses and evaluations are logged for TensorBoard where it is installed.
"""

import argparse
import time
from pathlib import Path

from rich.console import Console

from ..common.pictures import draw_curves, draw_detections
from ..common.tables import result_table
from .data import NAMES
from .losses import LOSSES
from .models import DETECTORS
from .training import BATCH, Run, train


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m examples.digits", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Run()
    parser.add_argument("--detector", choices=DETECTORS, default=default.detector, help="default: %(default)s")
    parser.add_argument("--loss", choices=LOSSES, default=default.loss, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=default.seed, help="of canvases and weights; default: %(default)s")
    parser.add_argument("--learning-rate", type=float, default=default.learning_rate, help="the highest; default: %(default)s")
    parser.add_argument("--epochs", type=int, default=default.epochs, help="default: %(default)s")
    parser.add_argument("--iterations", type=int, default=default.iterations, help="of an epoch; default: %(default)s")
    parser.add_argument("--canvases", type=int, default=default.canvases, help="to evaluate on; default: %(default)s")
    parser.add_argument("--held-out", action="store_true", help="evaluate on digits held out of training, to choose settings by")
    parser.add_argument("--out", type=Path, default=Path("runs/digits"), help="folder; default: %(default)s")
    options = vars(parser.parse_args(arguments))
    out = options.pop("out")
    start = time.perf_counter()
    console = Console()
    history, evaluation = train(Run(**options), out, console)
    draw_detections(*evaluation.canvases, evaluation.detections, evaluation.thresholds, NAMES, out / "detections.png")
    draw_curves(history, out / "curves.png")
    console.print(result_table(history, f"{BATCH} canvases", time.perf_counter() - start, 4))
    console.print(f"pictures and history.json in {out}", highlight=False)


if __name__ == "__main__":
    main()
