# `make run` and `make test` need Python >= 3.11 and make, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: run test format check bench gpu-check clean
.DEFAULT_GOAL := run

run: $(VENV)/run.stamp
	$(BIN)/sslbench run dino --arch deit_s16 $(ARGS)

test: $(VENV)/test.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

format: $(VENV)/dev.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy ssl_bench plugins
	$(BIN)/sslbench table --check

# What speed claims rest on: ratios against peers, measured in one run. Writes results/performance.md and .json.
bench: $(VENV)/test.stamp
	$(BIN)/python -m benchmarks.performance $(ARGS)

# On a machine with a CUDA device, in under 10 minutes; without one it says so. Writes results/gpu/DEVICE.md and .json.
gpu-check: $(VENV)/test.stamp
	$(BIN)/python -m benchmarks.gpu_check $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "sslbench needs Python >= 3.11; $(PYTHON) is $$($(PYTHON) --version). Try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -e '.[cpu]'
	@touch $@

$(VENV)/test.stamp: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -e '.[cpu,test]'
	@touch $@ $(VENV)/run.stamp

$(VENV)/dev.stamp: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -e '.[cpu,dev]'
	@touch $@ $(VENV)/run.stamp $(VENV)/test.stamp
