# make demo | test | bench | lint | test-full | fuzz | sanitize | gpu-check | costs | format: each makes .venv, installs what it needs and builds the extension.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE := $(wildcard csrc/*.h csrc/*.cpp csrc/*/*.h csrc/*/*.cpp csrc/*/*.cu csrc/*/*.cuh)
TEST_NATIVE := $(shell find tests -name "*.cpp" -o -name "*.cc" -o -name "*.h" -o -name "*.cu")
# Fewer architectures than setup.py's default, for a quick build: their code also runs on 8.6, 8.9 and, compiled by the
# driver, on whatever is newer.
export TORCH_CUDA_ARCH_LIST ?= 7.5 8.0 9.0+PTX
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo test test-full fuzz sanitize gpu-check bench costs lint format clean

demo: $(VENV)/built
	python examples/digits.py

# As many workers as cores, so one thread each; tests of threads set their number themselves.
test: $(VENV)/built
	OMP_NUM_THREADS=1 python -m pytest -n auto -m "not full"

test-full: $(VENV)/built
	OMP_NUM_THREADS=1 python -m pytest -n auto --hypothesis-profile=long
	python -m tests.sanitize --full

# Random calls against the reference until the time is up: make fuzz MINUTES=60 BACKEND=emulated
MINUTES ?= 10
BACKEND ?= cpu
fuzz: $(VENV)/built
	python tests/fuzzing.py --minutes $(MINUTES) --backend $(BACKEND)

# The CPU's C++ under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer, in builds of their own.
sanitize: $(VENV)/built
	python -m tests.sanitize

# On a machine with a GPU: its tests, compute-sanitizer and the benchmark, with a report in runs/.
gpu-check: $(VENV)/built
	python -m tests.gpu_check

bench: $(VENV)/built
	python -m bench

# After a change of csrc/cuda that is meant to cost more or less: writes what tests/test_costs.py and test_compile.py hold.
costs: $(VENV)/built
	python -m bench --device emulated --write-costs
	python tests/compilation.py --write

lint: $(VENV)/installed
	ruff check .
	ruff format --check .
	clang-format --dry-run --Werror $(NATIVE) $(TEST_NATIVE)
	mypy

format: $(VENV)/installed
	ruff check --fix .
	ruff format .
	clang-format -i $(NATIVE) $(TEST_NATIVE)

$(VENV)/installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	python -m pip install --quiet -r requirements.txt
	touch $@

# Editable: changes of Python files need no new build, and changes of csrc rebuild what they touch.
$(VENV)/built: $(VENV)/installed $(NATIVE) setup.py pyproject.toml
	python setup.py --quiet build_ext --inplace
	python -m pip install --quiet --no-build-isolation --no-deps --editable .
	python -m alrp_cuda
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info alrp_cuda/*.so
