"""DLA, the fixed-function accelerator beside the GPU of Xavier NX, Orin NX and AGX Orin.

It computes convolutions in float16. What it cannot do runs on the GPU, and every change of sides costs copies: so the
layers that stay on the GPU are named, and `profile` says what each costs. Rules: NVIDIA's "Working with DLA", 11.4.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgekd.errors import BuildError

from . import _runtime

if TYPE_CHECKING:
    from ._runtime import TensorRT

PRECISION = "fp16"
GONE, BACK = (10, 8, 0), (11, 4, 1)  # versions without it
NO_WORK = ("CONSTANT",)  # kinds of layers that cost nothing wherever they are


def check(tensorrt: TensorRT, builder: Any, core: int, precision: str) -> None:
    """Say no before anything is compiled.

    Raises:
        BuildError: another precision, a TensorRT without DLA, or no such core.
    """
    if precision != PRECISION:
        raise BuildError(
            f"the DLA computes in float16 and this is the {precision} artifact: load(..., device='dla:{core}', "
            f"precision='fp16'), after edgekd build model.bin --target tensorrt --precision fp16"
        )
    if tensorrt.rtx or GONE <= tensorrt.numbers < BACK:
        raise BuildError(
            f"{tensorrt.name} {tensorrt.version} has no DLA: TensorRT up to 10.7 (JetPack 5 and 6) has, and 11.4.1 on "
            "AGX Orin (JetPack 7.2.2). Load with device='cuda'"
        )
    cores = int(builder.num_DLA_cores)
    if core >= cores:
        raise BuildError(
            f"there is no DLA core {core}: this machine has {cores}. Xavier NX, Orin NX and AGX Orin have them, Orin "
            "Nano and Thor do not. Load with device='cuda'"
        )


def missing() -> str | None:
    """Return why there is no DLA here, or None."""
    tensorrt = _runtime.find()
    log = _runtime.Log(tensorrt.module)
    try:
        check(tensorrt, tensorrt.module.Builder(log.logger), 0, PRECISION)
    except BuildError as error:
        return str(error)
    except TypeError:  # what pybind11 makes of a null pointer
        return f"{tensorrt.name} {tensorrt.version} does not start: {_runtime.explain(log.errors)}"
    return None


def typed(tensorrt: TensorRT) -> bool:
    """Return whether a DLA network is strongly typed: from TensorRT 11 on; before, it must not be."""
    return tensorrt.numbers >= BACK


def choose(trt: Any, config: Any, core: int) -> None:
    """Let the builder place on a DLA core whatever it takes there, and the rest on the GPU."""
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core


def left_on_gpu(network: Any, config: Any) -> tuple[str, ...]:
    """Return the names of the layers that the DLA does not take, in the network's order, constants apart."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    return tuple(
        str(layer.name) for layer in layers if layer.type.name not in NO_WORK and not config.can_run_on_DLA(layer)
    )
