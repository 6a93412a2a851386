PYTHON ?= python3
BIN := .venv/bin

.PHONY: help train pretrained demo evidence test slow gpu lint clean

help:
	@echo "make train   make .venv, install, train the default experiment on the built-in data"
	@echo "make pretrained  a backbone from built-in pictures, once; budget=cpu begins from it"
	@echo "make demo    a small ablation on the built-in data, two necks x two box losses x two seeds, and its report"
	@echo "make evidence  the questions of docs/evidence/claims.yaml, hours of one core; goes on where it stopped (BCCD=PATH adds photographs)"
	@echo "make test    make .venv, install, check style and types, run the tests"
	@echo "make slow    the tests that make test leaves out"
	@echo "make gpu     the tests that need a CUDA GPU"
	@echo "make clean   remove .venv and caches (outputs/ stays)"

.venv/installed: pyproject.toml
	$(PYTHON) -c "import sys; sys.exit('Python 3.11 to 3.13 is needed: make PYTHON=python3.12' if not (3, 11) <= sys.version_info < (3, 14) else 0)"
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

train: .venv/installed
	$(BIN)/detlab train experiment=shapes

pretrained: .venv/installed
	$(BIN)/detlab pretrain

# The same command again goes on where it was interrupted; the last line names the page to open.
demo: .venv/installed
	$(BIN)/detlab train -m model=retinanet budget=cpu data.batch_size=4 model/neck=none,fpn_small model/box_loss=smooth_l1,giou seed=0,1 \
	  hydra.launcher.n_jobs=2 hydra.sweep.dir=outputs/sweeps/demo
	$(BIN)/detlab report outputs/sweeps/demo title="Two necks, two box losses"

# Answers to the papers' questions, and docs/evidence.md.
evidence: pretrained
	$(BIN)/detlab pretrain model/backbone=resnet34
	$(BIN)/detlab evidence docs/evidence $(if $(BCCD),bccd=$(BCCD))

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# One process a core, each with one thread; a file's tests share what they train.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# What make test leaves out; .ci/run has a part of it.
slow: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n auto --dist loadfile

# Skipped where torch sees no GPU.
gpu: .venv/installed-dev
	$(BIN)/python -m pytest -m gpu -n 4

clean:
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache
