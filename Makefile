# make demo   the main job: a coordinator and eight devices on this machine
# make test   the tests
# make demo-app   the phone app in a window, beside a coordinator
# make test-full   the same, and what takes minutes
# make test-android   the app on Android's real framework code, every level from 26 to 36: fetches some 2 GB by Maven
# make campaign   federations under faults: CAMPAIGN="--seeds 300:2000 --minutes 10" says which
# make lint   style, types and layers
# make coverage   which lines and branches of coordinator and SDK the tests reach, in build/coverage
# make mutants   what share of small changes in the code the unit tests notice
# make fuzz   every parser of a peer's bytes under a coverage-guided fuzzer: Linux on x86-64 only
# make sanitizers   the native runtime under AddressSanitizer and UndefinedBehaviourSanitizer, with damaged programs
# make chaos   a coordinator and devices as processes under faults, for ten minutes
# make docs   the documentation as a site, in build/site
# Each sets up what it needs, in .venv, with the first fit Python of the PATH (3.11 to 3.14) or with PYTHON=/path/to/python3.

VENV := .venv
BIN := $(VENV)/bin
PIP_OPTIONS := --quiet --disable-pip-version-check

.PHONY: demo demo-app apk test test-full test-android campaign coverage mutants fuzz sanitizers chaos lint docs setup native clean

demo: setup
	$(BIN)/ftte demo

# The phone app in a window, beside a coordinator and three other devices.
demo-app: setup
	$(BIN)/python android_demo/desktop.py

# The app for phones: needs buildozer and what it downloads, the Android SDK and NDK among it (some 10 GB).
apk:
	$$(scripts/find_python.sh) android_demo/package/stage.py
	cd android_demo && buildozer android debug

# Two processes: a file's tests stay together.
test: setup
	$(BIN)/pytest -n 2 --dist loadfile

# Every task of the zoo in the native runtime: about a quarter of an hour.
test-full: setup
	$(BIN)/pytest -m ""

# Levels: FTTE_ANDROID_LEVELS="26 35" for those alone. What was fetched is kept in ~/.cache/ftte/android-framework.
test-android: export FTTE_ANDROID_LEVELS ?= all
test-android: setup
	$(BIN)/python -m tests.android.framework.parts
	$(BIN)/pytest -q tests/android

# Federations under faults, one a seed; the tests run the first 300.
CAMPAIGN ?= --seeds 300:2000 --minutes 20
campaign: setup
	$(BIN)/python -m tests.campaign $(CAMPAIGN)

# The processes that tests start are measured, too; those that are killed in a test are not. Less than COVERAGE_LEAST
# percent of lines and branches fails: raise it to what is there.
COVERAGE_LEAST := 55
coverage: setup
	$(BIN)/pytest -n 2 --dist loadfile --cov --cov-report=term --cov-report=html --cov-fail-under=$(COVERAGE_LEAST)

# A sample of 25 changes per room: MUTANTS="--sample 40 --seed 7 --room coordinator/store" draws another.
mutants: setup
	$(BIN)/python -m scripts.mutants --keep build/mutants $(MUTANTS)

# Each target in turn: FUZZ="--runs 10000000" for more, FUZZ="--seconds 60" for a limit of time.
fuzz: setup
	$(BIN)/pip install $(PIP_OPTIONS) -e ".[fuzz]" --no-build-isolation
	$(BIN)/python -m tests.fuzz all $(or $(FUZZ),--runs 200000)

sanitizers: setup
	$(BIN)/python -m tests.sanitizers $(or $(SANITIZERS),--programs 1000)

chaos: setup
	$(BIN)/python scripts/chaos.py $(or $(CHAOS),--minutes 10)

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/mypy --platform darwin -p mobile_sdk -p coordinator -p exporters
	$(BIN)/mypy --platform win32 -p mobile_sdk -p coordinator -p exporters

# Strict: a warning fails, and so does a link to a page or heading that is not there. Needs no network.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

setup: $(VENV)/installed

# torch first and pinned, and without CUDA where that can be had: FTTE_TORCH chooses (scripts/install_torch.py).
$(VENV)/installed: pyproject.toml scripts/install_torch.py mobile_sdk/pyproject.toml mobile_sdk/setup.py $(wildcard mobile_sdk/native/*.cpp mobile_sdk/native/*.h mobile_sdk/native/*.py)
	@test -x $(BIN)/python || { python=$$(scripts/find_python.sh) && "$$python" -m venv $(VENV); }
	$(BIN)/python scripts/install_torch.py
	@echo "make: executorch (1 of 3)"
	$(BIN)/pip install $(PIP_OPTIONS) "setuptools>=77" wheel "torch==2.13.0" "executorch==1.5.1"
	@echo "make: the SDK with its compiled runtime (2 of 3)"
	$(BIN)/pip install $(PIP_OPTIONS) --no-build-isolation -e ./mobile_sdk
	@echo "make: FTTE, and what tests, documentation and the app in a window need (3 of 3)"
	$(BIN)/pip install $(PIP_OPTIONS) --no-build-isolation -e ".[dev,docs,app-dev]"
	touch $@

# The SDK's native runtime alone, after a change of its sources.
native: setup
	$(BIN)/python mobile_sdk/native/build.py

clean:
	rm -rf $(VENV) build dist mobile_sdk/build mobile_sdk/native/lib *.egg-info mobile_sdk/*.egg-info
