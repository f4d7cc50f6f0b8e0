# Everything runs from .venv; nothing is installed outside this folder.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OHLCV ?=
SYMBOL ?=
DEMO_BARS ?=
BENCH ?=
SOAK_SECONDS ?= 600
CONFIG ?=
PEER := build/mlserver

.DEFAULT_GOAL := help

.PHONY: help
help:  ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(STAMP)  ## make .venv with everything that is pinned in constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; this is " + sys.version.split()[0] + ". Name another with make PYTHON=python3.12 setup") if sys.version_info < (3, 11) else None'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "This Python has no ensurepip; on Debian: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

.PHONY: demo
demo: setup  ## train, promote, serve, trade on paper; OHLCV=file SYMBOL=name DEMO_BARS=n
	@$(BIN)/signalserve demo $(if $(OHLCV),--ohlcv '$(OHLCV)') $(if $(SYMBOL),--symbol '$(SYMBOL)') $(if $(DEMO_BARS),--bars '$(DEMO_BARS)')

.PHONY: lab
lab: setup  ## open ML Lab, the web pages, on the configured registry; CONFIG=file, such as outputs/demo/system.yml
	@$(BIN)/signalserve lab $(if $(CONFIG),--config '$(CONFIG)')

.PHONY: test
test: setup  ## run every test
	$(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: screenshots
screenshots: setup  ## photograph every page of a running lab into outputs/screenshots; LAB=address
	$(BIN)/python -m tests.lab.pages.screenshots $(or $(LAB),http://127.0.0.1:8080) outputs/screenshots

.PHONY: check
check: setup  ## format, lint, types, import directions, protos
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@mkdir -p build
	$(BIN)/python scripts/generate_protos.py --image build/protos.binpb
	$(BIN)/buf lint build/protos.binpb --config buf.yaml
	$(BIN)/python scripts/generate_protos.py --check

.PHONY: format
format: setup  ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: protos
protos: setup  ## generate signalserve/v1 from protos/
	$(BIN)/python scripts/generate_protos.py

.PHONY: bench
bench: setup $(PEER)/.installed  ## measure, as ratios against peers in the same run; BENCH=serving, loop, access, lab, retrain, registry or gate for a part
	$(BIN)/python -m benchmarks $(if $(BENCH),--only $(BENCH))

.PHONY: soak
soak: setup  ## ten minutes of load while loads hang, files are spoilt and workers die; SOAK_SECONDS=600
	$(BIN)/python -m benchmarks.soak --seconds $(SOAK_SECONDS)

# MLServer wants an older protobuf, so it has an environment of its own; the benchmark does without it too
$(PEER)/.installed: benchmarks/mlserver.txt
	@$(PYTHON) -m venv $(PEER)
	@$(PEER)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $< \
		&& touch $@ || { rm -rf $(PEER); echo "MLServer can't be installed here; its lines will be missing"; }

.PHONY: pin
pin: setup  ## renew the pinned versions (needs uv on the PATH)
	uv pip compile --quiet --upgrade --universal --python-version 3.11 --extra dev --extra lab --extra bench --extra cluster \
		--generate-hashes --no-emit-index-url --no-header --no-annotate -o constraints.txt pyproject.toml
	uv pip compile --quiet --universal --python-version 3.11 --extra lab --constraint constraints.txt \
		--no-emit-package nvidia-nccl-cu12 --no-emit-package nvidia-nccl-cu13 \
		--generate-hashes --no-emit-index-url --no-header --no-annotate -o deploy/requirements.txt pyproject.toml
	uv pip compile --quiet --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --no-annotate -o benchmarks/mlserver.txt benchmarks/mlserver.in

.PHONY: wheel
wheel: setup  ## build the wheels into dist/: signalserve, and its client alone
	@rm -rf build/lib deploy/client/build  # setuptools would pack what an earlier build left there
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation -w dist . ./deploy/client

.PHONY: docker
docker:  ## build the image (needs a Docker engine)
	docker build -t signalserve .

.PHONY: clean
clean:  ## remove .venv, caches and build output; outputs/ stays
	rm -rf $(VENV) build dist *.egg-info deploy/client/build deploy/client/*.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
