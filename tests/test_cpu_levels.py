"""One build serves every CPU, at the level that it has: results are bitwise those of any other level."""

import os
import platform
import subprocess
import sys

import alrp_cuda

LEVELS = ("default", "neon") if platform.machine() in ("aarch64", "arm64") else ("default", "avx2", "avx512")

# Prints a digest of losses and gradients: of every kind of logit, of labels of one, two, four and eight bytes and of class
# indices, by both algorithms. Lengths are no multiples of a vector's.
DIGEST = """
import hashlib
import torch
import alrp_cuda

torch.set_num_threads(2)
generator = torch.Generator().manual_seed(0)
digest = hashlib.sha256()
n, classes = 7007, 7
scores = torch.randn(n, generator=generator) * 2 - 3
labels = torch.zeros(n, dtype=torch.int64)
labels[torch.randperm(n, generator=generator)[:90]] = 1
labels[::50] = -1
index = torch.randint(0, classes + 1, (n // classes,), generator=generator)
errors = torch.rand(n, generator=generator)
for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
    for label in (torch.int8, torch.int16, torch.int32, torch.int64, torch.float32, None):
        for algorithm in ("sorted", "tiled"):
            logits = scores.clone().to(dtype).requires_grad_()
            targets = index if label is None else labels.to(label)
            x = logits.view(-1, classes) if label is None else logits
            count = int((targets < classes).sum() if label is None else (targets > 0).sum())
            losses = alrp_cuda.alrp_loss(x, targets, errors[:count].to(dtype), algorithm=algorithm)
            (losses[0] + losses[1]).backward()
            for tensor in (*losses, logits.grad):
                digest.update(tensor.detach().double().numpy().tobytes())
continuous = torch.where(labels > 0, errors, 0.0)
logits = scores.clone().requires_grad_()
losses = alrp_cuda.rank_sort_loss(logits, continuous)
(losses[0] + losses[1]).backward()
digest.update(logits.grad.numpy().tobytes())
print(alrp_cuda._C.cpu_capability, digest.hexdigest())
"""


def run(script, level):
    return subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"ALRP_CPU_CAPABILITY": level},
        capture_output=True,
        text=True,
    )


def test_every_level_gives_the_same_bits():
    levels = LEVELS[: LEVELS.index(alrp_cuda._C.cpu_capability) + 1]
    outputs = []
    for level in levels:
        done = run(DIGEST, level)
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout.split())
    assert [name for name, _ in outputs] == list(levels)
    assert len({digest for _, digest in outputs}) == 1


def test_a_level_that_is_none_is_named_when_the_package_is_imported():
    done = run("import alrp_cuda", "sse9")
    assert done.returncode != 0
    assert f"ALRP_CPU_CAPABILITY must be one of {', '.join(LEVELS)}, got 'sse9'" in done.stderr


def test_a_level_above_that_of_the_cpu_is_that_of_the_cpu():
    done = run("import alrp_cuda; print(alrp_cuda._C.cpu_capability)", LEVELS[-1])
    assert done.stdout.strip() in LEVELS
    assert LEVELS.index(done.stdout.strip()) >= LEVELS.index(alrp_cuda._C.cpu_capability)
