"""OpenVINO against the conformance suite, and what only OpenVINO does."""

from ..conformance.predict import RunnableTarget


class TestOpenVINO(RunnableTarget):
    TARGET = "openvino"
