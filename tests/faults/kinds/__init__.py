"""What a daemon under test finds on its PYTHONPATH: a third-party package of kinds, and points at which it can be let die."""
