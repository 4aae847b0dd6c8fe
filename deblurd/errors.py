"""One tree of errors. Each is one sentence: what happened, why, what to do; each has an exit code.

The codes are those of BSD's ``sysexits.h``, so that a service manager can tell a typing error
from a missing microscope.
"""

from __future__ import annotations

from typing import ClassVar


class DeblurdError(Exception):
    """Root of everything that deblurd raises on purpose; `exit_code` is what the process ends with."""

    exit_code: ClassVar[int] = 70


class UsageError(DeblurdError, ValueError):
    """The command line asked for something that does not make sense."""

    exit_code = 64


class DataError(DeblurdError, ValueError):
    """Input data is there but broken: a truncated image, NaN, a wrong shape or dtype."""

    exit_code = 65


class NoInputError(DeblurdError, FileNotFoundError):
    """An input file, slide or model is not there."""

    exit_code = 66


class ModelError(DeblurdError):
    """A model is missing, altered, not ONNX, or has other inputs than its manifest says."""

    exit_code = 66


class MicroscopeError(DeblurdError, ConnectionError):
    """The microscope, or one of its devices, is not there or stopped answering."""

    exit_code = 69


class ServiceError(DeblurdError, ConnectionError):
    """No daemon answers at its address, or it does not let this user in."""

    exit_code = 69


class OutputError(DeblurdError, OSError):
    """The output cannot be created or written: permissions, disk full, folder gone."""

    exit_code = 73


class LockedError(DeblurdError):
    """Another deblurd already works on this output folder."""

    exit_code = 75


class ConfigError(DeblurdError, ValueError):
    """The configuration breaks one or more rules; the text has one line for each."""

    exit_code = 78
