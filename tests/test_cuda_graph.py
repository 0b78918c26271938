"""Forward and backward in a CUDA graph (docs/cuda-graphs.md); its twin is tests/test_kernel_counts.py."""

import pytest
import torch

import alrp_cuda

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available() or "cuda" not in alrp_cuda.backends(), reason="needs a CUDA device"),
]

N, P = 20_000, 60


def draw(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(N, generator=generator) * 2 - 4
    targets = torch.zeros(N, dtype=torch.int8)
    targets[torch.randperm(N, generator=generator)[:P]] = 1
    return logits.cuda(), targets.cuda(), torch.rand(P, generator=generator).cuda()


@pytest.mark.parametrize("algorithm", ["sorted", "tiled"])
def test_a_captured_step_replays_with_other_values(algorithm):
    def step(logits, targets, loc_errors):
        out = alrp_cuda.alrp_loss(logits.requires_grad_(), targets, loc_errors.requires_grad_(), algorithm=algorithm)
        return *out, *torch.autograd.grad(out.cls + 2 * out.loc, (logits, loc_errors))

    static = draw(0)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step(*static)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(*static)

    for seed in (1, 2):
        with torch.no_grad():
            for tensor, value in zip(static, draw(seed), strict=True):
                tensor.copy_(value)
        graph.replay()
        for ours, eager in zip(captured, step(*draw(seed)), strict=True):
            assert torch.equal(ours, eager)
