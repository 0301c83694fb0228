"""What pyproject.toml cannot say: the extension module that cffi makes, and its stable ABI."""

from setuptools import setup

setup(
    cffi_modules=["kernels/build_cffi.py:ffi"],
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
