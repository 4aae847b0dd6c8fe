"""Files that come with deblurd: models and example configurations, in a checkout or packed into the installed package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from deblurd.errors import NoInputError

_PACKAGE = Path(str(resources.files("deblurd")))


def models_folders() -> list[Path]:
    """Where models are looked for: the checkout's models/, then the copy in the installed package."""
    return _folders("models")


def example_names() -> list[str]:
    return sorted({path.stem for folder in _folders("config") for path in folder.glob("*.toml")})


def example_config(name: str) -> str:
    """The text of an example such as "simulator". Raises NoInputError that says which there are."""
    for folder in _folders("config"):
        path = folder / f"{name}.toml"
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise NoInputError(f"there is no example {name!r}: there are {', '.join(example_names())}")


def _folders(name: str) -> list[Path]:
    # a site-packages folder may hold a stranger's "config": only a checkout has pyproject.toml beside the package
    beside = [_PACKAGE.parent / name] if (_PACKAGE.parent / "pyproject.toml").is_file() else []
    return [folder for folder in (*beside, _PACKAGE / f"_{name}") if folder.is_dir()]
