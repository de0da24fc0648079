# make demo | test | test-slow | test-soak | test-targets | lint | bench | mutation: each makes its
# .venv itself when it is missing or stale.
PYTHON ?= python3
BIN := .venv/bin
TARGETS_BIN := .venv-targets/bin
DEMO_RUN ?= runs/demo
DEMO_FLAGS ?=
MUTATION_FLAGS ?=

.PHONY: docs demo test test-slow test-soak test-targets test-install lint format bench mutation

demo: .venv/installed
	$(BIN)/python -m tfds_pancreas.build --dataset=phantom_ct/demo --data_dir=data
	$(BIN)/python -m attn_unet_jax.main --config=experiments/pancreas.py:phantom \
	  --workdir=$(DEMO_RUN) $(DEMO_FLAGS)

# In the order of tests/conftest.py, the longest files first.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: .venv/installed-dev
	$(PYTEST)

test-slow: .venv/installed-dev
	$(PYTEST) -m slow

test-soak: .venv/installed-dev
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

lint: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Pages of docs/reference that the program itself writes.
docs: .venv/installed-dev
	$(BIN)/python docs/generate_reference.py

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/installed-bench
	$(BIN)/python -m benchmarks.network_speed --torch=torch_channels_last,torch_compiled --output=benchmarks/results/network_speed.json
	$(BIN)/python -m benchmarks.build_speed --output=benchmarks/results/build_speed.json
	$(BIN)/python -m tfds_pancreas.build --dataset=phantom_ct/demo --data_dir=data
	$(BIN)/python -m benchmarks.phantom_difficulty --data_dir=data

# Hours for all modules; MUTATION_FLAGS='--only losses/dice.py --sample=20' is one of them.
mutation: .venv/installed-mutation
	JAX_PLATFORMS=cpu $(BIN)/python -m benchmarks.mutation --output=benchmarks/results/mutation.json $(MUTATION_FLAGS)

.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed; make PYTHON=python3.12 ...")'
	@echo 'installing requirements.txt into .venv'
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	@touch $@

.venv/installed-dev: .venv/installed pyproject.toml setup.py
	@echo "installing the extra 'dev' into .venv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

.venv/installed-bench: .venv/installed-dev
	@echo "installing the extra 'bench' (PyTorch, to compare with) into .venv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

.venv/installed-mutation: .venv/installed-dev
	@echo "installing the extra 'mutation' (Cosmic Ray) into .venv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[mutation]'
	@touch $@

.venv-targets/installed: requirements.txt pyproject.toml setup.py
	@echo "installing the extras 'dev', 'cuda' and 'tpu' into .venv-targets: 6 GB"
	@$(PYTHON) -m venv .venv-targets
	@$(TARGETS_BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,cuda,tpu]'
	@touch $@
