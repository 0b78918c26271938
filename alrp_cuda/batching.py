"""torch.func.vmap over a ranking loss: refused in words."""

from typing import Any

import torch


def _refuse(*_: Any) -> Any:
    raise RuntimeError(
        "alrp_cuda's losses have no batching rule for torch.func.vmap: to rank the images of a batch each by itself, pass "
        'scope="image" and image_index'
    )


for _operator in ("ranking_loss", "ranking_sums"):  # with which every loss begins
    torch.library.register_vmap(f"alrp_cuda::{_operator}", _refuse)
