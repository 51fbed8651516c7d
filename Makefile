# Everything a developer runs. Each target does its own set-up.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PROTOS := $(wildcard proto/gateway/v1/*.proto)
CLIENT_PB := clients/python/trading_gateway_client/pb

.PHONY: run test check lint types imports migrations bench proto messages format clean
.DEFAULT_GOAL := run

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=/path/to/python3.11")'
	@echo "Making the virtual environment in $(VENV) (some seconds, once)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run-stamp: requirements.txt | $(BIN)/python
	@echo "Installing the packages the gateway runs on (a minute, once)"
	@$(BIN)/python -P gateway_project/install.py requirements.txt
	@touch $@

$(VENV)/.dev-stamp: requirements-dev.txt $(VENV)/.run-stamp
	@echo "Installing what the tests and checks need (a minute, once)"
	@$(BIN)/python -P gateway_project/install.py requirements-dev.txt
	@touch $@

$(VENV)/.bench-stamp: benchmarks/requirements.txt $(VENV)/.dev-stamp
	@echo "Installing what the measurements need (a minute, once)"
	@$(BIN)/python -P gateway_project/install.py benchmarks/requirements.txt
	@touch $@

# The whole product on this machine until Ctrl-C. GATEWAY_PORT moves it, GATEWAY_DEMO=0 leaves out the terminals.
run: $(VENV)/.run-stamp
	@echo "Starting"
	@exec $(BIN)/python manage.py demo

# Needs Java 17, Maven and Chromium for a real Kafka and a real browser; .ci/run installs them. Two files at a time.
test: $(VENV)/.dev-stamp
	$(BIN)/python -m pytest $(or $(ARGS),-n 2 --dist loadfile)

check: lint types imports migrations test

lint: $(VENV)/.dev-stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev-stamp
	$(BIN)/mypy .

imports: $(VENV)/.dev-stamp
	$(BIN)/lint-imports

migrations: $(VENV)/.dev-stamp
	$(BIN)/python manage.py makemigrations --check --dry-run

# Measures against the peers; ARGS='--quick' for a look. A real Kafka is started for it.
bench: $(VENV)/.bench-stamp
	$(BIN)/python -m benchmarks $(ARGS)

proto: $(VENV)/.dev-stamp
	$(BIN)/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. $(PROTOS)
	cp $(foreach part,control envelope payloads,$(wildcard proto/gateway/v1/$(part)_pb2.py*)) $(CLIENT_PB)/

# Gathers the texts of code and templates into locale/, then compiles. Translate the empty and fuzzy ones in between.
messages: $(VENV)/.dev-stamp
	@command -v xgettext >/dev/null || { echo "xgettext is missing: install gettext (apt-get install gettext)" >&2; exit 1; }
	$(BIN)/python manage.py makemessages --locale id --no-obsolete --no-wrap --add-location file \
		--ignore $(VENV) --ignore tests --ignore benchmarks --ignore clients
	$(BIN)/python manage.py compilemessages --locale id --ignore $(VENV)

format: $(VENV)/.dev-stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .run .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache staticfiles
