"""Settings → recipe: template, locator, calibration, models and checks of every camera, with one digest."""
