# make help lists what there is. Everything happens in .venv; nothing else on the machine changes.
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help demo demo-gcp gcp up test nightly simulate chaos chaos-gcp load mutate audit upgrade check format bench soak lock clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/.runtime ## play the whole story on a stack of its own (no set-up needed)
	@$(BIN)/ggen demo

demo-gcp: .venv/.dev ## the same story on the Firestore, Pub/Sub and Cloud Storage emulators
	@$(BIN)/python -m cli.stack.emulators $(BIN)/ggen demo

gcp: .venv/.gcp ## install Google's clients, for firestore://, pubsub:// and gs:// stores

up: .venv/.runtime ## start the stack and stay; Ctrl-C stops it
	@$(BIN)/ggen up

test: .venv/.dev ## every test, on real Valkey, SQLite and workers
	@$(BIN)/python -m pytest -n 3 --dist=loadfile -m "not alone" --durations=20 \
	  --junitxml=.cache/tests.xml
	@$(BIN)/python -m pytest -m alone --durations=20 --junitxml=.cache/alone.xml
	@$(BIN)/python tests/done.py .cache/tests.xml .cache/alone.xml

nightly: .venv/.dev ## every test in every way, and a short soak (about an hour)
	@$(BIN)/python -m pytest --thorough --durations=20
	@$(BIN)/python -m bench.chaos.soak --fast 9 --real 1 --quiet 2
	@$(MAKE) simulate SEEDS=10000
	@$(MAKE) chaos MINUTES=10
	@$(MAKE) chaos-gcp MINUTES=10
	@$(MAKE) mutate
	@$(MAKE) audit

chaos: .venv/.runtime ## random kills, stops, losses and floods on a real stack; MINUTES=30 SEED=4
	@$(BIN)/python -m bench.chaos.chaos --minutes $(or $(MINUTES),30) --seed $(or $(SEED),4) \
	  --fill-disk

chaos-gcp: .venv/.dev ## the same on the emulators, with a second host behind a network that is cut
	@$(BIN)/python -m cli.stack.emulators $(BIN)/python -m bench.chaos.chaos \
	  --minutes $(or $(MINUTES),30) --seed $(or $(SEED),4) --fill-disk

load: .venv/.runtime ## arrivals at rising rates, and a burst: latency, refusals, the knee; RATES=25,50,100
	@$(BIN)/python -m bench.arrivals --rates $(or $(RATES),25,50,100,200) --folder docs/performance

simulate: .venv/.dev ## play 500 worlds under every fault, by seed; SEEDS=10000, or SEED=7 to replay one
	@PYTHONHASHSEED=0 $(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),500) \
	  $(if $(SEED),--seed $(SEED)) $(if $(BUG),--bug $(BUG))

mutate: .venv/.mutation/bin/mutmut ## change the compatibility checker, and see whether a test notices
	@$(BIN)/python tests/mutation.py .venv/.mutation/bin/mutmut

.venv/.mutation/bin/mutmut: requirements-mutation.lock | .venv/.dev
	@$(BIN)/python -m venv .venv/.mutation
	@.venv/.mutation/bin/pip install -q --require-hashes -r requirements-mutation.lock

audit: .venv/.audit/bin/pip-audit ## look up known vulnerabilities of every locked package; fuzz every parser
	@$(BIN)/python tests/audit.py .venv/.audit/bin/pip-audit requirements.lock requirements-gcp.lock
	@$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),300)

.venv/.audit/bin/pip-audit: requirements-audit.lock | .venv/.dev
	@$(BIN)/python -m venv .venv/.audit
	@.venv/.audit/bin/pip install -q --require-hashes -r requirements-audit.lock

upgrade: .venv/.dev ## from release 0.1.0 to this one with work in flight, and back by a copy
	@$(BIN)/python -m pytest --thorough tests/stack/test_upgrade.py

check: .venv/.dev ## format, lint, types, import rules, fast tests: what pre-commit runs too
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/hadolint Dockerfile
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker-compose.yml
	@$(BIN)/coverage run -m pytest -q -m pure
	@$(BIN)/coverage report --include='governor/*' --fail-under=100 --skip-covered

format: .venv/.dev ## format and mend what can be mended
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --fix --quiet .

bench: .venv/.runtime ## measure this machine against the bars
	@$(BIN)/ggen bench

soak: .venv/.runtime ## outages under load, and half an hour without any (about an hour)
	@$(BIN)/python -m bench.chaos.soak

lock: ## resolve the dependencies anew (needs uv)
	uv pip compile --universal --generate-hashes --python-version 3.11 --no-emit-index-url \
	  --no-header --quiet --extra build pyproject.toml -o requirements.lock
	uv pip compile --universal --generate-hashes --python-version 3.11 --no-emit-index-url \
	  --no-header --quiet --extra build --extra gcp --extra otel -c requirements.lock pyproject.toml \
	  -o requirements-gcp.lock
	uv pip compile --universal --generate-hashes --python-version 3.11 --no-emit-index-url \
	  --no-header --quiet --extra build --extra gcp --extra otel --extra dev -c requirements-gcp.lock \
	  pyproject.toml -o requirements-dev.lock
	uv pip compile --universal --generate-hashes --python-version 3.11 --no-emit-index-url \
	  --no-header --quiet --extra mutation -c requirements-dev.lock pyproject.toml \
	  -o requirements-mutation.lock
	uv pip compile --universal --generate-hashes --python-version 3.11 --no-emit-index-url \
	  --no-header --quiet --extra audit -c requirements-dev.lock pyproject.toml \
	  -o requirements-audit.lock

clean: ## remove .venv and caches; never .ggen, which is data
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "ggen needs Python 3.11, 3.12 or 3.13; name one with: make PYTHON=python3.12 …"; exit 2; }
	@$(PYTHON) -m venv .venv

.venv/.runtime: requirements.lock pyproject.toml | .venv/bin/python
	@echo "installing locked dependencies into .venv (about a minute the first time)…" >&2
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

.venv/.gcp: requirements-gcp.lock .venv/.runtime
	@echo "installing Google's clients…" >&2
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements-gcp.lock
	@touch $@

.venv/.dev: requirements-dev.lock .venv/.runtime
	@echo "installing the test tools…" >&2
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.lock
	@touch $@
