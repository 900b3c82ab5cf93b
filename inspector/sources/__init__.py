"""Pictures in: one file per kind of camera."""
