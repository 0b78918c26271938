# make demo | exhibit | test | bench | lint | docs | dist | test-all | test-full | test-torch | test-integrations | faults | fuzz | sanitize | costs
# | test-arm | format: each makes .venv, installs what it needs and builds the extension; test-torch makes an environment of its own, gpu-check takes what
# there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE := $(wildcard csrc/*.h csrc/*.cpp csrc/*/*.h csrc/*/*.cpp csrc/*/*.cu csrc/*/*.cuh)
TEST_NATIVE := $(shell find tests -name "*.cpp" -o -name "*.cc" -o -name "*.h" -o -name "*.cu")
# Fewer architectures than setup.py's default, for a quick build: their code also runs on 8.6, 8.9 and, compiled by the
# driver, on whatever is newer.
export TORCH_CUDA_ARCH_LIST ?= 7.5 8.0 9.0+PTX
export PATH := $(CURDIR)/$(BIN):$(PATH)

# Another supported torch than that of requirements.txt, and where it is tried; see test-torch.
TORCH ?= 2.13.0
OTHER := .other/$(notdir $(PYTHON))-torch-$(TORCH)
OTHER_PYTHON := $(CURDIR)/$(OTHER)/venv/bin/python
# Of the tests, those that reach torch: no kernels on the emulated device, no benchmark, no training.
REACHES_TORCH := -k "not emulated" --ignore=tests/emulator $(patsubst %,--ignore=tests/test_%.py,digits_example train_example) \
	--ignore=tests/test_equivalence.py --ignore=tests/test_properties.py \
	$(patsubst %,--ignore-glob=tests/test_%*.py,bench compile costs every gpu overhead kernel launches schedules vector)

# The detector framework that is laid over .venv; see test-integrations.
NAME ?= ultralytics
OVERLAY := .other/$(NAME)

.PHONY: demo exhibit test test-all test-full test-torch test-integrations test-arm faults fuzz sanitize dist docs gpu-check bench costs lint format clean

demo: $(VENV)/built
	python -m examples.digits

# The comparison of docs/exhibit.md: as many single-threaded runs at a time as cores; stopped, it goes on where it was.
exhibit: $(VENV)/built
	python -m examples.digits.exhibit

# As many workers as cores, so one thread each; tests of threads set their number themselves. Which cases run: tests/selection.py.
test: $(VENV)/built $(VENV)/mmdet $(VENV)/examples
	OMP_NUM_THREADS=1 python -m pytest -n auto --hypothesis-profile=few --cases few -m "not slow and not full"

test-all: $(VENV)/built $(VENV)/mmdet $(VENV)/examples
	OMP_NUM_THREADS=1 python -m pytest -n auto --cases pairs -m "not full"

test-full: $(VENV)/built $(VENV)/mmdet $(VENV)/examples
	OMP_NUM_THREADS=1 python -m pytest -n auto --hypothesis-profile=long
	python -m tests.sanitize --full
	python -m tests.faults

# Faults planted at random lines of csrc, and which of them no test notices: make faults FILES=cuda/terms.cu COUNT=60 SEED=7
FILES ?= cpu torch
COUNT ?= 15
SEED ?= 0
faults: $(VENV)/built
	python -m tests.faults $(FILES) --seed $(SEED) --count $(COUNT)

# Random calls against the reference until the time is up: make fuzz MINUTES=60 BACKEND=emulated
MINUTES ?= 10
BACKEND ?= cpu
fuzz: $(VENV)/built
	python tests/fuzzing.py --minutes $(MINUTES) --backend $(BACKEND)

# The CPU's C++ under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer, in builds of their own.
sanitize: $(VENV)/built
	python -m tests.sanitize

# make test-torch TORCH=2.13.0 PYTHON=python3.11 ALL=: with another torch or Python, the wheel is built from the source distribution,
# installed, and tested without the package's source beside it, by a selection of the tests or, with ALL=1, by all of them.
test-torch: $(OTHER)/installed
	rm -rf $(OTHER)/dist $(OTHER)/run && mkdir $(OTHER)/run
	$(OTHER_PYTHON) setup.py --quiet sdist --dist-dir $(OTHER)/dist
	tar --extract --file $(OTHER)/dist/*.tar.gz --directory $(OTHER)/run --strip-components 1
	rm -r $(OTHER)/run/alrp_cuda
	export PATH=$(CURDIR)/$(OTHER)/venv/bin:$$PATH; \
	python -m pip wheel --quiet --no-build-isolation --no-deps --wheel-dir $(OTHER)/dist $(OTHER)/dist/*.tar.gz && \
	python -m pip uninstall --quiet --yes alrp_cuda && python -m pip install --quiet --no-index $(OTHER)/dist/*.whl && \
	cd $(OTHER)/run && python tests/smoke.py && \
	OMP_NUM_THREADS=1 python -m pytest -n auto $(if $(ALL),--hypothesis-profile=long,--cases few -m "not full" $(REACHES_TORCH))

# torchvision's wheels are for one build of torch: where the index has none for this one, its tests are skipped.
$(OTHER)/installed: requirements-test.txt
	$(PYTHON) -m venv $(OTHER)/venv
	$(OTHER_PYTHON) -m pip install --quiet "torch==$(TORCH)" torchvision -r requirements-test.txt
	$(OTHER_PYTHON) -c "import torchvision" || $(OTHER_PYTHON) -m pip uninstall --quiet --yes torchvision
	touch $@

# make test-integrations NAME=ultralytics: with a framework that .venv does not have, in a folder beside it and over it: its pins and
# no second torch. The file of its requirements names all that it imports.
test-integrations: $(VENV)/built $(OVERLAY)/installed
	PYTHONPATH=$(CURDIR)/$(OVERLAY)/packages OMP_NUM_THREADS=1 python -m pytest -n auto tests/test_$(NAME).py tests/test_docs.py -k $(NAME)

$(OVERLAY)/installed: requirements-$(NAME).txt | $(VENV)/installed
	rm -rf $(OVERLAY)
	python -m pip install --quiet --no-deps --target $(OVERLAY)/packages -r requirements-$(NAME).txt
	touch $@

# The loops of csrc/cpu for Arm, cross-compiled and run under an emulator (Debian: g++-aarch64-linux-gnu, qemu-user): what they compute
# is bit for bit what they compute here, at every level that this CPU has.
ARM_CXX ?= aarch64-linux-gnu-g++
LOOPS := csrc/cpu/level.cpp csrc/cpu/cells.cpp $(wildcard csrc/cpu/loops*.cpp) $(addprefix tests/native/,vector_forms.cpp loop_digests.cpp)
test-arm: build/arm/here build/arm/there
	build/arm/here > build/arm/here.txt
	qemu-aarch64 build/arm/there > build/arm/there.txt
	diff build/arm/here.txt build/arm/there.txt

build/arm/here: BUILD := $(CXX)
build/arm/there: BUILD := $(ARM_CXX) -static
build/arm/here build/arm/there: $(LOOPS) $(NATIVE) $(VENV)/installed
	mkdir -p build/arm
	$(BUILD) -std=c++20 -O3 -ffp-contract=off -Wall -Wextra -Icsrc -Icsrc/cpu \
		-isystem $$(python -c "import torch, pathlib; print(pathlib.Path(torch.__file__).parent)")/include $(LOOPS) -o $@

dist: $(VENV)/installed
	rm -rf dist
	python setup.py --quiet sdist
	python -m pip wheel --quiet --no-build-isolation --no-deps --wheel-dir dist dist/*.tar.gz

docs: $(VENV)/built
	python -m sphinx --fail-on-warning --keep-going --fresh-env --quiet docs build/docs
	@echo "build/docs/index.html"

# On a machine with a GPU, with the torch and the pytest that it has (docs/gpu.md): make gpu-check PART=tests COMMIT=1234abc
gpu-check:
	$(PYTHON) -m tests.gpu_check $(PART) $(if $(FOLDER),--folder $(FOLDER)) $(if $(COMMIT),--commit $(COMMIT))

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

$(VENV)/installed: requirements.txt requirements-test.txt
	$(PYTHON) -m venv $(VENV)
	python -m pip install --quiet -r requirements.txt
	touch $@

# Without dependencies: the file says why, and names them.
$(VENV)/mmdet: $(VENV)/installed requirements-mmdet.txt
	python -m pip install --quiet --no-deps -r requirements-mmdet.txt
	touch $@

$(VENV)/examples: $(VENV)/installed requirements-examples.txt
	python -m pip install --quiet --no-deps -r requirements-examples.txt
	touch $@

# Editable: changes of Python files need no new build, and changes of csrc rebuild what they touch.
$(VENV)/built: $(VENV)/installed $(NATIVE) setup.py pyproject.toml
	python -m pip install --quiet --no-build-isolation --no-deps --editable .
	python -m alrp_cuda
	touch $@

clean:
	rm -rf $(VENV) .other build dist *.egg-info alrp_cuda/*.so alrp_cuda/_C.torch
