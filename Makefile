# Each target sets up .venv by itself; it needs Python >= 3.11 and make, nothing else.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# Two tests a core, 8 at most: most of them wait for something. A test that must not be disturbed is marked
# "alone"; those run at the end, one after the other.
SIDE_BY_SIDE := -n $(shell cores=$$(nproc); echo $$((cores > 4 ? 8 : 2 * cores)))
EXTRAS ?= dev
QUICK  := tests/chat_gevent/test_framing.py tests/chat_gevent/test_conversation.py tests/chat_gevent/test_confirm.py \
          tests/chat_gevent/test_handlers.py tests/chat_gevent/test_server.py tests/chat_gevent/test_settings.py \
          tests/benchmarks/judge tests/loadtest/test_framing.py

.PHONY: demo test quick coverage matrix matrix-short mutation docs pictures check audit licences format clean

demo: $(READY)  ## server, Locust, the thread-per-client server, and a comparison of the two
	@$(BIN)/python -m benchmarks demo

test: $(READY)  ## the whole test suite
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

quick: $(READY)  ## what a contributor runs before each commit: under a minute
	$(BIN)/python -m pytest -q $(SIDE_BY_SIDE) $(QUICK)

coverage: $(READY)  ## branch coverage of chat_gevent and loadtest, over the processes that tests start too
	$(BIN)/python -m pytest -q $(SIDE_BY_SIDE) --cov --cov-report=term:skip-covered

matrix: $(READY)  ## the wheel on Python 3.11 to 3.13, with the lowest and newest gevent and Locust, and each extra alone
	$(BIN)/python tests/packaging/matrix.py

matrix-short: $(READY)  ## what CI runs of it: three rows with fewer tests, under three minutes
	$(BIN)/python tests/packaging/matrix.py --short

mutation: $(READY)  ## whether the tests notice small changes of the code; most of an hour; GROUP=framing for one group
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt mutmut
	$(BIN)/python -m tests.mutation.run $(GROUP)

pictures: $(READY)  ## the pictures of README.md, from real runs; three minutes
	$(BIN)/python -m tests.documents.pictures

docs: $(READY)  ## API pages from the docstrings, in build/docs
	$(BIN)/python tests/documents/api_pages.py build/docs

check: $(READY)  ## lint, format, types, and which package imports which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

audit: $(READY)  ## known vulnerabilities of all that is installed; it asks PyPI, and says where it can't
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt pip-audit
	@$(BIN)/python .ci/audit

licences: $(READY)  ## every package that is installed, with its licence
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt pip-licenses
	@$(BIN)/pip-licenses --from=mixed --order=license --with-urls --ignore-packages chat-gevent

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist

$(READY): pyproject.toml constraints.txt
	@echo "setting up $(VENV) with pip: a minute or two, without a word"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@
