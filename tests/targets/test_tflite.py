"""LiteRT against the conformance suite, and what only LiteRT does."""

from ..conformance.predict import RunnableTarget


class TestTFLite(RunnableTarget):
    TARGET = "tflite"
