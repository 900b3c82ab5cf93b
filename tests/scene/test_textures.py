from __future__ import annotations

import numpy as np
import pytest

from inspector.scene import textures


@pytest.mark.parametrize("kind", ["brushed", "cast", "painted", "rolled", "belt"])
def test_tiles_have_no_seam_and_the_coded_spread(kind: str) -> None:
    tile = textures.tile(kind).astype(float)
    value = (tile - textures.ZERO) / textures.STEPS
    assert abs(value.mean()) < 0.05
    assert 0.9 < value.std() < 1.1
    inner = abs(np.diff(value, axis=0)).mean(), abs(np.diff(value, axis=1)).mean()
    seam = abs(value[0] - value[-1]).mean(), abs(value[:, 0] - value[:, -1]).mean()
    assert seam[0] < 1.5 * inner[0]
    assert seam[1] < 1.5 * inner[1]


def test_brushed_lines_run_along_the_rows() -> None:
    tile = textures.tile("brushed").astype(float)
    assert abs(np.diff(tile, axis=0)).mean() > 3 * abs(np.diff(tile, axis=1)).mean()
