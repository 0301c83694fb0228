#!/bin/sh
# Everything that only a GPU can prove, in one call; JSON goes to benchmarks/results/; logs, and copies of that
# JSON, to $OUT or out/gpu/.
#
#   benchmarks/gpu.sh                # with .venv/bin/python where there is one, else with python3
#   PYTHON=... benchmarks/gpu.sh     # with another; this checkout is installed into it unless it is there already
#
# 1. the CUDA kernels against the reference, bit for bit   2. the same under compute-sanitizer
# 3. how long they take, as captured graphs                4. the session end to end, on the best engine that starts
# 5. a few frames of it under compute-sanitizer            6. distillation, size full, on the synthetic scenes
#
# It needs NVIDIA's driver, nvcc and g++, and of Python numpy, cffi, pytest, pytest-timeout and hypothesis; to install
# itself pip and setuptools >= 77, but no network; for 2 and 5 compute-sanitizer; for 4 and 5 also onnx, onnxruntime
# and pycuda; for 6 the extra `train`.
# A step that lacks something is named before anything runs and left out, and the exit code is 1.
set -u
cd "$(dirname "$0")/.." || exit 2
if [ -z "${PYTHON:-}" ]; then
    if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; else PYTHON=python3; fi
fi
LOGS=${OUT:-out/gpu}
mkdir -p "$LOGS"
touch "$LOGS/begun"
failed=0

step() {
    name=$1
    shift
    echo "== $name: $*"
    "$@" >"$LOGS/$name.log" 2>&1
    code=$?
    tail -n 4 "$LOGS/$name.log"
    [ $code -eq 0 ] || failed=1
    # At once: a rented machine may end amid the next step, and gives back no more than $OUT.
    find benchmarks/results -name '*.json' -newer "$LOGS/begun" -exec cp {} "$LOGS" \;
    echo "== $name ended with $code, $LOGS/$name.log"
}

# lacks WHAT PACKAGES MODULES...: if a module cannot be imported, say so in one line and what to type.
lacks() {
    what=$1
    packages=$2
    shift 2
    missing=$("$PYTHON" -c '
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except Exception:
        sys.stdout.write(f" {name}")
' "$@" 2>/dev/null) || missing=" anything: it does not start"
    [ -n "$missing" ] && echo "$what: $PYTHON cannot import$missing. Type: $PYTHON -m pip install $packages"
}

# Whether `edgekd` is this checkout, with the parts that an editable installation puts into their places.
installed() {
    "$PYTHON" -c '
import pathlib
import edgekd.kernels, edgekd.targets
raise SystemExit(not pathlib.Path(edgekd.kernels.__file__).samefile("kernels/__init__.py"))
' 2>/dev/null
}

# A Jetson has no nvidia-smi before JetPack 6, but its release's file.
nvidia-smi -L 2>/dev/null || head -n 1 /etc/nv_tegra_release 2>/dev/null || { echo "no NVIDIA GPU here"; exit 4; }
command -v nvcc >/dev/null || { echo "no nvcc on PATH: install a CUDA toolkit and put its bin/ on PATH"; exit 4; }
lacks "nothing can run" "numpy cffi pytest pytest-timeout hypothesis" \
    numpy cffi pytest pytest_timeout hypothesis hypothesis.extra.numpy && exit 4
if ! installed; then
    "$PYTHON" -c 'import setuptools; raise SystemExit(int(setuptools.__version__.split(".")[0]) < 77)' 2>/dev/null || {
        echo "nothing can run: this checkout is not installed into $PYTHON, and setuptools there is missing or older" \
            "than 77. Type: $PYTHON -m pip install 'setuptools>=77'"
        exit 4
    }
    "$PYTHON" -m pip install --no-deps --no-build-isolation -e . >"$LOGS/install.log" 2>&1
    installed || {
        echo "this checkout cannot be installed into $PYTHON, see $LOGS/install.log; name another with PYTHON=..."
        exit 4
    }
fi
sanitizer=yes session=yes evidence=yes
command -v compute-sanitizer >/dev/null || {
    echo "steps memcheck, racecheck, synccheck and session-memcheck are left out: no compute-sanitizer on PATH; it is in CUDA's bin/"
    sanitizer= failed=1
}
lacks "step session is left out" "onnx onnxruntime pycuda" onnx onnxruntime pycuda.driver && session= failed=1
lacks "step evidence is left out" "-e '.[train]'" torch onnx onnxruntime PIL cv2 pycocotools safetensors &&
    evidence= failed=1

tests="tests/kernels/test_cuda_emulated.py tests/kernels/test_cuda_letterbox.py"
"$PYTHON" setup.py build_ext --inplace >"$LOGS/build.log" 2>&1 || echo "the host kernels were not compiled; the reference serves"
# shellcheck disable=SC2086
step kernels "$PYTHON" -m pytest -q -p no:cacheprovider -m gpu $tests
if [ -n "$sanitizer" ]; then
    for tool in memcheck racecheck synccheck; do
        # shellcheck disable=SC2086
        step "$tool" compute-sanitizer --tool "$tool" --error-exitcode 9 --target-processes all \
            "$PYTHON" -m pytest -q -p no:cacheprovider -m gpu -x $tests
    done
fi
step timings "$PYTHON" benchmarks/cuda_kernels.py
[ -z "$session" ] || step session "$PYTHON" benchmarks/cuda_session.py
# Around the copy: our own kernels, copies and addresses. TensorRT's builder tries every kernel it has, hours if watched.
[ -z "$session" ] || [ -z "$sanitizer" ] || step session-memcheck compute-sanitizer --tool memcheck --error-exitcode 9 \
    --target-processes all "$PYTHON" benchmarks/cuda_session.py --check --engine copy
[ -z "$evidence" ] ||
    step evidence "$PYTHON" benchmarks/distill.py run --size full --pairs r101-r50,yolov4 --data xray --minutes 8
exit $failed
