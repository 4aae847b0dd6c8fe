"""What was measured once and is wanted again: a small JSON file beside the slides."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from deblurd.errors import OutputError

log = logging.getLogger(__name__)


class KeptFile:
    """Values by name, plain JSON types. path: of the file. what: it holds, and again: how it is measured again, for people."""

    def __init__(self, path: Path, what: str, again: str) -> None:
        self.path, self._what, self._again = path, what, again

    def get(self, name: str) -> Any:
        """None where nothing is kept of that name, or the file cannot be read."""
        return self._read().get(name)

    def keep(self, name: str, value: Any) -> None:
        """Beside all others; the file is replaced whole. Raises OutputError."""
        content = self._read() | {name: value}
        try:
            part = self.path.with_name(f".{self.path.name}.part")
            part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
            part.replace(self.path)
        except OSError as err:
            raise OutputError(
                f"{self._what} cannot be kept in {self.path} ({err.strerror}): see to it that the folder can be written to"
            ) from err

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as err:
            log.warning("%s cannot be read (%s): %s", self.path, err, self._again)
            return {}
        return content if isinstance(content, dict) else {}
