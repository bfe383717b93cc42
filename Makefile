# `make demo` and `make test` need Python 3.11 and a package index, nothing else.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
MODEL := .cache/smollm2-135m-instruct
# One thread per worker process; spinning OpenMP threads are ten times slower when all cores work.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE
export RAY_TRAIN_ENABLE_STATE_TRACKING ?= 0
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test test-slow check bench clean

$(READY): pyproject.toml constraints.txt
	@echo "setting up $(VENV): some minutes of downloads, once"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[run,demo,dev]'
	touch $@

$(MODEL)/model.safetensors: | $(READY)
	$(BIN)/python jobs/prepare_smollm2.py $(MODEL)

demo: $(READY) $(MODEL)/model.safetensors
	$(BIN)/taskeff calibrate -c configs/demo.yaml
	@echo "open results/demo/report.html"

test: $(READY)
	$(BIN)/python -m pytest -q -m "not slow and not gpu"

test-slow: $(READY)
	$(BIN)/python -m pytest -q -m "slow and not gpu"

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: $(READY) $(MODEL)/model.safetensors
	$(BIN)/python benchmarks/gradients.py
	$(BIN)/python benchmarks/confidence.py
	$(BIN)/python benchmarks/training.py

clean:
	rm -rf $(VENV) .cache results
