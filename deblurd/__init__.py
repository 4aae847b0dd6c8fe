"""deblurd: whole-slide mosaics from a stage that never stops. For research use only."""

import os

# ONNX Runtime sends telemetry from Linux unless this is set before its first import;
# nothing that deblurd sees may leave the machine.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__version__ = "0.1.0"
