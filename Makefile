# make demo, make test: the two commands. Each makes .venv if it is absent and installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py $(shell find fastlr -name '*.pyx' -o -name '*.[ch]')

.PHONY: demo test bench lib lint gate mutants wheel clean

demo: $(VENV)/with-demo
	$(BIN)/fastlr demo

# In a process for each processor, since many tests use one. `make test OPTIONS="-k AdamW"` runs some.
test: $(VENV)/with-test
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal $(OPTIONS)

# The comparison of the README, with whatever peers are installed; `make bench EXTRA=bench` installs them all first.
bench: $(VENV)/with-$(or $(EXTRA),jit)
	$(BIN)/python -m bench.compare

# The C library without Python, build/lib/libfastlr.a and .so: needs a C compiler alone. CC=clang, THREADS=no, LIB=elsewhere.
LIB := build/lib
FLAGS := $(shell sed -n 's/^FLAGS = \[\(.*\)\]/\1/p' setup.py | tr -d '",') -fPIC $(if $(filter no,$(THREADS)),-DFASTLR_NO_THREADS)
KERNELS := $(wildcard fastlr/kernels/*.c)
WIDE := $(wildcard fastlr/kernels/*/*.c)

lib: $(LIB)/libfastlr.a $(LIB)/libfastlr.so

$(LIB)/libfastlr.a: $(patsubst %.c,$(LIB)/%.o,$(KERNELS) $(WIDE))
	rm -f $@
	$(AR) rcs $@ $^

$(LIB)/libfastlr.so: $(patsubst %.c,$(LIB)/shared/%.o,$(KERNELS)) $(patsubst %.c,$(LIB)/%.o,$(WIDE))
	$(CC) -shared -o $@ $^ -lm $(if $(filter no,$(THREADS)),,-pthread)

$(LIB)/%.o: %.c $(shell find fastlr -name '*.h')
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(FLAGS) -Ifastlr/include -Ifastlr/kernels -c $< -o $@

$(LIB)/shared/%.o: %.c $(shell find fastlr -name '*.h')
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(FLAGS) -DFASTLR_SHARED -Ifastlr/include -Ifastlr/kernels -c $< -o $@

lint: $(VENV)/with-lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest fastlr._core
	PATH="$(BIN):$$PATH" $(BIN)/cython-lint --max-line-length 120 fastlr/*.pyx fastlr/*.px[di]
	$(BIN)/clang-format --dry-run -Werror $$(git ls-files '*.c' '*.h')
	$(BIN)/codespell $$(git ls-files)

# What a compiler must make of the kernels, and what the sanitizers must not find. CC=clang for the other compiler.
gate: $(VENV)/with-test
	$(BIN)/python tools/vectorised.py --cc $(CC)
	tools/sanitize.sh $(CC)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || { echo "needs Python >= 3.10 with venv and headers (Debian: python3-venv python3-dev)"; exit 1; }

PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# The package, again when a source of the extension has changed; then what an extra names, without building it once more.
$(VENV)/built: $(BIN)/python $(SOURCES)
	$(PIP) -e .
	@touch $@

$(VENV)/with-%: $(VENV)/built
	$(PIP) 'fastlr-kernels[$*]'
	@touch $@

# Every mutant of every rule. .ci/run tries forty.
mutants: $(VENV)/with-test
	$(BIN)/python tools/mutate.py

# Both distributions, checked, and the wheel tried where the repository is not: of what is committed.
wheel: $(BIN)/python
	$(BIN)/python tools/wheel.py --keep dist

clean:
	rm -rf $(VENV) build *.egg-info fastlr/*.so fastlr/lib
