"""What samples whose errors go together have to say."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.geometry.runs import redundancy, runs_of
from inspector.geometry.shape import F32, Samples, Shape
from tests.geometry import parts

SHAPE = Shape(parts.plate(), 16.0)


@pytest.fixture(scope="module")
def samples() -> Samples:
    return SHAPE.samples(1.0)


def test_runs_cover_all_samples_in_order_and_face_one_way(samples: Samples) -> None:
    runs = runs_of(samples)
    assert runs.starts[0] == 0
    assert int(runs.counts.sum()) == len(samples)
    assert (runs.counts > 0).all()
    for start, count in zip(runs.starts.tolist(), runs.counts.tolist(), strict=True):
        own = slice(start, start + count)
        assert len(np.unique(samples.contour[own])) == 1
        across = samples.normals[own] @ samples.normals[start]
        assert np.abs(across).min() > np.cos(np.radians(10.5))


def test_errors_of_their_own_cost_no_weight_and_common_ones_cost_it_in_their_direction(samples: Samples) -> None:
    rng = np.random.default_rng(0)
    weights = np.ones(len(samples), F32)
    runs = runs_of(samples)
    errors = (0.1 * rng.standard_normal(len(samples))).astype(F32)
    assert float(np.median(redundancy(runs, errors, weights))) < 2.0
    upright = np.abs(samples.normals[:, 1]) > 0.9999
    errors += np.where(upright, np.repeat(rng.standard_normal(len(runs.counts)), runs.counts), 0).astype(F32)
    after = redundancy(runs, errors, weights)
    assert float(after[upright].min()) > 8.0
    assert float(np.median(after[~upright])) < 2.0


def test_samples_without_weight_say_nothing(samples: Samples) -> None:
    assert (redundancy(runs_of(samples), np.ones(len(samples), F32), np.zeros(len(samples), F32)) == 1).all()
