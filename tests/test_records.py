from __future__ import annotations

import pickle

import pytest

from inspector.records import ConfigError, ConfigErrors, DeviceError, InspectorError

ONE = ConfigError("E_SCENE_SIZE", "too large", file="plate.dxf", line=3, key="--mm-per-px")


@pytest.mark.parametrize(
    "error", [ConfigError("E_X", "nothing"), ONE, ConfigErrors([ONE, ConfigError("E_Y", "wrong")]), DeviceError("gone")]
)
def test_an_error_is_the_same_in_another_process(error: InspectorError) -> None:
    told = pickle.loads(pickle.dumps(error))
    assert (type(told), str(told)) == (type(error), str(error))
    if isinstance(error, ConfigError):
        assert [vars(each) for each in told.errors] == [vars(each) for each in error.errors]
        assert (told.code, told.text, told.file, told.line, told.key) == (error.code, error.text, error.file, error.line, error.key)
