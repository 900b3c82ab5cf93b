"""What a camera and a belt could have done to a picture, drawn at random: pose, light, blur, noise."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from inspector.records import Image


def window(
    random: np.random.Generator,
    images: Sequence[Image],
    centre: tuple[float, float],
    size: int,
    *,
    turn_rad: float = np.pi,
    zoom: float = 1.25,
) -> list[Image]:
    """A window of `size` px around (x, y), turned, zoomed by up to `zoom` either way and perhaps mirrored, the same for all pictures.

    The first picture is sampled bilinearly, the others (masks) by the nearest pixel; outside, the picture is mirrored.
    """
    angle, scale = random.uniform(-turn_rad, turn_rad), zoom ** random.uniform(-1, 1)
    mirror = -1.0 if random.random() < 0.5 else 1.0
    c, s = np.cos(angle) / scale, np.sin(angle) / scale
    inverse = np.array([[c * mirror, -s, 0.0], [s * mirror, c, 0.0]])
    inverse[:, 2] = np.asarray(centre) - inverse[:, :2] @ np.full(2, (size - 1) / 2)
    ways = [cv2.INTER_LINEAR] + [cv2.INTER_NEAREST] * (len(images) - 1)
    return [
        np.asarray(
            cv2.warpAffine(image, inverse, (size, size), flags=way | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT_101), np.uint8
        )
        for image, way in zip(images, ways, strict=True)
    ]


def light(random: np.random.Generator, image: Image, strength: float = 1.0) -> Image:
    """The picture (H, W[, 3]) under other light: gain, offset, gamma, a slope across it, blur, noise; `strength` 0 leaves it as it is."""
    seen = image.astype(np.float32)
    if random.random() < 0.2:
        seen = np.asarray(cv2.GaussianBlur(seen, (0, 0), float(random.uniform(0.3, 1.0))), np.float32)
    gain, offset = 1 + strength * random.uniform(-0.25, 0.25), strength * random.uniform(-25, 25)
    seen = (seen - 128) * gain + 128 + offset
    if random.random() < 0.5:
        height, width = seen.shape[:2]
        across = random.uniform(-20, 20, 2) * strength
        slope = across[0] * np.linspace(-1, 1, height)[:, None] + across[1] * np.linspace(-1, 1, width)
        seen += slope.astype(np.float32).reshape(slope.shape + (1,) * (seen.ndim - 2))
    if random.random() < 0.5:
        seen += random.standard_normal(seen.shape, np.float32) * np.float32(strength * random.uniform(0, 6))
    seen = seen.clip(0, 255)
    if random.random() < 0.3:
        seen = np.float32(255) * (seen / np.float32(255)) ** np.float32(np.exp(strength * random.uniform(-0.3, 0.3)))
    return np.asarray(seen + 0.5, np.uint8)


def erase(random: np.random.Generator, image: Image, share: float = 0.5) -> Image:
    """With probability `share`, a rectangle of up to a third of each side gets the picture's mean, so that no single place decides."""
    if random.random() >= share:
        return image
    height, width = image.shape[:2]
    h, w = (int(random.integers(1, side // 3 + 2)) for side in (height, width))
    y, x = int(random.integers(0, height - h + 1)), int(random.integers(0, width - w + 1))
    out = image.copy()
    out[y : y + h, x : x + w] = image.mean(axis=(0, 1)).astype(np.uint8)
    return out


def mix(
    random: np.random.Generator, images: NDArray[np.float32], targets: NDArray[np.float32], alpha: float = 0.2
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Pictures (N, …) and their class shares (N, K), each blended with another of the batch (mixup, Zhang et al., 2017)."""
    weight = np.float32(random.beta(alpha, alpha))
    other = random.permutation(len(images))
    return weight * images + (1 - weight) * images[other], weight * targets + (1 - weight) * targets[other]
