"""Networks; ONNX Runtime only here.

ONNX Runtime's own packages report to their maker over HTTPS, and keep an identifier of the machine in the home folder, unless told not to
before they are loaded: a line tells nobody anything.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
