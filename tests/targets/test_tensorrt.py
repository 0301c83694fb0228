"""TensorRT against what a target that cannot run yet must do, and the float16 pass."""

from ..conformance.build import BuildOnlyCases


class TestTensorRT(BuildOnlyCases):
    TARGET = "tensorrt"
