# Each target creates and uses .venv/ in this checkout; nothing outside it is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := train,build,openvino,tflite-build,tensorrt,flash,serve,dev
PYTEST_ARGS ?=
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test test-arm test-sanitizers lint wheel bench fatbin clean

$(VENV)/installed: pyproject.toml setup.py constraints.txt kernels/build_cffi.py $(wildcard kernels/*.h kernels/*.cc)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt "torch" "setuptools" "cffi"
	$(BIN)/pip install --quiet --constraint constraints.txt --no-build-isolation --editable ".[$(EXTRAS)]"
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps trackers  # it would bring an opencv-python that wants a display
	touch $@

demo: $(VENV)/installed  ## distil, bundle, build for three targets, predict, print the table; writes out/demo/
	$(BIN)/edgekd demo --out out/demo

test: $(VENV)/installed  ## the whole suite
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-arm: $(VENV)/installed  ## the kernels cross-compiled for 64-bit ARM, run under emulation; wants g++-aarch64-linux-gnu, qemu-user-static
	EDGEKD_TEST_ARM=1 $(BIN)/python -m pytest tests/kernels/test_arm.py

test-sanitizers: $(VENV)/installed  ## the C++ and emulated CUDA kernels under Address-, UndefinedBehavior- and ThreadSanitizer; part of `test` too
	$(BIN)/python -m pytest tests/kernels/test_sanitizers.py

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $$(git ls-files '*.h' '*.c' '*.cc' '*.cu')
	$(BIN)/mypy

wheel: $(VENV)/installed
	rm -rf dist && $(BIN)/python -m build --wheel --no-isolation --outdir dist

bench: $(VENV)/installed  ## the quick benchmarks; the training evidence takes hours, see benchmarks/README.md
	$(BIN)/python benchmarks/import_time.py
	$(BIN)/python benchmarks/predict.py
	$(BIN)/python benchmarks/kernels.py

fatbin:  ## the CUDA kernels for every GPU, in one file: out/edgekd.fatbin; needs nvcc
	mkdir -p out && $(PYTHON) kernels/build_fatbin.py out/edgekd.fatbin

clean:
	rm -rf $(VENV) build dist out *.egg-info edgekd/_native.* kernels/_native.*
