"""ONNX Runtime against the conformance suite."""

from ..conformance.predict import RunnableTarget


class TestReference(RunnableTarget):
    TARGET = "reference"
