"""Small sets of data that a network learns in seconds: bright spots and dark lines on grey; dark and light pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def segmentation(folder: Path, count: int, side: int = 96, seed: int = 0) -> Path:
    """images/, masks/ and classes.txt: class 1 a bright spot, class 2 a dark line, on noisy grey."""
    random = np.random.default_rng(seed)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "classes.txt").write_text("spot\nline\n")
    for i in range(count):
        image = random.normal(128, 4, (side, side)).clip(100, 156).astype(np.uint8)
        mask = np.zeros((side, side), np.uint8)
        x, y = (int(v) for v in random.integers(16, side // 2 - 8, 2))
        if i % 3 != 2:
            for canvas, value in ((image, 230), (mask, 1)):
                cv2.circle(canvas, (x, y), 6, value, -1)
        x, y = (int(v) for v in random.integers(side // 2 + 8, side - 16, 2))
        if i % 3 != 1:
            for canvas, value in ((image, 30), (mask, 2)):
                cv2.line(canvas, (x - 6, y), (x + 8, y + 4), value, 3)
        cv2.imwrite(str(folder / "images" / f"{i:03d}.png"), image)
        cv2.imwrite(str(folder / "masks" / f"{i:03d}.png"), mask)
    return folder


def classification(folder: Path, count: int, side: int = 32, seed: int = 0) -> Path:
    """dark/ and light/ with `count` noisy pictures each."""
    random = np.random.default_rng(seed)
    for name, grey in (("dark", 70), ("light", 180)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            image = random.normal(grey, 12, (side, side)).clip(0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / name / f"{i:03d}.png"), image)
    return folder


def pairs(folder: Path, count: int, seed: int = 0) -> Path:
    """Boards with two tracks, `<id>_temp` and `<id>_test`: class 1 a gap in a track, class 2 an island between them; boxes beside."""
    random = np.random.default_rng(seed)
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / "classes.txt").write_text("gap\nisland\n")
    for i in range(count):
        reference = np.zeros((128, 192), np.uint8)
        reference[30:50], reference[90:110] = 255, 255
        image = reference.copy()
        lines = []
        x = int(random.integers(10, 70))
        image[28:52, x : x + 14] = 0
        lines.append(f"{x - 2} 28 {x + 16} 52 1")
        x, y = int(random.integers(100, 170)), int(random.integers(58, 74))
        cv2.circle(image, (x, y), 6, 255, -1)
        lines.append(f"{x - 8} {y - 8} {x + 9} {y + 9} 2")
        image = np.roll(image, int(random.integers(-1, 2)), axis=0)
        cv2.imwrite(str(folder / f"{i:03d}_temp.png"), reference)
        cv2.imwrite(str(folder / f"{i:03d}_test.png"), image)
        (folder / "annotations" / f"{i:03d}.txt").write_text("\n".join(lines) + "\n")
    return folder
