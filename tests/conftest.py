"""What is left out where a part of the tools is not installed, said at the head of the run."""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401 - whether it can be loaded, not only found
except ImportError as error:
    _WITHOUT_TORCH = str(error)
    collect_ignore = [f"workshop/test_{name}.py" for name in ("foreign", "label", "quantise", "train", "train_compare", "validate")]
else:
    _WITHOUT_TORCH = ""


def pytest_report_header() -> str:
    return f"training is not tested, torch cannot be loaded: {_WITHOUT_TORCH}" if _WITHOUT_TORCH else "training is tested"
