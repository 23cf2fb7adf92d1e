# make help says what there is. PYTHON, TORCH_INDEX, SOURCE, PRESET, CONFIG, RUN, SET, STORE, FAULTS, SEED and ARGS can be given.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
RUN_PYTHON := $(VENV)/bin/python
FAULTS ?= 60
SEED ?= 1

# The user's words travel as environment variables: no shell reads them a second time.
export PCAM_MAKE_SOURCE := $(SOURCE)
export PCAM_MAKE_PRESET := $(PRESET)
export PCAM_MAKE_CONFIG := $(CONFIG)
export PCAM_MAKE_RUN := $(RUN)
export PCAM_MAKE_SET := $(SET)
export PCAM_MAKE_STORE := $(STORE)

.DEFAULT_GOAL := help
.PHONY: help setup train test test-all test-slow test-s3 test-container chaos chaos-short soak up down clean FORCE

help:  ## show this
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "make %-14s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "make train SOURCE=sample|kaggle|PATH PRESET=sample|quick|pcam|recipe CONFIG=FILE.yaml RUN=NAME SET='finetune.epochs=3 seed=4' STORE=URI"
	@echo "TORCH_INDEX=ADDRESS takes torch and torchvision from another wheel index, PYTHON=python3.12 another Python"

setup: $(STAMP)  ## make .venv with everything

train: $(STAMP)  ## train, score and publish a model on a local Prefect (about 5 minutes on two cores, after setup)
	@$(RUN_PYTHON) -m deployments.local train

test: $(STAMP)  ## run the tests but for the slow ones (about 8 minutes on two cores; ARGS='-k words' for some)
	@$(RUN_PYTHON) -m pytest -n 2 --dist loadfile -m 'not slow' --durations 10 $(ARGS)

test-all: $(STAMP)  ## run every test, the slow campaigns too (an hour on two cores)
	@$(RUN_PYTHON) -m pytest -n 2 --dist loadfile --durations 10 $(ARGS)

test-slow: $(STAMP)  ## run the slow tests alone: real servers, kills, long simulations (half an hour)
	@$(RUN_PYTHON) -m pytest -n 2 --dist loadfile -m slow --durations 10 $(ARGS)

test-s3: $(STAMP)  ## run the store's tests on a real S3 server (see tests/with_s3.py)
	@$(RUN_PYTHON) tests/with_s3.py $(ARGS)

test-container: $(STAMP)  ## build the image and run the flow in it (needs a Docker engine; best with PostgreSQL and S3)
	@PCAM_TEST_CONTAINER=1 $(RUN_PYTHON) tests/with_s3.py --or-without -m container $(ARGS)

chaos: $(STAMP)  ## break runs on purpose and see that they survive: FAULTS=60 SEED=1 (about 40 s a fault)
	@$(RUN_PYTHON) -m benchmarks.chaos --faults $(FAULTS) --seed $(SEED) $(ARGS)

chaos-short: $(STAMP)  ## the same for five minutes, without a result file
	@$(RUN_PYTHON) -m benchmarks.chaos --minutes 5 --seed $(SEED) --no-result $(ARGS)

soak: $(STAMP)  ## many runs in one process and many retrainings on one server: what grows (an hour; ARGS='--runs 5 --retrains 20')
	@$(RUN_PYTHON) -m benchmarks.soak $(ARGS)

up: $(STAMP)  ## start the local Prefect and leave it running
	@$(RUN_PYTHON) -m deployments.local up

down:  ## stop it
	@if [ -x $(RUN_PYTHON) ]; then $(RUN_PYTHON) -m deployments.local down; fi

clean: down  ## remove .venv, caches, logs and Prefect's history; the store with its models stays
	@rm -rf $(VENV) .pcam/prefect .pcam/stack .pcam/logs *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@if [ -d .pcam ]; then echo "Kept: .pcam/store (trained models)"; fi

# Another index than last time asks for another installation; none given means the one of last time.
ifneq ($(TORCH_INDEX),)
ifneq ($(TORCH_INDEX),$(shell cat $(VENV)/.torch-index 2>/dev/null))
$(STAMP): FORCE
endif
endif
$(STAMP): pyproject.toml requirements.lock deployments/setup.sh
	@PYTHON='$(PYTHON)' VENV='$(VENV)' TORCH_INDEX='$(TORCH_INDEX)' sh deployments/setup.sh
	@touch $@
