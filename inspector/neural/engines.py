"""Which engine runs a model on this machine: provider, precision and threads, as `inspector model tune` has measured.

Beside `x.onnx` it writes `x.tune.yaml`, which names the machine. What was measured on another CPU, with another runtime or for another
model is not taken, and that is said: the model then runs as it is, by ONNX Runtime's own kernels.
"""

from __future__ import annotations

import json
import logging
import os
from functools import cache
from pathlib import Path
from typing import Any, Literal

import onnxruntime as ort
import yaml
from pydantic import Field, ValidationError

from inspector.config import Strict
from inspector.records import ConfigError

LARGEST_BYTES = 1 << 16
TELLING = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
"""The features that decide which kernels a runtime takes."""
PROVIDERS = {"cpu": "CPUExecutionProvider", "openvino": "OpenVINOExecutionProvider"}


class Engine(Strict):
    """How a model runs: `int8` is its twin x.int8.onnx."""

    provider: Literal["cpu", "openvino"] = "cpu"
    precision: Literal["fp32", "int8"] = "fp32"
    threads: int = Field(default=1, ge=1, le=64)

    def file(self, path: Path) -> Path:
        """The file that runs for the model in `path`."""
        return path.with_suffix(".int8.onnx") if self.precision == "int8" else path


class Tune(Strict):
    """`x.tune.yaml`: the engine, for which machine and model (sha256) it was found, and everything that was measured."""

    format: Literal[1] = 1
    machine: str
    model: str = Field(pattern=r"^[0-9a-f]{64}$")
    engine: Engine
    measured: list[dict[str, Any]] = Field(default_factory=list)


def tune_file(path: Path) -> Path:
    """Where the tuning of the model in `path` stands."""
    return path.with_suffix(".tune.yaml")


def available() -> tuple[Literal["cpu", "openvino"], ...]:
    """The providers of the runtime that is installed."""
    known = ort.get_available_providers()
    return ("cpu", "openvino") if PROVIDERS["openvino"] in known else ("cpu",)


@cache
def machine() -> str:
    """CPU, its telling features, its cores, and the runtime: what a measurement holds for."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = set(said.get("flags", "").split())
    has = " ".join(name for name in TELLING if name in flags) or "none of note"
    return f"{said.get('model name', 'unknown CPU')}; {has}; {os.cpu_count()} cores; onnxruntime {ort.__version__} {'+'.join(available())}"


def chosen(path: Path, sha256: str) -> Engine | None:
    """The engine that was found for the model in `path` on this machine; None where there is none. Raises E_MODEL_TUNE for a bad file."""
    file = tune_file(path)
    if not file.is_file():
        return None
    try:
        if file.stat().st_size > LARGEST_BYTES:
            raise ConfigError("E_MODEL_TUNE", f"more than {LARGEST_BYTES >> 10} KiB", file=str(file))
        tune = Tune.model_validate_json(json.dumps(yaml.safe_load(file.read_text("utf-8"))))
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError("E_MODEL_TUNE", first["msg"], file=str(file), key=".".join(str(part) for part in first["loc"])) from error
    except (OSError, ValueError, TypeError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError("E_MODEL_TUNE", f"not a tuning ({type(error).__name__}); delete it, or tune again", file=str(file)) from error
    if tune.model != sha256 or tune.machine != machine():
        why = "another model" if tune.model != sha256 else f"another machine ({tune.machine}); this is {machine()}"
        logging.getLogger(__name__).warning("%s is for %s: not taken; inspector model tune %s measures anew", file, why, path)
        return None
    return tune.engine


def write(path: Path, tune: Tune) -> Path:
    """Write the tuning of the model in `path`."""
    file = tune_file(path)
    file.write_text(yaml.safe_dump(json.loads(tune.model_dump_json()), sort_keys=False, allow_unicode=True, width=120), "utf-8")
    return file
