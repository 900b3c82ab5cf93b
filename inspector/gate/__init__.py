"""The promise: one verdict for every part, in time. Neither NumPy nor OpenCV here."""
