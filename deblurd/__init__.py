"""deblurd: whole-slide mosaics from a stage that never stops. For research use only."""

import os

# ONNX Runtime sends telemetry from Linux unless this is set before its first import;
# nothing that deblurd sees may leave the machine.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# NumPy and SciPy would share small products out to threads that wait for work by spinning, beside the threads of the pipeline:
# placing a tile took twice the processor time. Only before their first import.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = "0.1.0"
