"""Networks; ONNX Runtime only here."""
