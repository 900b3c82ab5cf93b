"""Real-time camera inspection of parts against their drawings; README.md is the tour."""

__version__ = "0.1.0"
