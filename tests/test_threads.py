"""Threads, torch's and Python's, and forks: the same bits whoever computes, and nobody waits for another."""

import contextlib
import itertools
import os
import signal
import threading
import time
import traceback

import pytest
import torch
from cases import Case, Labels
from conftest import backends
from implementations import LOSSES, Fast, continuous, evaluate

import alrp_cuda
from alrp_cuda import Errors

COUNTS = (1, 2, 7)
# Parts for seven threads of every loop: blocks of logits, chunks of labels (2^16), tiles of positives.
CASES = [
    Case((150_001, 37), Labels(torch.int8)),
    Case((460_003, 5), Labels(torch.int16), scale="sparse", dtype=torch.bfloat16),
    Case((9000, 1100), Labels(torch.int64, 7), delta=0.5, scale="ties", dtype=torch.float64),
    Case((131_073, 300), Labels(torch.uint8), delta=0.0),
]
# All that serve several calls at a time.
CONCURRENT = [backend for backend in backends() if getattr(backend, "values", backend) != ("emulated",)]


@pytest.fixture(autouse=True)
def _threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def step(data, call, forward=None, backward=None, put=torch.Tensor.detach):
    """Outputs and gradients of ``call(logits, targets, errors)``, each pass with its number of threads."""
    leaves = [put(t.detach()).clone().requires_grad_() for t in (data.logits, data.loc_errors)]
    if forward:
        torch.set_num_threads(forward)
    result = call(leaves[0], put(data.targets), leaves[1])
    outputs = list(result) if isinstance(result, tuple) else [result]
    if backward:
        torch.set_num_threads(backward)
    grads = torch.autograd.grad(sum(o for o in outputs if o.requires_grad), leaves, allow_unused=True)
    return [t.detach().cpu() for t in (*outputs, *grads) if t is not None]


def assert_same_bits(results):
    first, *others = results
    for other in others:
        assert len(other) == len(first)
        for a, b in zip(first, other, strict=True):
            assert torch.equal(a.nan_to_num(7), b.nan_to_num(7))


def calls(algorithm, options, backend="cpu"):
    """Every function of the library by name."""
    losses = Fast(backend, algorithm)

    def named(loss):
        return lambda logits, targets, errors: loss(losses, logits, targets, errors, **options)

    def by_image(logits, targets, errors):
        index = torch.arange(targets.numel(), device=targets.device).reshape(targets.shape) * 3 // max(1, targets.numel())
        return losses.alrp_loss(logits, targets, errors, scope="image", image_index=index, **options)

    def own(logits, targets, errors):
        def error_fn(ranks):
            return Errors((ranks.n_fp + ranks.extra_sums) / ranks.rank)

        return losses.error_driven_loss(logits, targets, error_fn, extras=errors, **options)

    return {name: named(loss) for name, loss in LOSSES.items()} | {"by_image": by_image, "own": own}


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("algorithm", ["tiled", "sorted"])
@pytest.mark.parametrize("name", [*LOSSES, "by_image", "own"])
def test_bits_do_not_depend_on_the_number_of_threads_of_either_pass(name, algorithm, case):
    data = case.build()
    call = calls(algorithm, data.options)[name]
    pairs = [(k, k) for k in COUNTS] + [(1, 7), (7, 2)]
    assert_same_bits([step(data, call, *pair) for pair in pairs])


@pytest.mark.parametrize("algorithm", ["tiled", "sorted"])
@pytest.mark.parametrize("backend", CONCURRENT)
def test_calls_from_several_python_threads(backend, algorithm):
    """On a GPU each thread has a stream of its own, and few and many positives ask for other amounts of shared memory."""
    put, rounds = Fast(backend, algorithm).put, 10 if backend == "cuda" else 1
    data = [case.build() for case in (*CASES[:3], Case((20_000, 100)), Case((20_000, 2000)))]
    work = [(d, call) for d in data for call in calls(algorithm, d.options, backend).values()]
    want = [step(d, call, put=put) for d, call in work]
    got: list = [[] for _ in work]
    start = threading.Barrier(4)

    def worker(own):
        start.wait()
        with torch.cuda.stream(torch.cuda.Stream()) if backend == "cuda" else contextlib.nullcontext():
            for k in own * rounds:
                got[k].append(step(*work[k], put=put))

    threads = [threading.Thread(target=worker, args=([*range(k, len(work), 4)],)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for a, results in zip(want, got, strict=True):
        assert len(results) == rounds
        assert_same_bits([a, *results])


def test_several_python_threads_share_their_tensors():
    data = CASES[0].build()
    call = calls("sorted", data.options)["alrp"]
    want = call(data.logits, data.targets, data.loc_errors)
    got = []
    threads = [threading.Thread(target=lambda: got.append(call(data.logits, data.targets, data.loc_errors))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 4
    for result in got:
        assert_same_bits([list(want), list(result)])


def kernel_times(progress, call):
    """The longest time for which ``progress`` stood still while ``call`` ran, as a share of that."""
    begin = time.perf_counter()
    call()
    end = time.perf_counter()
    stamps = [begin, *(t for t in progress if begin < t < end), end]
    return max(b - a for a, b in itertools.pairwise(stamps)) / (end - begin)


@pytest.mark.slow
def test_other_python_threads_go_on_while_a_kernel_runs():
    torch.set_num_threads(1)
    leaf = torch.randn(3_000_000, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.zeros(3_000_000, dtype=torch.int8)
    labels[:400] = 1
    progress, done = [], threading.Event()

    def tick():
        while not done.is_set():
            progress.append(time.perf_counter())
            time.sleep(0.001)

    ticking = threading.Thread(target=tick)
    ticking.start()
    try:
        loss = alrp_cuda.ap_loss(leaf, labels, algorithm="tiled")
        shares = [
            kernel_times(progress, lambda: alrp_cuda.ap_loss(leaf, labels, algorithm="tiled")),
            kernel_times(progress, lambda: torch.autograd.grad(loss, leaf, retain_graph=True)),
        ]
    finally:
        done.set()
        ticking.join()
    assert max(shares) < 0.5, f"another thread stood still for {max(shares):.0%} of a call"


def in_child(work, seconds=30):
    """Run ``work()`` in a child of os.fork; raises what it raised, and if it has not ended in time."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            signal.alarm(seconds)  # a hang ends the child
            work()
        except BaseException:
            os.write(write, traceback.format_exc().encode()[-4000:])
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    assert not said, said
    assert status == 0, f"the child ended with status {status}: {signal.strsignal(os.WTERMSIG(status))}"


def bits(tensor):
    """The bytes of a tensor, by none of torch's operators: they wait in a forked child for threads that it does not have."""
    return tensor.detach().view(-1).view(torch.uint8).numpy().tobytes()


def prepared(name, case, losses):
    """A function without arguments that gives the bits of the outputs and of the logits' gradient of a loss."""
    data, loss = case.build(), LOSSES[name]
    logits, errors = data.logits.clone().requires_grad_(), data.loc_errors.clone()
    if loss.kind == "rank_sort":
        targets = continuous(data.logits, data.targets, data.loc_errors, data.options.get("background"))

        def call():
            return losses.rank_sort_loss(logits, targets, delta=case.delta)
    else:

        def call():
            return loss(losses, logits, data.targets, errors, **data.options)

    def work():
        result = call()
        outputs = result if isinstance(result, tuple) else (result,)
        return [bits(t) for t in (*outputs, *torch.autograd.grad(outputs[0], logits))]

    return work


@pytest.mark.unsanitized  # sanitizers' runtimes do not support threads after a fork
@pytest.mark.parametrize("algorithm", ["tiled", "sorted"])
def test_a_forked_child_computes_the_same_after_its_parent_used_threads(algorithm):
    torch.set_num_threads(2)
    work = [prepared(name, case, Fast("cpu", algorithm)) for name in LOSSES for case in CASES]
    want = [own() for own in work]

    def child():
        assert torch.get_num_threads() == 2
        for own, bits_of_parent in zip(work, want, strict=True):
            assert own() == bits_of_parent

    in_child(child)
    assert [own() for own in work] == want


@pytest.mark.unsanitized
def test_a_grandchild_computes_the_same():
    torch.set_num_threads(2)
    work = prepared("ap", CASES[0], Fast("cpu", "sorted"))
    want = work()

    def child():
        assert work() == want

    in_child(lambda: in_child(child))


class Rows(torch.utils.data.Dataset):
    """A loss of each of two rows, computed in the worker."""

    def __init__(self, case):
        self.data = case.build()

    def __len__(self):
        return 4

    def __getitem__(self, k):
        result = evaluate(
            LOSSES["alrp"], Fast("cpu", "sorted"), self.data.logits * (k + 1), self.data.targets, self.data.loc_errors
        )
        return result["cls"], result["d_logits"]


@pytest.mark.unsanitized
def test_workers_of_a_data_loader_compute_the_same():
    torch.set_num_threads(2)
    rows = Rows(CASES[0])
    want = [rows[k] for k in range(len(rows))]
    loader = torch.utils.data.DataLoader(rows, batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=60)
    got = list(loader)
    assert len(got) == len(want)
    for a, b in zip(want, got, strict=True):
        assert_same_bits([a, b])
