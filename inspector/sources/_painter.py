"""The process beside a simulated camera that draws its pictures, so that drawing takes no time from judging.

It is told what to draw on standard input and draws into memory that the camera shares with it. The first line is a JSON object
(`Task`), every further one `index slot`: draw picture `index` into that slot. Each answer is a line of JSON on standard output:
`{"index", "slot", "truth"}`, or `{"error": [code, text, file]}` for a drawing that a person must change. It ends with its input, hence
with the camera's process.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from inspector.geometry import dxf, template
from inspector.records import ConfigError
from inspector.scene import Look, draw, fitting_mm_per_px, truth_of

LOW_PRIORITY = 10


@dataclass(frozen=True, slots=True)
class Task:
    """`memory_fd` holds `slots` pictures of `size_px` (width, height), one after the other. Picture i depends on (*`seed`, i) only.

    The first `ahead` pictures are waited for; those after it are drawn when nobody else wants the processor.
    """

    drawing: str
    size_px: tuple[int, int]
    mm_per_px: float | None
    seed: tuple[int, ...]
    look: str
    memory_fd: int
    slots: int
    ahead: int


def main() -> int:
    """Draw until the input ends."""
    cv2.setNumThreads(1)
    told = json.loads(sys.stdin.readline())
    task = Task(**told | {"size_px": tuple(told["size_px"]), "seed": tuple(told["seed"])})
    look = Look.model_validate_json(task.look)
    width, height = task.size_px
    try:
        part = template.build(dxf.read(Path(task.drawing)))
        mm_per_px = task.mm_per_px or fitting_mm_per_px(part.contours, task.size_px, look)
        pictures = np.frombuffer(mmap.mmap(task.memory_fd, task.slots * width * height), np.uint8).reshape(task.slots, height, width)
        for line in sys.stdin:
            index, slot = (int(word) for word in line.split())
            if index == task.ahead:
                os.nice(LOW_PRIORITY)
            drawn = draw(part, seed=(*task.seed, index), size_px=task.size_px, mm_per_px=mm_per_px, look=look)
            pictures[slot] = drawn.image
            print(json.dumps({"index": index, "slot": slot, "truth": truth_of(drawn)}), flush=True)
    except ConfigError as error:
        print(json.dumps({"error": [error.code, error.text, error.file]}), flush=True)
        return 78
    except (BrokenPipeError, KeyboardInterrupt):
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
