"""Pictures drawn from a drawing with their truth: part, light, optics, defects."""
