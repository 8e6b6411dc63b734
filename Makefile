# What a fresh machine needs: Linux, Python 3.11 or newer with its venv module, make, git.
#
#   make demo [SOURCE=clip.mp4 | folder | 0 | rtsp://…] [OUT=demo-out]
#   make test [PYTEST_ARGS='-k bitstream']
#   make lab
#
# Every step leaves a stamp in .venv, so that a second run starts at once.

VENV := .venv
BIN := $(VENV)/bin
CLIP := .cache/demo/carphone_pristine.mp4

SOURCE ?= $(CLIP)
OUT ?= demo-out
PYTEST_ARGS ?=
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DELETE_ON_ERROR:
.PHONY: help demo test lab fuzz lint proto metrics dashboards lock sbom clean

help:
	@echo "make demo [SOURCE=…]  stream a clip, a folder of images, a camera (0) or a URL, and watch"
	@echo "make test             set up everything, torch included; check, lint and test"
	@echo "make lab              faults, poor lines and restarts, the long ones too; docs/lab.md"
	@echo "make fuzz [SECONDS=300 TARGETS=payload]  coverage-guided fuzzing; docs/integrity.md"
	@echo "make lint             ruff, mypy --strict and buf lint alone"
	@echo "make proto            regenerate the gRPC stubs under mien/v1"
	@echo "make metrics          regenerate docs/metrics.md from the code"
	@echo "make dashboards       regenerate Grafana's dashboards under deploy/grafana"
	@echo "make lock             pin by hash what images install: deploy/requirements"
	@echo "make sbom             bills of materials of the images, into build/sbom"
	@echo "make clean            remove .venv, caches and the demo's results"

demo: $(VENV)/.services $(if $(filter $(CLIP),$(SOURCE)),$(CLIP))
	@$(BIN)/mien demo --source '$(SOURCE)' --out '$(OUT)'

# A file's tests stay together: they share what takes long to make.
WORKERS ?= 2
test: lint $(CLIP)
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile $(PYTEST_ARGS)

lab: $(VENV)/.everything
	$(BIN)/python -m pytest tests/lab -m '' $(PYTEST_ARGS)

SECONDS ?= 300
TARGETS ?=
fuzz: $(VENV)/.everything
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(TARGETS)

lint: $(VENV)/.everything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/buf lint proto

proto: $(VENV)/.everything
	$(BIN)/python proto/generate.py

metrics: $(VENV)/.services
	$(BIN)/python docs/generate_metrics.py

dashboards: $(VENV)/.services
	$(BIN)/python deploy/grafana/generate.py

lock: $(VENV)/.everything
	$(BIN)/python deploy/lock.py

sbom: $(VENV)/.everything
	@mkdir -p build/sbom
	@for image in edge cloud cloud-gpu trainer; do \
		PATH="$(CURDIR)/$(BIN):$$PATH" sh deploy/requirements/bill $$image build/sbom/$$image.cdx.json \
			&& echo "build/sbom/$$image.cdx.json" || exit 1; \
	done

clean:
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis demo-out build *.egg-info

# Without PYTHON, the first of these that is new enough and can make a virtual environment.
PYTHON ?=
CANDIDATES := $(or $(PYTHON),python3 python3.13 python3.12 python3.11)
USABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))

$(VENV)/.made:
	@for python in $(CANDIDATES); do \
		if "$$python" -c '$(USABLE)' >/dev/null 2>&1; then \
			echo "Making $(VENV) with $$("$$python" --version)"; \
			"$$python" -m venv $(VENV) && touch $@; \
			exit $$?; \
		fi; \
	done; \
	echo "No Python 3.11 or newer with its venv module among: $(CANDIDATES)." >&2; \
	echo "Install one (on Debian and Ubuntu: apt install python3 python3-venv)," >&2; \
	echo "or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; \
	exit 1

# Edge, cloud and the command line; never torch.
$(VENV)/.services: $(VENV)/.made pyproject.toml
	@echo "Installing the edge and the cloud into $(VENV): about half a minute"
	@$(BIN)/python -m pip install --quiet --editable '.[edge,cloud,cli]'
	@touch $@

$(VENV)/.everything: $(VENV)/.made pyproject.toml
	@echo "Installing everything, torch included, into $(VENV): some minutes, 7 GB"
	@$(BIN)/python -m pip install --quiet --editable '.[edge,cloud,cli,trainer,dev]'
	@touch $(VENV)/.services $@

$(CLIP): deploy/demo_clip.py | $(VENV)/.made
	@$(BIN)/python deploy/demo_clip.py $@
