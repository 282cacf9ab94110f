"""What a UE runs, as ONNX graphs that need no torch: the autoencoder's two halves and the student.

A graph holds no weights of its own: it names bytes of the bundle's safetensors file as its external
data, so that every precision shares the one file. float16 and int8 are made of those float32 numbers
when a graph is loaded. `recipes/graphs.py` writes them beside the weights.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdt.errors import BundleError, MissingExtraError

try:
    import onnx
    import torch
    from onnx import TensorProto, helper, numpy_helper
    from torch import Tensor, nn
except ImportError:
    raise MissingExtraError(
        "exporting the models needs torch, onnx and onnxscript; pip install 'megdt[sim,export]'"
    ) from None

from megdt.models import LATENT_CHANNELS
from megdt.models.autoencoder import Decoder, Encoder
from megdt.models.bundle import Bundle, read_weights
from megdt.models.cards import read_header
from megdt.models.onnx_models import EXPORTED
from megdt.models.student import Student
from megdt.records import Precision

Inputs = Mapping[str, NDArray[np.float32]]

_EMBEDDED_BYTES = 1024
"""Tensors up to this size stand in the graph."""
_ELEMENT_TYPES = {"F32": TensorProto.FLOAT, "F16": TensorProto.FLOAT16}


@dataclass(frozen=True, kw_only=True)
class _Source:
    """A model, and what its graph is traced with."""

    make: Callable[[], nn.Module]
    examples: tuple[Tensor, ...]
    sizes: tuple[dict[int, str], ...]
    """Of each input, the axes whose size is free."""


def _source(name: str) -> _Source:
    free = {0: "batch", 2: "height", 3: "width"}
    latents, levels = torch.zeros(2, LATENT_CHANNELS, 32, 40), torch.zeros(2)
    sources = {
        "decoder": _Source(make=Decoder, examples=(latents, levels), sizes=(free, {0: "batch"})),
        "encoder": _Source(make=Encoder, examples=(torch.zeros(2, 3, 256, 320),), sizes=(free,)),
        "student": _Source(
            make=Student, examples=(latents[..., :32], levels), sizes=({0: "batch"}, {0: "batch"})
        ),
    }
    return sources[name]


def export(
    bundle: Bundle, name: str, precision: Precision, *, calibration: Iterator[Inputs] | None = None
) -> bytes:
    """A model of a bundle as the bytes of an ONNX graph that points to its weights.

    Args:
        bundle: Whose weights the graph points to.
        name: One of EXPORTED.
        precision: That it computes in; inputs and outputs are float32 whatever it is.
        calibration: For int8: inputs as the model meets them, whose ranges its steps are fitted to.

    Raises:
        BundleError: If int8 is wanted without calibration, or a large tensor of the graph is not
            one of the file's.
    """
    model = _source(name).make()
    weights = read_weights(bundle.folder / f"{name}.safetensors", bundle.card(name)["sha256"])
    model.load_state_dict(weights, strict=False)  # counters of batch normalisation are not in it
    traced = _convert(_trace(model, name), name, precision, calibration)
    lean = _point_to(traced, bundle.folder / f"{name}.safetensors")
    return bytes(lean.SerializeToString())


def export_whole(
    model: nn.Module,
    name: str,
    precision: Precision,
    *,
    calibration: Iterator[Inputs] | None = None,
) -> bytes:
    """Any network as the bytes of an ONNX graph with its weights inside.

    Args:
        model: That takes and gives what the bundle's model does.
        name: Of the bundle's model.
        precision: As of `export`.
        calibration: As of `export`.

    Raises:
        BundleError: If int8 is wanted without calibration.
    """
    whole = _convert(_trace(model, name), name, precision, calibration)
    return bytes(whole.SerializeToString())


def export_cut(
    model: nn.Module, name: str, precision: Precision, weights: Path, *,
    calibration: Iterator[Inputs] | None = None,
) -> bytes:  # fmt: skip
    """A network that is the first channels of a larger one, as a graph that points to the larger one's.

    Args:
        model: With the weights of `elastic.cut`.
        name: Of the bundle's model.
        precision: As of `export`.
        weights: The safetensors file of the larger one.
        calibration: As of `export`.

    Raises:
        BundleError: As of `export`.
    """
    traced = _convert(_trace(model, name), name, precision, calibration)
    return bytes(_point_to(traced, weights).SerializeToString())


def _convert(
    traced: Any, name: str, precision: Precision, calibration: Iterator[Inputs] | None
) -> Any:
    if precision == "fp16":
        from onnxruntime.transformers.float16 import convert_float_to_float16

        with _quiet():  # about small numbers that float16 makes 0
            traced = convert_float_to_float16(traced, keep_io_types=True)
    elif precision == "int8":
        if calibration is None:
            raise BundleError(f"int8 of {name} needs calibration; give inputs as it meets them")
        traced = _quantise(traced, calibration)
    return traced


def _trace(model: nn.Module, name: str) -> Any:
    source = _source(name)
    model.eval()
    with _quiet():
        program = torch.onnx.export(
            model, source.examples, dynamo=True, verbose=False,
            input_names=list(EXPORTED[name]), output_names=["output"],
            dynamic_shapes=source.sizes,
        )  # fmt: skip
    assert program is not None
    traced = program.model_proto
    for node in traced.graph.node:  # where a node comes from in our code is nobody's business here
        del node.metadata_props[:]
        node.doc_string = ""
    del traced.graph.value_info[:]
    del traced.graph.metadata_props[:]
    del traced.metadata_props[:]
    return traced


def _quantise(traced: Any, calibration: Iterator[Inputs]) -> Any:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> Inputs | None:
            return next(calibration, None)

    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        onnx.save(traced, before)
        with _quiet():
            quantize_static(
                before, after, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                op_types_to_quantize=["Conv"],
                # Weights of 7 bits: processors with AVX2 and no VNNI add two products in 16 bits, where
                # those of 8 bits overflow.
                reduce_range=True,
            )  # fmt: skip
        return onnx.load(after)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what exporters say of operators that no graph here has, and of how to prepare one."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _point_to(traced: Any, weights: Path) -> Any:
    """The graph, with each large tensor made of bytes of the weights' file when it is loaded."""
    content = weights.read_bytes()
    stored, begin = read_header(content)
    kept: list[Any] = []
    made: list[Any] = []
    outside: dict[str, Any] = {}
    for tensor in traced.graph.initializer:
        values = numpy_helper.to_array(tensor)
        origin = tensor.name.removesuffix("_quantized")
        if values.nbytes <= _EMBEDDED_BYTES or origin not in stored:
            kept.append(tensor)
            continue
        told = stored[origin]
        first, last = (begin + offset for offset in told["data_offsets"])
        kind = {"F32": "<f4", "F16": "<f2"}[told["dtype"]]
        original = np.frombuffer(content[first:last], kind).reshape(told["shape"])
        if values.ndim == original.ndim:  # of a smaller network, its first channels
            original = original[tuple(slice(0, count) for count in values.shape)]
        found = _derive(traced, tensor, values, original.astype(np.float32))
        if found is None:
            kept.append(tensor)
            continue
        name = f"{origin}.stored"
        outside[name] = _external(name, told, weights.name, first, last - first)
        source = name
        if list(values.shape) != told["shape"]:
            source = f"{origin}.cut"
            inputs = {
                f"{origin}.{key}": np.array(bounds, np.int64)
                for key, bounds in (("from", [0] * values.ndim), ("to", values.shape))
            }
            kept += [numpy_helper.from_array(bounds, key) for key, bounds in inputs.items()]
            made.append(helper.make_node("Slice", [name, *inputs], [source], name=source))
        made += _steps_from(source, found, element_type=outside[name].data_type)
    large = [tensor.name for tensor in kept if len(tensor.raw_data) > 2**16]
    if large:
        raise BundleError(
            f"tensor {large[0]} of the graph is none of {weights.name}; weights stay in that file"
        )
    del traced.graph.initializer[:]
    traced.graph.initializer.extend([*kept, *outside.values()])
    nodes = list(traced.graph.node)
    del traced.graph.node[:]
    traced.graph.node.extend([*made, *nodes])
    return traced


def _derive(
    traced: Any, tensor: Any, values: NDArray[Any], original: NDArray[np.float32]
) -> tuple[str, Any] | None:
    """How a tensor of the graph is made of one that is stored; None where it is another."""
    if values.shape != original.shape:
        return None
    if values.dtype == np.int8:
        small = {t.name: numpy_helper.to_array(t) for t in traced.graph.initializer}
        names = [tensor.name.replace("_quantized", end) for end in ("_scale", "_zero_point")]
        scale = small[names[0]].reshape(-1, *[1] * (original.ndim - 1))
        again = np.clip(np.rint(original / scale), -128, 127)
        # Halves may be rounded either way.
        same = np.abs(again - values).max() <= 1
        return ("int8", (tensor.name, names)) if same else None
    # The converter to float16 moves numbers that are almost 0.
    if not np.allclose(values, original.astype(values.dtype), rtol=0, atol=2e-7):
        return None
    return "float", (tensor.name, tensor.data_type)


def _steps_from(name: str, found: tuple[str, Any], *, element_type: int) -> list[Any]:
    kind, what = found
    if kind == "float":
        target, wanted = what
        operator, options = ("Cast", {"to": wanted})
        if wanted == element_type:
            operator, options = ("Identity", {})
        return [helper.make_node(operator, [name], [target], name=f"{target}.made", **options)]
    target, (scale, zero_point) = what
    wide, nodes = name, []
    if element_type != TensorProto.FLOAT:
        wide = f"{name}.wide"
        nodes.append(helper.make_node("Cast", [name], [wide], name=wide, to=TensorProto.FLOAT))
    nodes.append(
        helper.make_node(
            "QuantizeLinear", [wide, scale, zero_point], [target], name=f"{target}.made", axis=0
        )
    )
    return nodes


def _external(name: str, told: dict[str, Any], location: str, offset: int, length: int) -> Any:
    tensor = TensorProto(
        name=name, data_type=_ELEMENT_TYPES[told["dtype"]], dims=told["shape"],
        data_location=TensorProto.EXTERNAL,
    )  # fmt: skip
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor
