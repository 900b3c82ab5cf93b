"""A camera that shows old pictures, in whatever order, is found out with the first of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from inspector.records import Stamp
from inspector.runtime.quality import PictureHealth


def refused(order: Sequence[int], uid: str | None = None) -> list[int]:
    """The places in the order of pictures (by number) at which one is refused."""
    health = PictureHealth()
    noise = np.random.default_rng(1).integers(50, 200, (max(order) + 1, 64, 80), np.uint8)
    looked = [health.look(Stamp("c", n, n, None, (64, 80), uid=uid), noise[picture]) for n, picture in enumerate(order)]
    return [n for n, (_, trouble) in enumerate(looked) if trouble is not None]


@pytest.mark.parametrize("buffers", [1, 2, 3, 4])
def test_stale_buffers_that_come_round_are_refused(buffers: int) -> None:
    order = [*range(10), *[9 - buffers + 1 + n % buffers for n in range(12)], *range(10, 14)]
    assert refused(order) == list(range(10, 22))


def test_parts_that_have_a_name_may_look_alike() -> None:
    assert refused([0, 0, 1, 0], uid="7") == []
