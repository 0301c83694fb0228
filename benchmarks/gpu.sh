#!/bin/sh
# Everything that only a GPU can prove, in one call; JSON goes to benchmarks/results/, logs to $OUT or out/gpu/.
#
#   benchmarks/gpu.sh            # PYTHON=... to choose the interpreter; it needs numpy, pytest, hypothesis, cffi; torch for 5
#
# 1. the CUDA kernels against the reference, bit for bit   2. the same under compute-sanitizer
# 3. how long they take, as captured graphs                4. the session end to end (it wants pycuda and onnxruntime)
# 5. distillation, size full, on the synthetic scenes
set -u
cd "$(dirname "$0")/.." || exit 2
PYTHON=${PYTHON:-python3}
LOGS=${OUT:-out/gpu}
mkdir -p "$LOGS"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
failed=0

step() {
    name=$1
    shift
    echo "== $name: $*"
    "$@" >"$LOGS/$name.log" 2>&1
    code=$?
    tail -n 4 "$LOGS/$name.log"
    [ $code -eq 0 ] || failed=1
    echo "== $name ended with $code, $LOGS/$name.log"
}

nvidia-smi -L 2>/dev/null || { echo "no NVIDIA GPU here"; exit 4; }
tests="tests/kernels/test_cuda_emulated.py tests/kernels/test_cuda_letterbox.py"
"$PYTHON" setup.py build_ext --inplace >"$LOGS/build.log" 2>&1 || echo "the host kernels were not compiled; the reference serves"
# shellcheck disable=SC2086
step kernels "$PYTHON" -m pytest -q -p no:cacheprovider -m gpu $tests
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck synccheck; do
        # shellcheck disable=SC2086
        step "$tool" compute-sanitizer --tool "$tool" --error-exitcode 9 --target-processes all \
            "$PYTHON" -m pytest -q -p no:cacheprovider -m gpu -x $tests
    done
else
    echo "no compute-sanitizer on PATH: skipped"
fi
step timings "$PYTHON" benchmarks/cuda_kernels.py
step session "$PYTHON" benchmarks/cuda_session.py
step evidence "$PYTHON" benchmarks/distill.py run --size full --pairs r101-r50,yolov4 --data xray --minutes 8
exit $failed
