"""Self-balancing: what the boxes' gradient is multiplied by, when that changes, and what survives a restart."""

import copy
import math
import pickle
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from dispatched import recorded
from hypothesis import given
from hypothesis import strategies as st

import alrp_cuda
from alrp_cuda import SelfBalance

LOSSES = [(0.5, 0.25), (0.9, 0.6), (0.3, 0.1), (0.8, 0.4), (0.7, 0.7), (0.2, 0.3), (0.6, 0.1)]


def run(balance, losses):
    """The weights that the iterations saw, each read off a gradient."""
    weights = []
    for cls, loc in losses:
        leaf = torch.tensor(loc, requires_grad=True)
        _, out_loc = balance(torch.tensor(cls), leaf.clone())
        out_loc.backward()
        weights.append(leaf.grad.item())
    return weights


def weight(losses):
    """(mean cls + mean loc) / mean loc."""
    cls, loc = (math.fsum(column) for column in zip(*losses, strict=True))
    return pytest.approx((cls + loc) / loc, rel=1e-6)


def test_weight_is_that_of_the_previous_epoch():
    weights = run(SelfBalance(epoch_length=3), LOSSES)
    assert weights == [50.0] * 3 + [weight(LOSSES[:3])] * 3 + [weight(LOSSES[3:6])]


def test_epochs_may_be_signalled():
    balance = SelfBalance()
    assert run(balance, LOSSES[:2]) == [50.0] * 2
    balance.end_epoch()
    assert run(balance, LOSSES[2:5]) == [weight(LOSSES[:2])] * 3
    balance.end_epoch()
    assert run(balance, LOSSES[5:]) == [weight(LOSSES[2:5])] * 2


def test_a_given_epoch_may_end_early_and_an_empty_one_changes_nothing():
    balance = SelfBalance(epoch_length=3)
    run(balance, LOSSES[:2])
    balance.end_epoch()
    balance.end_epoch()
    assert run(balance, LOSSES[2:6]) == [weight(LOSSES[:2])] * 3 + [weight(LOSSES[2:5])]


def test_values_are_not_touched():
    cls, loc = torch.tensor(0.7, requires_grad=True), torch.tensor(0.3, requires_grad=True)
    out_cls, out_loc = SelfBalance()(cls, loc)
    assert out_cls is cls
    assert torch.equal(out_loc, loc)
    (2 * out_loc).backward()
    assert loc.grad == 100


def plain(balance):
    return balance


def compiled(balance, backend="aot_eager", **options):
    torch._dynamo.reset()  # what another test compiled is no recompilation
    return torch.compile(balance, backend=backend, fullgraph=True, **options)


def by_the_iteration_itself(balance, call):
    pass


def by_the_next_iteration(balance, call):
    call(torch.tensor(0.1), torch.tensor(0.1))


def by_signal(balance, call):
    balance.end_epoch()


def by_loading(balance, call):
    balance.load_state_dict(SelfBalance(initial=2.0).state_dict())


@pytest.mark.parametrize(
    ("wrap", "dtype"),
    [
        (plain, torch.float32),
        (plain, torch.float64),
        (compiled, torch.float32),
        (compiled, torch.float64),
        (partial(compiled, backend="inductor"), torch.float32),
    ],
    ids=["plain", "plain double", "aot", "aot double", "inductor"],
)
@pytest.mark.parametrize("change", [by_the_iteration_itself, by_the_next_iteration, by_signal, by_loading])
def test_the_weight_of_an_iteration_is_kept_for_its_backward_pass(change, wrap, dtype):
    """Whatever changes it between the two, and though compiled code makes some tensors anew in the backward pass."""
    balance = SelfBalance({by_the_iteration_itself: 1, by_the_next_iteration: 2}.get(change))
    call = wrap(balance)
    first = torch.tensor(0.5, dtype=dtype, requires_grad=True)
    _, loc = call(torch.tensor(0.5, dtype=dtype), first * 1)
    change(balance, call)
    assert balance.weight != 50
    loc.backward()
    assert first.grad == 50


@pytest.mark.parametrize("wrap", [plain, compiled])
@pytest.mark.parametrize("length", [None, 2])
def test_buffers_stay_where_they_are(length, wrap):
    """A captured CUDA graph reads the weight where it lay: a new one has to be written there."""
    balance = SelfBalance(length)
    was = dict(balance.named_buffers())
    places = {name: buffer.data_ptr() for name, buffer in was.items()}
    weights = run(wrap(balance), LOSSES[:4])
    balance.end_epoch()
    balance.load_state_dict(SelfBalance(length).state_dict())
    weights += run(balance, LOSSES[4:])
    assert len(set(weights)) == (1 if length is None else 3)
    for name, buffer in balance.named_buffers():
        assert buffer is was[name]
        assert buffer.data_ptr() == places[name]


@pytest.mark.parametrize("loc", [0.0, -0.5])
def test_weight_stays_without_errors_of_boxes(loc):
    balance = SelfBalance(epoch_length=1, initial=7.0)
    assert run(balance, [(0.5, loc)] * 3) == [7.0] * 3


@pytest.mark.parametrize("bad", [(math.nan, 0.5), (0.5, math.inf), (math.nan, math.nan)])
def test_iterations_that_are_not_finite_do_not_count(bad):
    balance = SelfBalance(epoch_length=3)
    run(balance, [LOSSES[0], bad, LOSSES[1]])
    assert float(balance.weight) == weight(LOSSES[:2])


def test_iterations_without_positives_change_nothing():
    balance = SelfBalance(epoch_length=3)
    run(balance, [LOSSES[0], (0.0, 0.0), LOSSES[1]])
    assert float(balance.weight) == weight(LOSSES[:2])


def test_only_training_counts():
    balance = SelfBalance(epoch_length=1)
    balance.eval()
    assert run(balance, LOSSES) == [50.0] * len(LOSSES)
    balance.train()
    with torch.no_grad():
        cls, loc = balance(torch.tensor(0.5), torch.tensor(0.25))
    assert (cls, loc, balance.weight, balance.iteration) == (0.5, 0.25, 50, 0)


@given(st.integers(1, 4), st.integers(0, len(LOSSES)), st.sampled_from(["state_dict", "pickle", "deepcopy"]))
def test_resuming_anywhere_is_exact(length, at, how):
    whole = run(SelfBalance(length), LOSSES)
    before = SelfBalance(length)
    weights = run(before, LOSSES[:at])
    if how == "state_dict":
        after = SelfBalance(length)
        after.load_state_dict(pickle.loads(pickle.dumps(before.state_dict())))
    else:
        after = copy.deepcopy(before) if how == "deepcopy" else pickle.loads(pickle.dumps(before))
    assert weights + run(after, LOSSES[at:]) == whole


@pytest.mark.parametrize("length", [None, 2])
def test_an_iteration_does_not_wait_for_the_device(length):
    balance = SelfBalance(length)
    with recorded() as operators:
        outputs = [balance(torch.ones((), requires_grad=True), torch.ones((), requires_grad=True)) for _ in range(5)]
        sum(loc for _, loc in outputs).backward()
    assert "aten._to_copy" in operators
    assert "aten._local_scalar_dense" not in operators


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_an_iteration_does_not_wait_for_a_gpu():
    balance, monitor = SelfBalance(2).cuda(), alrp_cuda.metrics.GradientBalance()
    leaf, targets = torch.full((3,), 0.5, device="cuda", requires_grad=True), torch.tensor([1, 0, 2], device="cuda")
    leaf.register_hook(monitor.hook(targets))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            _, loc = balance(leaf.detach().sum(), leaf.sum())
            loc.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert leaf.grad.tolist() == [50 + 50 + 2] * 3


def test_it_compiles_without_a_break():
    torch._dynamo.reset()  # what another test compiled is no recompilation
    balance, plain = SelfBalance(2), SelfBalance(2)
    compiled = torch.compile(balance, backend="aot_eager", fullgraph=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert run(compiled, LOSSES) == run(plain, LOSSES)
    assert all(torch.equal(a, b) for a, b in zip(balance.buffers(), plain.buffers(), strict=True))


def test_it_compiles_once_where_the_host_counts(monkeypatch):
    torch._dynamo.reset()  # what another test compiled is no recompilation
    monkeypatch.setattr("alrp_cuda.balance._is_distributed", lambda group: True)
    monkeypatch.setattr(dist, "all_reduce", lambda sums, group: None)
    compiled = torch.compile(SelfBalance(2), backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert run(compiled, LOSSES) == run(SelfBalance(2), LOSSES)


def test_where_the_host_counts_a_captured_step_may_not_count(monkeypatch):
    """A replay runs nothing on the host, so an epoch would never end, or with every replay."""
    monkeypatch.setattr("alrp_cuda.balance._is_distributed", lambda group: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(ValueError, match=r"epoch_length must be None where a step of several ranks is captured .*, got 2"):
        run(SelfBalance(2), LOSSES[:1])
    assert run(SelfBalance(), LOSSES[:1]) == [50]


def test_importing_the_package_does_not_import_the_compiler():
    code = "import sys, alrp_cuda; assert 'torch._dynamo' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(alrp_cuda.__file__).parents[1])


def test_training_on_several_ranks_does_not_import_the_compiler(tmp_path):
    """That takes as long as importing torch. An optimiser of PyTorch's would import it, and is left out."""
    code = """
        import sys
        import torch
        import torch.distributed as dist
        import alrp_cuda

        rank, store = int(sys.argv[1]), sys.argv[2]
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
        loss = alrp_cuda.ALRPLoss(balance="self", epoch_length=2, group=dist.group.WORLD)
        logits, errors = torch.zeros(4, requires_grad=True), torch.tensor([0.5], requires_grad=True)
        for _ in range(3):
            out = loss(logits, torch.tensor([1, 0, 0, -1]), errors)
            (out.cls + out.loc).backward()
        loss.balance.end_epoch()
        assert loss.balance.weight < 50
        assert "torch._dynamo" not in sys.modules
        del loss  # holds the group, whose threads may abort an interpreter that ends before them
        dist.destroy_process_group()
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    root = Path(alrp_cuda.__file__).parents[1]
    ranks = [subprocess.Popen([*command, str(rank), str(tmp_path / "store")], cwd=root) for rank in range(2)]
    assert [rank.wait(120) for rank in ranks] == [0, 0]


def test_half_precision_does_not_round_the_state():
    balance = SelfBalance(3)
    run(balance, LOSSES[:2])
    want = balance.sums.clone()
    balance.half().float().to("meta")
    assert balance.sums.dtype == balance.weight.dtype == torch.float64
    balance = SelfBalance(3)
    run(balance, LOSSES[:2])
    assert torch.equal(balance.half().sums, want)


def test_losses_of_other_dtypes():
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        leaf = torch.tensor(0.5, dtype=dtype, requires_grad=True)
        _, loc = SelfBalance()(torch.tensor(0.5, dtype=dtype), leaf)
        loc.backward()
        assert loc.dtype == dtype
        assert leaf.grad == 50


@pytest.mark.parametrize(
    ("error", "options", "words"),
    [
        (TypeError, {"epoch_length": 2.0}, "epoch_length must be an int or None, got float"),
        (TypeError, {"epoch_length": True}, "epoch_length must be an int or None, got bool"),
        (ValueError, {"epoch_length": 0}, "epoch_length must be >= 1, got 0"),
        (ValueError, {"initial": -1.0}, "initial must be finite and >= 0, got -1.0"),
        (TypeError, {"initial": "50"}, "initial must be a number, got str"),
    ],
)
def test_bad_arguments(error, options, words):
    with pytest.raises(error, match=words):
        SelfBalance(**options)


@pytest.mark.parametrize(
    ("error", "scalars", "words"),
    [
        (TypeError, (0.5, torch.ones(())), "cls must be a torch.Tensor, got float"),
        (TypeError, (torch.ones(()), torch.ones((), dtype=torch.int64)), "loc must have one of the dtypes .*, got torch.int64"),
        (ValueError, (torch.ones(2), torch.ones(())), r"cls must be a scalar, got shape \(2,\)"),
        (ValueError, (torch.ones(()), torch.ones((), device="meta")), "loc must be on the device of the module, cpu, got meta"),
    ],
)
def test_bad_losses(error, scalars, words):
    with pytest.raises(error, match=words):
        SelfBalance()(*scalars)


# --- in ALRPLoss -----------------------------------------------------------------------------------------------------


def gradients(loss):
    torch.manual_seed(0)
    logits, errors = torch.randn(20, 3, requires_grad=True), torch.rand(4, requires_grad=True)
    out = loss(logits, torch.tensor([0, 1, 2, 0] + [3] * 16), errors)
    (out.cls + out.loc).backward()
    return out.cls.detach(), out.loc.detach(), logits.grad, errors.grad


def same(a, b):
    return all(torch.allclose(x, y) for x, y in zip(a, b, strict=True))


def test_a_number_weighs_the_gradient_of_boxes_alone():
    cls, loc, logits, errors = gradients(alrp_cuda.ALRPLoss())
    assert same(gradients(alrp_cuda.ALRPLoss(balance=4)), (cls, loc, logits, 4 * errors))
    assert same(gradients(alrp_cuda.ALRPLoss(balance=0.0)), (cls, loc, logits, 0 * errors))


def test_self_is_self_balance():
    cls, loc, logits, errors = gradients(alrp_cuda.ALRPLoss())
    loss = alrp_cuda.ALRPLoss(balance="self", epoch_length=1)
    assert same(gradients(loss), (cls, loc, logits, 50 * errors))
    ratio = ((cls.double() + loc.double()) / loc.double()).float()
    assert same(gradients(loss), (cls, loc, logits, ratio * errors))
    assert set(loss.state_dict()) == {"balance.weight", "balance.sums", "balance.iteration"}


def test_signalled_through_the_loss():
    loss = alrp_cuda.ALRPLoss(balance="self")
    gradients(loss)
    loss.balance.end_epoch()
    assert loss.balance.weight < 50


def test_repr_shows_the_balance():
    assert "balance=None" in repr(alrp_cuda.ALRPLoss())
    assert "balance=2.0" in repr(alrp_cuda.ALRPLoss(balance=2))
    assert "(balance): SelfBalance(epoch_length=9, initial=50.0)" in repr(alrp_cuda.ALRPLoss(balance="self", epoch_length=9))


@pytest.mark.parametrize(
    ("error", "options", "words"),
    [
        (ValueError, {"balance": "auto"}, "balance must be one of 'self', 'value', got 'auto'"),
        (ValueError, {"balance": -1.0}, "balance must be finite and >= 0, got -1.0"),
        (TypeError, {"balance": [1.0]}, "balance must be a number, got list"),
        (ValueError, {"epoch_length": 9}, "epoch_length must be None unless balance is 'self', got 9"),
        (ValueError, {"balance": "self", "epoch_length": -1}, "epoch_length must be >= 1, got -1"),
    ],
)
def test_bad_balance(error, options, words):
    with pytest.raises(error, match=words):
        alrp_cuda.ALRPLoss(**options)


# --- on several ranks ------------------------------------------------------------------------------------------------


def rank(index, store, results):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=index, world_size=2)
    mine = LOSSES[index::2][:3]  # rank 0: iterations 0, 2, 4; rank 1: 1, 3, 5
    balance = SelfBalance(epoch_length=2)
    run(balance, mine[:1])
    resumed = SelfBalance(epoch_length=2)
    run(resumed, mine[:2])  # at another place of an epoch than the state to load
    resumed.load_state_dict(balance.state_dict())
    with recorded() as operators:
        weights = run(resumed, mine[1:]) + run(resumed, [LOSSES[6]])
    # The host reads its count once after loading, and the test one gradient an iteration.
    assert operators.count("aten._local_scalar_dense") == 1 + len(weights)
    torch.save(weights, results / f"weights{index}.pt")
    assert float(resumed.weight) == weight([*LOSSES[4:6], LOSSES[6], LOSSES[6]])

    signalled = SelfBalance()
    run(signalled, mine)
    signalled.end_epoch()
    assert float(signalled.weight) == weight(LOSSES[:6])

    box, labels = torch.tensor([[0.0, 0.0, 4.0, 4.0 + index]]), torch.tensor([index])
    metric = alrp_cuda.metrics.LRP()
    metric.update([{"boxes": box, "scores": torch.tensor([0.5]), "labels": labels}], [{"boxes": box, "labels": labels}])
    metric.sync()
    assert metric.compute().per_class.lrp.tolist() == [0, 0]
    dist.destroy_process_group()


def test_ranks_agree(tmp_path):
    mp.spawn(rank, (tmp_path / "store", tmp_path), nprocs=2)  # raises what a rank's assertion raised
    weights = [torch.load(tmp_path / f"weights{k}.pt") for k in range(2)]
    assert weights[0] == weights[1] == [50.0, weight(LOSSES[:4]), weight(LOSSES[:4])]
