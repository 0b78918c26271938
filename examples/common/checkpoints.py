"""What a run that was stopped goes on from."""

import os
from pathlib import Path
from typing import Any

import torch


def write_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Save it; a stop while writing leaves the last one as it was."""
    new = path.with_suffix(".new")
    torch.save(state, new)
    os.replace(new, path)


def read_checkpoint(path: Path, run: dict[str, Any]) -> dict[str, Any] | None:
    """What was saved there, or None.

    Raises:
        ValueError: it was saved by another run, as its "history" says.
    """
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if state["history"]["run"] != run:
        raise ValueError(f"{path} must be of {run}, got {state['history']['run']}")
    return state
