"""Train a detector of torchvision, with a small head, on a folder of images in COCO's format.

python -m examples.train --data DIR                              # a RetinaNet with aLRP Loss
python -m examples.train --data DIR --detector fcos --loss own   # with torchvision's own losses
torchrun --nproc-per-node 2 -m examples.train --data DIR         # all processes' images in one ranking

DIR has images/, instances_train.json and instances_val.json. Writes pictures, model.pt and history.json into --out, and what is
wrong in the annotations into annotations.txt. A run that was stopped goes on after its last whole epoch when it is called again
with the same arguments. Losses and evaluations are logged for TensorBoard where it is installed.
"""

import argparse
import time
from pathlib import Path

import torch
from rich.console import Console

from ..common.history import History
from ..common.pictures import draw_curves, draw_detections
from ..common.tables import result_table
from .backbones import BACKBONES
from .data import Data, View, read_data
from .losses import LOSSES
from .models import DETECTORS, STRIDES
from .processes import Processes, joined
from .results import append_result, check_results
from .training import LEARNING_RATES, Evaluation, Run, train


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Run("")
    parser.add_argument("--data", type=Path, required=True, help="folder with images/, instances_train.json, instances_val.json")
    parser.add_argument("--detector", choices=DETECTORS, default=default.detector, help="default: %(default)s")
    parser.add_argument("--loss", choices=LOSSES, default=default.loss, help="default: %(default)s")
    parser.add_argument("--backbone", choices=BACKBONES, default=default.backbone, help="default: %(default)s")
    parser.add_argument(
        "--weights",
        choices=("imagenet", "none"),
        help="default: imagenet for efficientnet-lite0, else none; never downloaded",
    )
    parser.add_argument(
        "--freeze", action=argparse.BooleanOptionalAction, help="do not train the backbone; default: if it has ImageNet's weights"
    )
    parser.add_argument("--size", type=int, default=default.size, help="long side, a multiple of 64 pixels; default: %(default)s")
    parser.add_argument("--seed", type=int, default=default.seed, help="of weights and order; default: %(default)s")
    parser.add_argument("--optimizer", choices=LEARNING_RATES, default=default.optimizer, help="default: %(default)s")
    rates = ", ".join(f"{rate:g} for {name}" for name, rate in LEARNING_RATES.items())
    parser.add_argument("--learning-rate", type=float, help=f"the highest; default: {rates}")
    parser.add_argument("--weight-decay", type=float, default=default.weight_decay, help="default: %(default)s")
    parser.add_argument("--clip", type=float, default=default.clip, help="the gradient's norm, 0: not; default: %(default)s")
    parser.add_argument("--epochs", type=int, default=default.epochs, help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=default.batch, help="of a step, of all processes; default: %(default)s")
    parser.add_argument("--amp", action="store_true", help="mixed precision: bfloat16, or float16 on a GPU without it")
    parser.add_argument("--held-out", action="store_true", help="evaluate on training images held out, to choose settings by")
    cuda = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cpu", "cuda"), default=cuda, help="default: cuda where there is one")
    parser.add_argument("--strict", action="store_true", help="stop at faults of the annotations instead of leaving them out")
    parser.add_argument("--keep", type=float, default=4.0, help="GB of memory for frozen features; default: %(default)s")
    parser.add_argument("--results", type=Path, help="CSV to which the finished run appends its settings and results")
    parser.add_argument("--out", type=Path, default=Path("runs/train"), help="folder; default: %(default)s")
    return parser


def make_run(options: argparse.Namespace, processes: int) -> Run:
    if options.size < 64 or options.size % STRIDES[-1]:
        raise ValueError(f"--size must be a multiple of {STRIDES[-1]}, got {options.size}")
    weights = options.weights or ("imagenet" if options.backbone == "efficientnet-lite0" else "none")
    freeze = weights == "imagenet" if options.freeze is None else options.freeze
    rate = LEARNING_RATES[options.optimizer] if options.learning_rate is None else options.learning_rate
    same = ("detector", "loss", "backbone", "size", "seed", "optimizer", "weight_decay", "clip", "epochs", "batch", "amp")
    return Run(
        data=options.data.resolve().name,
        weights=weights,
        freeze=freeze,
        learning_rate=rate,
        held_out=options.held_out,
        device=options.device,
        processes=processes,
        **{name: getattr(options, name) for name in same},
    )


def tell_faults(data: Data, out: Path, console: Console) -> None:
    lines = [line for part in data.parts for line in part.report()]
    if lines:
        (out / "annotations.txt").write_text("\n".join(lines) + "\n")
        few = [line for part in data.parts for line in part.report(most=3)]
        console.print("\n".join(few), highlight=False, markup=False, soft_wrap=True)
        console.print(f"all of them in {out / 'annotations.txt'}", highlight=False, soft_wrap=True)


def draw(run: Run, data: Data, history: History, evaluation: Evaluation, out: Path) -> None:
    shown = data.validation[:12]
    images = [View(picture).image(max(picture.width, picture.height)) for picture in shown]
    targets = [picture.target() for picture in shown]
    names = [name[:12] for name in data.names]
    detections, thresholds = evaluation.detections[: len(shown)], evaluation.measured.thresholds
    draw_detections(images, targets, detections, thresholds, names, out / "detections.png", rows=3, columns=4, inches=3.2, text=7)
    draw_curves(history, out / "curves.png")


def run_here(
    run: Run, data: Data, options: argparse.Namespace, processes: Processes, device: torch.device, console: Console
) -> None:
    start = time.perf_counter()
    out = options.out
    if processes.first:
        out.mkdir(parents=True, exist_ok=True)
        tell_faults(data, out, console)
    history, evaluation = train(run, data, out, console, processes, device, int(options.keep * 1e9))
    if processes.first:
        draw(run, data, history, evaluation, out)
        if options.results is not None:
            append_result(history, options.results)
        console.print(result_table(history, f"{run.batch} images", time.perf_counter() - start, 3))
        console.print(f"pictures, model.pt and history.json in {out}", highlight=False, soft_wrap=True)


def main(arguments: list[str] | None = None) -> None:
    parser = make_parser()
    options = parser.parse_args(arguments)
    with joined(options.device) as (processes, device):
        try:
            run = make_run(options, processes.count)
            if options.results is not None:
                check_results(options.results, vars(run))
            data = read_data(options.data, run.held_out, options.strict)
        except ValueError as error:
            parser.exit(2, f"{parser.prog}: {error}\n")
        run_here(run, data, options, processes, device, Console(quiet=not processes.first))


if __name__ == "__main__":
    main()
