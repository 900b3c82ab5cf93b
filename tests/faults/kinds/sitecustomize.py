# mypy: ignore-errors
"""Read by every Python of a line under test: puts the points of `failpoints` into the daemon where the test of them asks for it."""

import os

if os.environ.get("INSPECTOR_TEST_FAILPOINTS"):
    import failpoints

    failpoints.install()
