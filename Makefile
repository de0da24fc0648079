# make demo | test | test-slow | test-all | test-soak | test-targets | lint | bench | bench-quick | mutation: each makes its
# .venv itself when it is missing or stale, with the versions of the locks, by their hashes.
# `make LOCKED= ...` takes the newest that requirements.txt and pyproject.toml allow; the names of the
# stamps say which of both lies in a .venv.
LOCKED ?= yes
MODE := $(if $(LOCKED),,-unlocked)
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# For test-oldest and test-newest: the ends of what requirements.txt and pyproject.toml allow.
OLDEST_VENV ?= $(CURDIR)/.venv-oldest
NEWEST_VENV ?= $(CURDIR)/.venv-newest
OLDEST ?= 3.11
NEWEST ?= 3.14 3.13 3.12
TARGETS_BIN := .venv-targets/bin
DEMO_RUN ?= runs/demo
DEMO_FLAGS ?=
SLABS ?= ../shared/data/msd07_slabs
SLAB ?= msd_138
MUTATION_FLAGS ?=

.PHONY: docs demo test test-slow test-all test-soak test-targets test-install lint format bench bench-quick bench-more bench-engine mutation
.PHONY: install-native install-native-oldest native-races
.PHONY: browser archive pictures lock audit install-bench install-bench-oldest install-targets test-oldest test-all-oldest test-newest

demo: $(VENV)/installed$(MODE)
	$(BIN)/python -m tfds_pancreas.build --dataset=phantom_ct/demo --data_dir=data
	$(BIN)/python -m attn_unet_jax.main --config=experiments/pancreas.py:phantom \
	  --workdir=$(DEMO_RUN) $(DEMO_FLAGS)

# In the order of tests/conftest.py, the longest files first. Bytecode is kept whatever the environment
# says: else each worker, and each process that a test starts, compiles all modules again.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: $(VENV)/installed-dev$(MODE)
	$(PYTEST)

test-slow: $(VENV)/installed-dev$(MODE)
	$(PYTEST) -m 'slow and not soak'

# Both in one go: neither waits for the other's last file, and each finds what the other compiled.
test-all: $(VENV)/installed-dev$(MODE)
	$(PYTEST) -m 'not soak and not targets'

test-soak: $(VENV)/installed-dev$(MODE)
	$(BIN)/python -m pytest -n 2 --dist load -m soak

# In a .venv of its own: beside JAX's CUDA plugin every program that finds no GPU says so.
test-targets: .venv-targets/installed
	JAX_PLATFORMS=cpu $(TARGETS_BIN)/python -m pytest -n 2 --dist load -m targets

# The package as `pip install .` makes it, in an environment of its own and with no clone around.
test-install:
	@rm -rf .venv-install
	@$(PYTHON) -m venv .venv-install
	@.venv-install/bin/python -m pip install --quiet --disable-pip-version-check .
	@rm -rf build *.egg-info
	du -sh .venv-install
	.venv-install/bin/python -I tests/installed.py

# For tests/drawing/test_browser.py, which is skipped without one. From Debian: 80 MB to load, 290 MB
# installed, and what it needs.
browser:
	@command -v chromium || command -v google-chrome || command -v google-chrome-stable || \
	  { timeout 120 apt-get update --quiet=2 && DEBIAN_FRONTEND=noninteractive timeout 300 apt-get install --quiet=2 --yes --no-install-recommends chromium; } \
	    </dev/null >/dev/null 2>&1 || \
	  echo 'browser: Chromium cannot be installed here; the test of pages in a browser is skipped'

# For tests/serving/test_archive.py, of which one test is skipped without it. From Debian: 54 MB. As at
# runlevel 1, so that no server is started where it is installed.
archive:
	@command -v Orthanc || test -x /usr/sbin/Orthanc || \
	  { timeout 120 apt-get update --quiet=2 && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive timeout 300 apt-get install --quiet=2 --yes --no-install-recommends orthanc-dicomweb; } \
	    </dev/null >/dev/null 2>&1 || \
	  echo 'archive: Orthanc cannot be installed here; the test against a DICOM archive is skipped'

lint: $(VENV)/installed-dev$(MODE)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Pages of docs/reference that the program itself writes.
docs: $(VENV)/installed-dev$(MODE)
	$(BIN)/python docs/generate_reference.py

# The pictures of the pages: of the demo's run, which `make demo` has trained, and of a slab of real CT,
# a test patient of the bundled network.
pictures: $(VENV)/installed-dev$(MODE) browser
	$(BIN)/python -m attn_unet_jax.report --workdir=$(DEMO_RUN) --attention
	$(BIN)/python docs/take_pictures.py $(DEMO_RUN)/report.html docs/images
	cp $(DEMO_RUN)/curves.png docs/images/curves.png
	@if test -d $(SLABS); then \
	  $(BIN)/python docs/draw_attention.py $(SLABS) $(SLAB) docs/images/attention.png; \
	else \
	  echo 'pictures: no slabs of real CT in $(SLABS); attention.png stays as it is (SLABS=FOLDER names another)'; \
	fi

# After a change of requirements.txt or of the extra 'dev', or for newer versions: the two locks for
# all Pythons, and the bill of materials of what runs. No address of an index goes into them.
lock: .venv-lock/installed
	$(LOCK) requirements.txt pyproject.toml --extra dev --output-file requirements-dev.lock
	$(LOCK) requirements.txt --constraint requirements-dev.lock --output-file requirements.lock
	$(MAKE) sbom.cdx.json

LOCK := .venv-lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
  --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links

sbom.cdx.json: requirements.lock $(VENV)/installed$(MODE) .venv-lock/installed
	.venv-lock/bin/python .ci/write_sbom.py $(VENV) $@

audit: .venv-lock/installed
	.venv-lock/bin/python .ci/audit.py requirements-dev.lock

format: $(VENV)/installed-dev$(MODE)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Ours against the peers on this machine, which should be idle; the tables go into the page of speed.
bench: $(VENV)/installed-bench$(MODE)
	$(BIN)/python -m benchmarks.peers.compare --output=benchmarks/results/peers.json --page=docs/explanation/speed.md

bench-quick: $(VENV)/installed-bench$(MODE)
	$(BIN)/python -m benchmarks.peers.compare --quick --repeats=5 --output=runs/peers/quick.json

# XLA's own convolution beside ours; how long records take; how hard the phantoms are.
bench-more: $(VENV)/installed-bench$(MODE)
	$(BIN)/python -m benchmarks.network_speed --torch=torch_channels_last,torch_compiled --output=benchmarks/results/network_speed.json
	$(BIN)/python -m benchmarks.build_speed --output=benchmarks/results/build_speed.json
	$(BIN)/python -m tfds_pancreas.build --dataset=phantom_ct/demo --data_dir=data
	$(BIN)/python -m benchmarks.phantom_difficulty --data_dir=data

# What predict --engine compares: OpenVINO, JAX and, where the extra bench is, PyTorch.
bench-engine: $(VENV)/installed-dev$(MODE)
	$(BIN)/python -m benchmarks.engines --output=benchmarks/results/engines.json

# Hours for all modules; MUTATION_FLAGS='--only losses/dice.py --sample=20' is one of them.
mutation: $(VENV)/installed-mutation$(MODE)
	JAX_PLATFORMS=cpu $(BIN)/python -m benchmarks.mutation --output=benchmarks/results/mutation.json $(MUTATION_FLAGS)

# On the oldest Python, with every dependency at its lower bound.
install-bench-oldest install-native-oldest test-oldest test-all-oldest: %-oldest: $(OLDEST_VENV)/lower_bounds.txt
	PIP_CONSTRAINT=$< $(MAKE) $* LOCKED= VENV=$(OLDEST_VENV) PYTHON="$$(.ci/find_python $(OLDEST))"

# On the newest Python that is here: JAX's later releases leave Python 3.11 behind.
test-newest:
	@if python=$$(.ci/find_python $(NEWEST) 2>/dev/null); then \
	  $(MAKE) test VENV=$(NEWEST_VENV) PYTHON="$$python"; \
	else \
	  echo '$@: skipped, for want of a Python of these: $(NEWEST)'; \
	fi

install-bench: $(VENV)/installed-bench$(MODE)

install-targets: .venv-targets/installed

# oneDNN's convolutions for model.conv=onednn. Needs a C++ compiler; the rest comes from PyPI: 160 MB.
install-native: $(VENV)/installed-dev$(MODE)
	@command -v c++ >/dev/null || command -v g++ >/dev/null || \
	  { echo 'error: install-native: there is no C++ compiler; install g++' >&2; exit 2; }
	@$(PIP_INSTALL) ./native

# The calls of many threads, watched by the thread sanitizer. Its view ends at OpenMP, so one thread there.
native-races: install-native
	@$(PIP_INSTALL) onednn-devel-cpu-gomp==2023.2.0
	g++ -std=c++17 -O1 -g -fsanitize=thread -Inative/src -isystem $(VENV)/include \
	  native/tests/drive_threads.cc native/src/convolution.cc -o $(VENV)/drive_threads \
	  -L$(VENV)/lib -l:libdnnl.so.3 -Wl,-rpath,$(abspath $(VENV))/lib -pthread
	OMP_NUM_THREADS=1 TSAN_OPTIONS=halt_on_error=1 $(VENV)/drive_threads

$(OLDEST_VENV)/lower_bounds.txt: requirements.txt pyproject.toml .ci/lower_bounds.py
	@mkdir -p $(OLDEST_VENV)
	@"$$(.ci/find_python $(OLDEST))" .ci/lower_bounds.py > $@

PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

$(VENV)/installed$(MODE): requirements.txt requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed; make PYTHON=python3.12 ...")'
	@echo 'installing $(if $(LOCKED),requirements.lock,requirements.txt) into $(VENV)'
	@$(PYTHON) -m venv $(VENV)
	@rm -f $(VENV)/installed*
	@$(PIP_INSTALL) $(if $(LOCKED),--require-hashes --requirement requirements.lock,--upgrade --requirement requirements.txt)
	@touch $@

$(VENV)/installed-dev$(MODE): $(VENV)/installed$(MODE) pyproject.toml setup.py requirements-dev.lock
	@echo "installing the extra 'dev' into $(VENV)"
	@$(if $(LOCKED),$(PIP_INSTALL) --require-hashes --requirement requirements-dev.lock)
	@$(PIP_INSTALL) $(if $(LOCKED),--no-deps --no-build-isolation --editable .,--upgrade --editable '.[dev]')
	@touch $@

$(VENV)/installed-bench$(MODE): $(VENV)/installed-dev$(MODE)
	@echo "installing the extra 'bench' (PyTorch and MONAI, to compare with) into $(VENV)"
	@$(PIP_INSTALL) --editable '.[bench]'
	@touch $@

$(VENV)/installed-mutation$(MODE): $(VENV)/installed-dev$(MODE)
	@echo "installing the extra 'mutation' (Cosmic Ray) into $(VENV)"
	@$(PIP_INSTALL) --editable '.[mutation]'
	@touch $@

.venv-lock/installed: .ci/lock_tools.txt
	@$(PYTHON) -m venv .venv-lock
	@.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

.venv-targets/installed: requirements.txt pyproject.toml setup.py
	@echo "installing the extras 'dev', 'cuda' and 'tpu' into .venv-targets: 6 GB"
	@$(PYTHON) -m venv .venv-targets
	@$(TARGETS_BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,cuda,tpu]'
	@touch $@
