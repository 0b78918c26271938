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


def capture(step, static):
    """(graph, what the captured step returned), after one step outside of the graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step(*static)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(*static)
    return graph, captured


@pytest.mark.parametrize("algorithm", ["sorted", "tiled"])
def test_a_captured_step_replays_with_other_values(algorithm):
    def step(logits, targets, loc_errors):
        out = alrp_cuda.alrp_loss(logits.requires_grad_(), targets, loc_errors.requires_grad_(), algorithm=algorithm)
        return *out, *torch.autograd.grad(out.cls + 2 * out.loc, (logits, loc_errors))

    static = draw(0)
    graph, captured = capture(step, static)

    for seed in (1, 2):
        with torch.no_grad():
            for tensor, value in zip(static, draw(seed), strict=True):
                tensor.copy_(value)
        graph.replay()
        for ours, eager in zip(captured, step(*draw(seed)), strict=True):
            assert torch.equal(ours, eager)


def test_a_captured_step_takes_lists():
    """Where the maps lie goes to the device with the launches of each replay: more maps than one launch has room for."""
    sides = [*range(1, 40), 60]

    def draw_maps(seed):
        generator = torch.Generator().manual_seed(seed)
        maps = [torch.randn(1, 6, side, side, generator=generator).cuda() for side in sides]
        targets = [torch.full((1, side, side, 2), 3) for side in sides]
        for level in targets[-20:]:
            level[0, 0, 0] = torch.randint(3, (2,), generator=generator)
        return [*maps, *(level.cuda() for level in targets)]

    def step(*tensors):
        maps = [level.requires_grad_() for level in tensors[: len(sides)]]
        loss = alrp_cuda.ap_loss(alrp_cuda.head_views(maps, 3), tensors[len(sides) :], num_positives=40)
        return loss, *torch.autograd.grad(loss, maps)

    static = draw_maps(0)
    graph, captured = capture(step, static)
    with torch.no_grad():
        for tensor, value in zip(static, draw_maps(1), strict=True):
            tensor.copy_(value)
    graph.replay()
    for ours, eager in zip(captured, step(*draw_maps(1)), strict=True):
        assert torch.equal(ours, eager)


@pytest.mark.parametrize("epoch_length", [None, 2])
def test_a_replayed_step_balances_by_the_weight_of_its_epoch(epoch_length):
    """The device counts iterations; an epoch may also be ended between replays. The twin on the CPU: tests/test_balance.py,
    test_buffers_stay_where_they_are."""

    def step_of(loss):
        def step(logits, targets, loc_errors):
            out = loss(logits.requires_grad_(), targets, loc_errors.requires_grad_())
            return out.cls, out.loc, *torch.autograd.grad(out.cls + out.loc, (logits, loc_errors))

        return step

    def make():
        return alrp_cuda.ALRPLoss(balance="self", epoch_length=epoch_length).cuda()

    loss, eager, static = make(), make(), draw(0)
    graph, captured = capture(step_of(loss), static)
    loss.load_state_dict(eager.state_dict())  # forgets the step outside of the graph
    weights = set()
    for seed in range(1, 7):
        with torch.no_grad():
            for tensor, value in zip(static, draw(seed), strict=True):
                tensor.copy_(value)
        graph.replay()
        for ours, expected in zip(captured, step_of(eager)(*draw(seed)), strict=True):
            assert torch.equal(ours, expected)
        if epoch_length is None and seed % 2 == 0:
            loss.balance.end_epoch()
            eager.balance.end_epoch()
        for ours, expected in zip(loss.buffers(), eager.buffers(), strict=True):
            assert torch.equal(ours, expected)
        weights.add(loss.balance.weight.item())
    assert len(weights) == 4  # 50, and one for each epoch of two steps
