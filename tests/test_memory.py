"""Memory: steps leave nothing behind, an allocation that fails raises and no more, and Ctrl-C ends what runs."""

import functools
import gc
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

import alrp_cuda
from bench.memory import peak_bytes

STEPS = 1000


def in_process(code, **environment):
    """What a Python program prints, run in a process of its own on the package that is imported here."""
    paths = os.pathsep.join([str(Path(__file__).parent), *(path for path in sys.path if path)])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "2"} | environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split()


@pytest.mark.slow
@pytest.mark.unsanitized  # freed memory is kept for a while, to find who reads it
@pytest.mark.parametrize("algorithm", ["tiled", "sorted"])
def test_steps_leave_nothing_behind(algorithm):
    before, after, objects_before, objects_after = map(
        int,
        in_process(f"""
            import gc, os, torch, alrp_cuda
            from alrp_cuda import Errors

            def resident():
                with open("/proc/self/statm") as file:
                    return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

            generator = torch.Generator().manual_seed(0)
            labels = (torch.rand(2000, generator=generator) < 0.01).long()
            y, errors = labels.float() / 2, torch.rand(int(labels.sum()), generator=generator)
            index = torch.arange(2000) // 500
            chosen = {{"algorithm": {algorithm!r}}}

            def step():
                logits = torch.randn(2000, generator=generator, requires_grad=True)
                e = errors.clone().requires_grad_()
                out = alrp_cuda.alrp_loss(logits, labels, e, **chosen)
                sort = alrp_cuda.rank_sort_loss(logits, y, **chosen)
                image = alrp_cuda.ap_loss(logits, labels, scope="image", image_index=index, **chosen)
                maps = alrp_cuda.head_views([logits.view(2, 8, 5, 25)], 4)
                listed = alrp_cuda.ap_loss(maps, [torch.full((2, 5, 25, 2), 1)], **chosen)
                own = alrp_cuda.error_driven_loss(logits, labels, lambda r: Errors(r.n_fp / r.rank), extras=e, **chosen)
                (out.cls + out.loc + sort.rank + sort.sort + image + listed + own).backward()
                try:
                    alrp_cuda.alrp_loss(logits, labels, e[1:], **chosen)
                except ValueError:
                    pass

            def count():
                gc.collect()
                return len(gc.get_objects())

            for _ in range({STEPS} // 5):
                step()
            objects, memory = count(), resident()  # in this order: counting makes a list of all objects
            for _ in range({STEPS}):
                step()
            print(memory, resident(), objects, count())
        """),
    )
    assert abs(objects_after - objects_before) < 50, f"{objects_after - objects_before} objects more"
    # A step holds some 100 kB.
    assert after - before < STEPS * 1000, f"{(after - before) / STEPS:.0f} bytes a step"


def test_tensors_are_freed_with_their_graph():
    def tensors():
        gc.collect()
        return [o for o in gc.get_objects() if issubclass(type(o), torch.Tensor)]

    logits, labels = torch.randn(5000, requires_grad=True), (torch.arange(5000) % 50 == 0).long()
    alrp_cuda.ap_loss(logits, labels).backward()
    before = tensors()  # held, so that no later tensor takes the identity of one of them
    for _ in range(20):
        out = alrp_cuda.alrp_loss(logits, labels, torch.rand(100, requires_grad=True))
        (out.cls + out.loc).backward()
        del out
    assert {id(tensor) for tensor in tensors()} <= {id(tensor) for tensor in before}


@pytest.mark.slow
@pytest.mark.unsanitized  # sanitizers reserve all of the address space
@pytest.mark.parametrize("algorithm", ["tiled", "sorted"])
def test_an_allocation_that_fails_raises_and_the_next_call_works(algorithm):
    """The room that is left is made smaller and smaller, so that it ends in one allocation after the other."""
    said = in_process(
        f"""
        import resource, torch, alrp_cuda

        torch.set_num_threads(2)
        n = 1 << 22
        logits = torch.randn(n, generator=torch.Generator().manual_seed(0)).requires_grad_()
        labels = torch.zeros(n, dtype=torch.int8)
        labels[: 1 << 16 if {algorithm!r} == "sorted" else 20] = 1

        def step():
            loss = alrp_cuda.ap_loss(logits, labels, algorithm={algorithm!r})
            (gradient,) = torch.autograd.grad(loss, logits)
            return float(loss.detach()), float(gradient.abs().sum())

        want = step()

        def used():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[0]) * resource.getpagesize()

        failures = 0
        for room in [0, *(1 << k for k in range(16, 28))]:
            resource.setrlimit(resource.RLIMIT_AS, (used() + room, resource.RLIM_INFINITY))
            try:
                step()
            except (MemoryError, RuntimeError) as error:
                # What autograd calls in C++ raises RuntimeError with the words of std::bad_alloc.
                assert isinstance(error, MemoryError) or "memory" in str(error) or "bad_alloc" in str(error), error
                failures += 1
            finally:
                resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            assert step() == want
        print(failures)
        """,
        MALLOC_ARENA_MAX="1",
    )
    assert 1 <= int(said[0]) < 13


def test_a_gradient_that_has_no_room_raises():
    """One score, expanded to more logits than any machine has room for: labels are expanded too."""
    logits = torch.zeros(1, requires_grad=True).expand(1 << 46)
    targets = torch.zeros(1, dtype=torch.int8).expand(1 << 46)
    with pytest.raises((RuntimeError, MemoryError), match="memory"):
        alrp_cuda.ap_loss(logits, targets)
    assert float(alrp_cuda.ap_loss(torch.zeros(4), torch.tensor([1, 0, 0, -1]))) == 0.5


@pytest.mark.slow
def test_ctrl_c_ends_a_loop_of_calls_after_the_kernel_that_runs():
    first, second, after = in_process(
        """
        import os, signal, threading, time, torch, alrp_cuda

        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is born ignoring it
        logits = torch.randn(2_000_000, requires_grad=True)
        labels = torch.zeros(2_000_000, dtype=torch.int8)
        labels[:400] = 1
        begin = time.monotonic()
        alrp_cuda.ap_loss(logits, labels, algorithm="tiled").backward()
        step = time.monotonic() - begin
        threading.Timer(1.2 * step, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        begin = time.monotonic()
        try:
            while True:  # how many steps fit, nobody knows: on busy cores the first may be far slower than the rest
                alrp_cuda.ap_loss(logits, labels, algorithm="tiled").backward()
        except KeyboardInterrupt:
            late = time.monotonic() - begin - 1.2 * step
            print("interrupted", late < 2 * step + 2, end=" ")
        print(float(alrp_cuda.ap_loss(torch.zeros(4), torch.tensor([1, 0, 0, -1]))))
        """
    )
    assert (first, second, after) == ("interrupted", "True", "0.5")


def test_a_list_takes_no_memory_of_the_size_of_the_logits():
    """But for the gradients, which its maps get as they lie."""
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 9 * 80, side, side, generator=generator).requires_grad_() for side in (16, 8)]
    targets = [torch.full((2, side, side, 9), 80) for side in (16, 8)]
    for level in targets:
        level[:, 1, 2, :3] = 7
    errors = torch.rand(12, generator=generator)
    step = functools.partial(step_of_maps, maps, targets, errors)
    step()  # what is made once
    peak, size = peak_bytes(step, torch.device("cpu")), sum(m.nbytes for m in maps)
    assert size <= peak < 1.1 * size


def test_a_gradient_that_nobody_asks_for_takes_no_memory():
    logits, targets = torch.randn(1_000_000), torch.zeros(1_000_000, dtype=torch.int8)
    targets[:5] = 1
    errors = torch.rand(5).requires_grad_()

    def step():
        return torch.autograd.grad(alrp_cuda.alrp_loss(logits, targets, errors).loc, errors)

    step()  # what is made once
    assert peak_bytes(step, torch.device("cpu")) < logits.nbytes / 2


@pytest.mark.parametrize("wanted", [False, True])
def test_a_state_is_no_longer_than_what_backward_reads(wanted):
    """Four facts, the poison, and of each positive its index, its score and two or three gradients."""
    targets = torch.tensor([1, 0, 1, 0, 1])
    loss = 0, 0, False, 1.0, 0, alrp_cuda.inputs.LOSSES.index("alrp"), 1e-5, 3, [], []
    *_, state = torch.ops.alrp_cuda.ranking_loss([torch.zeros(5)], [targets], torch.zeros(3), *loss, wanted)
    assert state.nbytes == 8 * (4 + 1 + 3 * (4 + wanted))


def step_of_maps(maps, targets, errors):
    out = alrp_cuda.alrp_loss(alrp_cuda.head_views(maps, 80), targets, errors)
    return torch.autograd.grad(out.cls + out.loc, maps)
