"""make gpu-check, with a stand-in for the machine and, mostly, for what it runs."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gpu_check import __main__ as checking
from gpu_check import build, machine, recorder, report, source, steps
from gpu_check.outcomes import Ended, Outcome
from gpu_check.running import CLOSING_SECONDS, run
from gpu_check.source import ROOT
from gpu_check.steps import Step

from bench.options import parse

pytestmark = pytest.mark.slow

TOOLS = ["memcheck", "racecheck", "initcheck", "synccheck"]
PARTS = {part: [step.name for step in those] for part, those in steps.parts("compute-sanitizer").items()}
ALL = [name for names in PARTS.values() for name in names]


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """A machine that seems to have a GPU, and an extension that can be built in no time."""
    monkeypatch.setattr(machine, "no_gpu", lambda: None)
    monkeypatch.setattr(machine, "capability", lambda: (9, 0))
    monkeypatch.setattr(
        machine, "about", lambda sanitizer, commit: {"device": "Some GPU", "versions": "torch 2", "commit": commit}
    )
    built = tmp_path / "built" / build.NAME
    built.parent.mkdir()
    built.write_bytes(b"an extension")
    built.with_name("_C.torch").write_text("2.11.0")
    monkeypatch.setattr(build, "PLACE", built)
    return built


class Stand:
    """Stands in for what runs the steps: keeps them, and answers by their names; the rest passes, all its tests too."""

    def __init__(self, folder, answers=(), clock=None):
        self.folder, self.answers, self.clock = folder, dict(answers), clock
        self.ran, self.limits = [], {}

    def __call__(self, step, record, limit):
        self.ran.append(step)
        self.limits[step.name] = limit
        outcome, done = self.answers.get(step.name, (Outcome(0, f"{step.name} is fine\n", 1.6), 3))
        if step.records:
            write(Path(record), step.name, ["passed"] * done, 3)
        if self.clock:
            self.clock.now += min(outcome.seconds, limit)
        return outcome

    @property
    def names(self):
        return [step.name for step in self.ran if step.name != "build"]

    def check(self, *arguments):
        return checking.main(["--folder", str(self.folder), "--sanitizer", "/opt/compute-sanitizer", *arguments], self)

    @property
    def report(self):
        return (self.folder / "gpu-check.md").read_text()


def write(path, step, outcomes, collected):
    """What the recorder writes of tests that ended so."""
    lines = [{"step": step, "collected": collected}]
    lines += [{"step": step, "test": f"test_{k}", "outcome": outcome} for k, outcome in enumerate(outcomes)]
    with path.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


# ---- what is run


def test_everything_is_run_in_order(gpu, tmp_path):
    stand = Stand(tmp_path)
    assert stand.check() == 0
    assert stand.names == ALL
    assert stand.ran[0].name == "build"
    assert list(PARTS) == ["tests", "sanitizer", "bench", "profile"]
    assert PARTS["sanitizer"] == TOOLS


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_run_alone(gpu, tmp_path, part):
    stand = Stand(tmp_path)
    assert stand.check(part) == 0
    assert stand.names == PARTS[part]
    assert stand.report.count("not run yet") == len(ALL) - len(PARTS[part])


def test_the_gpu_tests_are_those_of_every_backend_and_of_a_gpu_alone(request):
    (step,) = steps.tests()
    assert step.command[:3] == (sys.executable, "-m", "pytest")
    assert "gpu and not full" in step.command
    files = {name for name in step.command if name.endswith(".py")}
    assert {"tests/test_equivalence.py", "tests/test_cuda_graph.py", "tests/test_every_kernel.py"} <= files
    # What imports packages that a machine with a GPU may lack.
    assert not files & {"tests/test_lrp.py", "tests/test_mmdet.py", "tests/test_digits_example.py"}
    collected = {item.path for item in request.session.items if item.get_closest_marker("gpu")}
    assert {f"tests/{path.name}" for path in collected} <= files


def test_every_tool_runs_the_tests_that_meet_every_kernel(gpu, tmp_path):
    stand = Stand(tmp_path)
    stand.check("sanitizer")
    for step in stand.ran[1:]:
        head, tests = step.command[:7], step.command[7:]
        wanted = ("/opt/compute-sanitizer", "--error-exitcode", "99", "--target-processes", "all", "--tool", step.name)
        assert head == wanted
        assert tests[:3] == (sys.executable, "-m", "pytest")
        assert "tests/test_every_kernel.py" in tests
        assert step.environment == {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}


def test_the_benchmark_spans_the_sizes_by_options_that_it_has():
    cells = set()
    for step in steps.benchmark("cpu"):
        assert step.command[:3] == (sys.executable, "-m", "bench")
        options = parse(list(step.command[3:]))
        if options.own_cases:
            cells |= {(n, p, options.classes, options.dtype) for n in options.logits for p in options.positives}
    sizes, positives = (10**4, 10**6, 10**7, 10**8), (50, 500, 2000, 8000, 20000)
    assert {(n, p, 0, "float32") for n in sizes for p in positives if p <= n} <= cells
    assert {(10**6, 500, 91, "float32"), (10**8, 2000, 0, "bfloat16")} <= cells
    assert all("cuda" in step.command for step in steps.benchmark())


def test_a_step_of_the_benchmark_runs_where_the_cpu_stands_in():
    step = next(step for step in steps.benchmark("cpu") if "bfloat16" in step.command)
    sizes = {"1e6": ["300"], "1e8": [], "500": ["3"], "2000": []}
    command = [word for given in step.command for word in sizes.get(given, [given])]
    step = replace(step, command=(*command, "--repeat", "2"), environment={"TORCH_COMPILE_DISABLE": "1"})
    outcome = run(step, "unused", 120)
    assert outcome.status == 0
    said = [" ".join(line.split()) for line in report.section(step, Ended(outcome))]
    assert any(line.startswith("| regime | N | P | ours |") for line in said)


# ---- the report


def test_the_report_names_the_device_and_every_outcome(gpu, tmp_path):
    answers = {
        "gpu tests": (Outcome(2, "!!! Interrupted: out of time !!!", 400.0), 1),
        "racecheck": (Outcome(99, "".join(f"line {i}\n" for i in range(100)), 61.2), 3),
        "bench, N = 1e4": (Outcome(1, "a disagreement", 2), 0),
        "bench, N = 1e6": (Outcome(-9, "", 300, killed=True), 0),
        "kernels": (Outcome(0, "".join(f"| row {i} |\n" for i in range(100)), 9), 0),
    }
    stand = Stand(tmp_path, answers)
    assert stand.check("--commit", "abc123") == 1
    assert stand.names == ALL, "a failure does not stop the rest"
    for line in (
        "- device: Some GPU",
        "- commit: abc123",
        "| build | build | passed | 2 |",
        "| tests | gpu tests | **cut off**, 2 tests left, 1 passed | 400 |",
        "| sanitizer | memcheck | passed, 3 passed | 2 |",
        "| sanitizer | racecheck | **failed**: the tool reported errors, 3 passed | 61 |",
        "| bench | bench, N = 1e4 | **failed**: exit status 1 | 2 |",
        "| bench | bench, N = 1e6 | **cut off** | 300 |",
        "    line 99",
        "    line 75",
        "| row 0 |",
    ):
        assert line in stand.report.splitlines(), line
    assert "line 74" not in stand.report
    assert "    PYTORCH_NO_CUDA_MEMORY_CACHING=1 /opt/compute-sanitizer" in stand.report


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (Outcome(None, "no such file"), "could not be started"),
        (Outcome(99, ""), "the tool reported errors"),
        (Outcome(4, "unknown option"), "exit status 4"),
        (Outcome(2, "an error during collection"), "exit status 2"),
        (Outcome(-11, ""), "exit status -11"),
    ],
)
@pytest.mark.parametrize("name", ["gpu tests", "initcheck", "bench, default cases"])
def test_any_failure_fails_the_check(gpu, tmp_path, name, outcome, words):
    stand = Stand(tmp_path, {name: (outcome, 3)})
    assert stand.check() == 1
    assert f"{name} | **failed**: {words}" in stand.report
    assert stand.report.count("| passed") == len(ALL)  # and the build, but not the one that failed


def test_a_test_that_fails_fails_the_check(gpu, tmp_path):
    def failing(step, record, limit):
        if step.records:
            write(Path(record), step.name, ["passed", "failed", "skipped"], 3)
        return Outcome(1 if step.records else 0, "")

    assert checking.main(["tests", "--folder", str(tmp_path)], failing) == 1
    assert (
        "gpu tests | **failed**: 1 of 3 tests failed, 1 passed, 1 failed, 1 skipped |" in (tmp_path / "gpu-check.md").read_text()
    )


def test_what_is_missing_is_told_and_the_rest_is_run(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "BENCH", ("torchvision", "no_such_package"))
    stand = Stand(tmp_path)
    assert stand.check() == 3
    assert stand.names == PARTS["tests"] + PARTS["sanitizer"]
    assert "| bench | bench, bfloat16 | left out: needs no_such_package | - |" in stand.report


def test_the_report_may_lie_elsewhere(gpu, tmp_path):
    stand = Stand(tmp_path / "results")
    assert stand.check("profile", "--report", str(tmp_path / "report.md")) == 0
    assert "# GPU check" in (tmp_path / "report.md").read_text()


# ---- going on


def test_what_has_passed_is_not_run_again(gpu, tmp_path):
    Stand(tmp_path).check()
    again = Stand(tmp_path)
    assert again.check() == 0
    assert again.ran == []
    assert again.report.count("| passed") == len(ALL) + 1


def test_the_next_run_begins_with_what_did_not_end_and_closes_with_what_failed(gpu, tmp_path):
    answers = {
        "bench, default cases": (Outcome(1, "a disagreement"), 0),
        "bench, N = 1e7": (Outcome(-9, "", killed=True), 0),
    }
    assert Stand(tmp_path, answers).check("bench") == 1
    again = Stand(tmp_path)
    assert again.check("bench") == 0
    assert again.names == ["bench, N = 1e7", "bench, default cases"]


def test_an_interrupted_run_leaves_what_it_found(gpu, tmp_path):
    class Interrupted(Stand):
        def __call__(self, step, record, limit):
            if step.name == "racecheck":
                raise KeyboardInterrupt
            return super().__call__(step, record, limit)

    stand = Interrupted(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        stand.check("sanitizer")
    assert "| memcheck | passed" in stand.report
    again = Stand(tmp_path)
    assert again.check("sanitizer") == 0
    assert again.names == TOOLS[1:]


def test_other_sources_are_checked_anew(gpu, tmp_path, monkeypatch, capsys):
    Stand(tmp_path).check()
    assert "run anew" not in capsys.readouterr().out
    monkeypatch.setattr(checking, "digest", lambda paths: "other")
    again = Stand(tmp_path)
    assert again.check() == 0
    assert again.names == ALL
    assert "run anew" in capsys.readouterr().out


def test_after_an_error_of_a_tool_all_its_tests_are_run_again(gpu, tmp_path):
    answers = {
        "memcheck": (Outcome(99, ""), 3),
        "racecheck": (Outcome(-9, "", killed=True), 2),
        "initcheck": (Outcome(2, "out of time"), 2),
    }
    Stand(tmp_path, answers).check("sanitizer")
    seen = {}

    def look(step, record, limit):
        seen[step.name] = len(recorder.read(Path(record), step.name).done)
        write(Path(record), step.name, ["passed"] * 3, 3)
        return Outcome(0, "")

    assert checking.main(["sanitizer", "--folder", str(tmp_path)], look) == 0
    assert seen == {"racecheck": 0, "initcheck": 2, "memcheck": 0}


# ---- time


class Clock:
    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(checking, "time", clock)
    return clock


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("seconds", [0.1, 70.0, 1e9])
def test_a_part_ends_in_eight_minutes_whatever_its_steps_take(gpu, tmp_path, clock, part, seconds):
    answers = {name: (Outcome(0 if seconds < 480 else -9, "", seconds, seconds > 480), 3) for name in (*ALL, "build")}
    stand = Stand(tmp_path, answers, clock)
    status = stand.check(part)
    assert clock.now <= 1000 + 8 * 60
    ended = [name for name in PARTS[part] if f"| {name} | passed" in stand.report]
    assert status == (0 if ended == PARTS[part] else 3 if seconds < 480 else 1)


def test_each_part_has_its_own_minutes(gpu, tmp_path, clock):
    stand = Stand(tmp_path, {name: (Outcome(0, "", 30), 3) for name in ALL}, clock)
    assert stand.check("--minutes", "5") == 0
    assert clock.now > 1000 + 5 * 60
    assert max(stand.limits.values()) <= 5 * 60


def test_tools_share_the_time_that_is_left(gpu, tmp_path, clock):
    stand = Stand(tmp_path, {"memcheck": (Outcome(0, "", 20), 3)}, clock)
    stand.check("sanitizer")
    assert stand.limits["memcheck"] == pytest.approx((480 - 1.6) / 4)
    assert stand.limits["racecheck"] == pytest.approx((480 - 1.6 - 20) / 3)


def test_what_there_is_no_time_for_is_left_for_the_next_run(gpu, tmp_path, clock, capsys):
    stand = Stand(tmp_path, {"bench, default cases": (Outcome(0, "", 470), 0)}, clock)
    assert stand.check("bench") == 3
    assert stand.names == ["bench, default cases"]
    assert "no time left for bench, bfloat16" in capsys.readouterr().out
    assert "| bench, bfloat16 | not run yet | - |" in stand.report
    clock.now = 0
    again = Stand(tmp_path, clock=clock)
    assert again.check("bench") == 0
    assert again.names == PARTS["bench"][1:]


# ---- the build


def test_the_extension_is_built_for_the_device_alone(gpu, tmp_path):
    stand = Stand(tmp_path)
    stand.check("profile")
    step = stand.ran[0]
    assert step.command[:2] == (sys.executable, "setup.py")
    assert {"build_ext", "--inplace"} <= set(step.command)
    assert step.environment == {"ALRP_CUDA": "1", "TORCH_CUDA_ARCH_LIST": "9.0"}


def test_the_extension_is_kept_with_the_results(gpu, tmp_path):
    Stand(tmp_path / "results").check("profile")
    for path in gpu.parent.iterdir():  # a bare machine
        path.unlink()
    again = Stand(tmp_path / "results")
    assert again.check() == 0
    assert again.names == PARTS["tests"] + PARTS["sanitizer"] + PARTS["bench"]
    assert [step.name for step in again.ran].count("build") == 0
    assert gpu.read_bytes() == b"an extension"
    assert gpu.with_name("_C.torch").read_text() == "2.11.0"


@pytest.mark.parametrize("change", ["another torch", "another device", "other sources"])
def test_an_extension_for_something_else_is_built_again(gpu, tmp_path, monkeypatch, change):
    Stand(tmp_path).check("profile")
    if change == "another torch":
        monkeypatch.setattr(machine, "torch_version", lambda: "2.11.0")
    elif change == "another device":
        monkeypatch.setattr(machine, "capability", lambda: (8, 0))
    else:
        monkeypatch.setattr(build, "digest", lambda paths: "other")
    again = Stand(tmp_path)
    again.check("profile")
    assert [step.name for step in again.ran] == ["build"]


@pytest.mark.parametrize("outcome", [Outcome(1, "nvcc fatal\n", 9), Outcome(-9, "", 480, killed=True)])
def test_without_an_extension_nothing_is_run(gpu, tmp_path, capsys, outcome):
    stand = Stand(tmp_path, {"build": (outcome, 0)})
    assert stand.check() == 1
    assert stand.names == []
    assert "could not be built" in capsys.readouterr().err
    assert "| build | build | passed" not in stand.report
    assert outcome.output.strip() in stand.report
    assert Stand(tmp_path).check("profile") == 0


# ---- machines that lack something


def test_without_a_gpu_nothing_is_run(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    stand = Stand(tmp_path / "results")
    assert stand.check() == 2
    assert stand.ran == []
    assert "gpu-check needs a machine with a GPU: torch sees no CUDA device" in capsys.readouterr().err
    assert not stand.folder.exists()


def test_without_torch_it_says_so(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('No module named torch')")
    command = [sys.executable, "-m", "tests.gpu_check"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 2
    assert "it takes a torch with CUDA" in done.stderr


def test_compute_sanitizer_is_found_in_the_toolkit_too(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "toolkit"))
    tool = tmp_path / "toolkit" / "bin" / "compute-sanitizer"
    tool.parent.mkdir(parents=True)
    tool.write_text("")
    tool.chmod(0o755)
    assert machine.sanitizer() == str(tool)
    tool.rename(tmp_path / tool.name)
    assert machine.sanitizer() == str(tmp_path / tool.name)


def test_the_commit_is_told_or_found(tmp_path, monkeypatch):
    assert source.commit("abc") == "abc (as told)"
    monkeypatch.setattr(source, "ROOT", tmp_path)
    assert source.commit(None) == "not told, and git does not know"
    for command in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "first"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert source.commit("") == head[:12]


def test_the_digest_is_of_all_that_is_checked(tmp_path):
    for name in ("csrc/cuda/a.cu", "csrc/a.h", "alrp_cuda/a.py", "tests/b/c.py", "setup.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("one")
    was = source.digest(source.CHECKED, tmp_path)
    (tmp_path / "alrp_cuda" / "_C.so").write_text("built")
    assert source.digest(source.CHECKED, tmp_path) == was
    for name in ("csrc/cuda/a.cu", "csrc/a.h", "alrp_cuda/a.py", "tests/b/c.py", "setup.py"):
        (tmp_path / name).write_text("two")
        assert source.digest(source.CHECKED, tmp_path) != was
        (tmp_path / name).write_text("one")
    assert source.digest(source.CHECKED, tmp_path) == was


@pytest.mark.full
def test_what_the_page_says_is_to_be_carried_suffices(tmp_path):
    page = (ROOT / "docs" / "gpu.md").read_text()
    carried = re.search(r"^To carry.*:\n\n    (.*)$", page, re.MULTILINE)[1].split()
    for name in carried:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    files = [word for word in steps.tests()[0].command if word.endswith(".py")]
    commands = [["setup.py", "--quiet", "--version"], ["-m", "tests.gpu_check", "--help"]]
    commands.append(["-m", "pytest", "--collect-only", "-qq", "-m", "gpu and not full", *files])
    for command in commands:
        done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    collected = dict(re.findall(r"^(tests/\S+\.py): (\d+)$", done.stdout, re.MULTILINE))
    assert sum(map(int, collected.values())) > 6000


# ---- commands and tests as they are run


def test_commands_are_run_with_their_environment_and_their_words_kept(capsys):
    program = "import os, sys; print(os.environ['WORD']); print('told', file=sys.stderr); sys.exit(3)"
    outcome = run(Step("any", (sys.executable, "-c", program), {"WORD": "hello"}), "unused", 60)
    assert (outcome.status, outcome.killed) == (3, False)
    assert sorted(outcome.output.split()) == ["hello", "told"]
    assert "hello" in capsys.readouterr().out
    assert run(Step("missing", ("/no/such/program",)), "unused", 60).status is None
    assert machine.said("/no/such/program") == "unknown"


def test_a_command_is_ended_at_its_limit_with_all_that_it_started():
    program = "import subprocess, sys; print('begun', flush=True); subprocess.run([sys.executable, '-c', 'while True: pass'])"
    begin = time.monotonic()
    outcome = run(Step("any", (sys.executable, "-c", program)), "unused", 3)
    assert time.monotonic() - begin < 30
    assert outcome.killed
    assert outcome.output == "begun\n"


TESTS = r"""
import os, pathlib, pytest, time

@pytest.mark.parametrize("k", range(6))
def test_counts(k):
    with open({log!r}, "a") as file:
        file.write(f"{{k}}\n")
    {body}
"""


class Recorded:
    """Six tests that write down that they ran, as a step."""

    def __init__(self, folder, body="pass", *options):
        self.log, self.record = folder / "log", folder / "tests.jsonl"
        (folder / "test_some.py").write_text(TESTS.format(log=str(self.log), body=body))
        self.step = Step(
            "some", (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(folder)), records=True
        )

    def run(self, limit):
        return Ended(run(self.step, str(self.record), limit), recorder.read(self.record, "some"))

    @property
    def ran(self):
        return sorted(map(int, self.log.read_text().split()))


ENOUGH, NOTHING = 120.0, CLOSING_SECONDS
workers = pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "workers"])


@workers
def test_tests_stop_in_time_and_go_on_where_they_were(tmp_path, options):
    tests = Recorded(tmp_path, "pass", *options)
    first = tests.run(NOTHING)
    assert first.failure is None
    assert first.is_cut
    assert first.record.collected == 6
    assert 1 <= first.record.count("passed") <= 2  # one of each worker
    assert 0 < first.record.left < 6
    second = tests.run(ENOUGH)
    assert second.has_passed
    assert tests.ran == list(range(6)), "each ran once"
    third = tests.run(ENOUGH)
    assert third.outcome.status == 5
    assert third.has_passed


@workers
def test_a_test_that_failed_is_run_again(tmp_path, options):
    tests = Recorded(tmp_path, "assert k != 2", *options)
    first = tests.run(ENOUGH)
    assert first.failure == "1 of 6 tests failed"
    assert not first.is_cut
    (tmp_path / "test_some.py").write_text(TESTS.format(log=str(tests.log), body="pass"))
    assert tests.run(ENOUGH).has_passed
    assert tests.ran == [0, 1, 2, 2, 3, 4, 5]


@workers
def test_a_test_that_was_killed_is_named_and_comes_last_the_next_time(tmp_path, options):
    kills = "k == 1 and not pathlib.Path(__file__).with_name('go').exists() and (time.sleep(1), os.killpg(os.getpgrp(), 9))"
    tests = Recorded(tmp_path, kills, *options)
    first = tests.run(ENOUGH)
    first = Ended(replace(first.outcome, killed=True), first.record)
    assert first.failure is None
    assert first.is_cut
    unfinished = [test for test, outcome in first.record.outcomes.items() if outcome == recorder.STARTED]
    (killed,) = [test for test in unfinished if test.endswith("test_counts[1]")]
    assert f"    did not end: {killed}" in report.section(tests.step, first)
    (tmp_path / "go").touch()
    assert tests.run(ENOUGH).has_passed
    if not options:
        assert tests.log.read_text().split() == ["0", "1", "2", "3", "4", "5", "1"]


@workers
def test_a_test_that_ends_its_process_fails_alone(tmp_path, options):
    """The first dies late, when others have passed: who takes its place has to collect the same tests."""
    tests = Recorded(tmp_path, "k == 0 and (time.sleep(1), os._exit(7))", *options)
    ended = tests.run(ENOUGH)
    assert ended.failure == ("1 of 6 tests failed" if options else "exit status 7")
    if options:
        assert ended.record.count("passed") == 5


@workers
def test_a_file_that_cannot_be_imported_fails_and_stops_no_other(tmp_path, options):
    assert "--continue-on-collection-errors" in steps.tests()[0].command
    tests = Recorded(tmp_path, "pass", "--continue-on-collection-errors", *options)
    (tmp_path / "test_other.py").write_text("import no_such_package\n")
    ended = tests.run(ENOUGH)
    assert ended.failure == "exit status 1"
    assert not ended.is_cut
    assert tests.ran == list(range(6))
    assert "no_such_package" in "\n".join(report.section(tests.step, ended))


def test_skipped_tests_and_failing_fixtures_are_told_apart(tmp_path):
    tests = Recorded(tmp_path, "k == 0 and pytest.skip('why')")
    with (tmp_path / "test_some.py").open("a") as file:
        file.write(
            textwrap.dedent("""
            @pytest.fixture
            def broken():
                yield
                assert False

            def test_with_a_broken_end(broken):
                pass
        """)
        )
    record = tests.run(ENOUGH).record
    assert {outcome: record.count(outcome) for outcome in ("passed", "skipped", "failed")} == {
        "passed": 5,
        "skipped": 1,
        "failed": 1,
    }


def test_a_record_that_was_cut_in_a_line_is_read(tmp_path):
    write(tmp_path / "tests.jsonl", "some", ["passed", "failed"], 3)
    write(tmp_path / "tests.jsonl", "other", ["failed"], 1)
    with (tmp_path / "tests.jsonl").open("a") as file:
        file.write('{"step": "some", "te')
    record = recorder.read(tmp_path / "tests.jsonl", "some")
    assert (record.collected, record.left, record.done) == (3, 1, {"test_0"})
    recorder.forget(tmp_path / "tests.jsonl", "some")
    assert recorder.read(tmp_path / "tests.jsonl", "some").collected is None
    assert recorder.read(tmp_path / "tests.jsonl", "other").collected == 1
