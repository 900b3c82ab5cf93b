"""INT8 twins of a network: static, QDQ, unsigned activations and signed weights per channel.

Without VNNI the runtime adds pairs of 8-bit products in 16 bits and saturates; `reduce_range` takes 7-bit weights, which cannot.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

from inspector.records import Image

QUANTISED = ("Conv", "Gemm", "MatMul", "Add", "ConvTranspose")


class _Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Pictures one at a time, as the quantiser asks for them."""

    def __init__(self, pictures: Iterable[Image]) -> None:
        self._pictures = iter(pictures)

    def get_next(self) -> dict[str, Any] | None:
        """The next input, or None at the end."""
        picture = next(self._pictures, None)
        return None if picture is None else {"pictures": picture}


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser warns on the root logger of what is meant to be so."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def has_vnni() -> bool:
    """Whether this CPU adds four 8-bit products in 32 bits (AVX-512 VNNI or AVX-VNNI)."""
    try:
        flags = Path("/proc/cpuinfo").read_text("ascii", "ignore")
    except OSError:
        return False
    return "avx512_vnni" in flags or "avx_vnni" in flags


def int8(data: bytes, pictures: Iterable[Image], *, reduce_range: bool) -> bytes:
    """The ONNX bytes of the INT8 twin of a model of the contract; ranges of activations are seen on `pictures` uint8 (1, H, W, C)."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        quant_pre_process(onnx.load_from_string(data), before, skip_symbolic_shape=True)
        quantization.quantize_static(
            before,
            after,
            _Reader(pictures),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED),
            per_channel=True,
            reduce_range=reduce_range,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )
        return after.read_bytes()
