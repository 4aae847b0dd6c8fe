"""A configuration is understood, or every mistake in it is named with its line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from deblurd import config, resources
from deblurd.errors import ConfigError, NoInputError
from deblurd.settings import MicroscopeSettings, Settings, SimulatorSettings

SIMULATOR = '[microscope]\nbackend = "simulator"\n'


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "deblurd.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def complaints(folder: Path, text: str | bytes) -> list[str]:
    path = written(folder, text)
    with pytest.raises(ConfigError) as err:
        config.load(path)
    assert err.value.exit_code == 78
    lines = str(err.value).splitlines()
    assert all(line.startswith(f"{path}:") for line in lines)
    return [line.removeprefix(f"{path}:") for line in lines]


def test_every_mistake_is_named_at_once_with_its_line(tmp_path: Path) -> None:
    text = """\
# a comment

scan.overlap = 3.0

[microscope] # trailing
exposre_ms = 5
stage_poll_ms = [
  1,
]
buffer_mb = -1
backend = "simulator"

[mosaic]
chunk_px = 7
overlap = 0.1

[serve]
enabled = "yes"
[deblurr]
[slide]
"name" = "a b"
colour = "red"
"""
    expected = [
        "3: scan.overlap: input should be less than or equal to 0.9 (got 3.0); allowed: a number at least 0.02 and at most 0.9",
        '6: microscope.exposre_ms: there is no such setting; did you mean "exposure_ms"?',
        "7: microscope.stage_poll_ms: input should be a valid number (got [1]); allowed: a number above 0",
        "10: microscope.buffer_mb: input should be greater than 0 (got -1); allowed: a whole number above 0",
        "14: mosaic.chunk_px: input should be 128, 256 or 512 (got 7); allowed: 128 or 256 or 512",
        '15: mosaic.overlap: there is no such setting; did you mean "overlap" of [scan]?',
        '18: serve.enabled: input should be a valid boolean (got "yes"); allowed: true or false',
        '19: deblurr: there is no such setting; did you mean "deblur"?',
        '21: slide.name: it would give "a b", and no folder is called so: use letters, digits, . _ and -, at most 64, and no dot first',
        "22: slide.colour: there is no such setting; allowed: name, folder, operator, ",
    ]
    found = complaints(tmp_path, text)
    assert [line[: len(start)] for line, start in zip(found, expected, strict=True)] == expected


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "microscope: this is missing"),
        ("[microscope]\n", 1, 'microscope.config_file: backend "mmcore" needs config_file'),
        (SIMULATOR + "[scan]\nspeed_um_s = nan\n", 4, "finite number (got NaN)"),
        (SIMULATOR + "[scan]\nspeed_um_s = -inf\n", 4, "finite number"),
        (SIMULATOR + 'exposure_ms = "5"\n', 3, "valid number"),
        (SIMULATOR + "exposure_ms = true\n", 3, "valid number"),
        (SIMULATOR + "buffer_mb = 1.5\n", 3, "valid integer"),
        (SIMULATOR + "[scan]\narea_mm = [1, 2, 3]\n", 4, "at most 2 items"),
        (SIMULATOR + "[scan]\narea_mm = [1,\n -2]\n", 4, "greater than 0 (got -2)"),
        (SIMULATOR + "[[scan]]\noverlap = 0.1\n", 3, "scan: this is a table, [scan]"),
        (SIMULATOR + "\n[scan.more]\nx = 1\n", 4, "scan.more: there is no such setting"),
        ("microscope = {backend = 'simulator', hang = 1}\n", 1, 'did you mean "hang_s"?'),
        ("microscope.backend = 'simulator'\nmicroscope.hang_s = 0\n", 2, "microscope.hang_s"),
        ("[scan]\noverlap = 0.1\n" + SIMULATOR + "[slide]\nhome_um = 2000-01-01\n", 6, "slide.home_um"),
        (SIMULATOR + "a = 1\na = 2\n", 4, "this is not TOML"),
        (SIMULATOR + "x = \n", 3, "this is not TOML"),
        (SIMULATOR + "x = " + "[" * 2000, 3, "this is not TOML"),
        (SIMULATOR + "x = " + "9" * 5000, 3, "this is not TOML"),
        (SIMULATOR + 'config_file = "C:\\Users\\me.cfg"\n', 3, "write paths with / or in single quotes"),
        (SIMULATOR.encode("utf-16"), 1, "this is UTF-16: save the file as UTF-8"),
        (SIMULATOR.encode() + b'x = "\xff"\n', 3, "not UTF-8"),
    ],
)
def test_a_mistake_and_its_line(tmp_path: Path, text: str | bytes, line: int, words: str) -> None:
    assert any(c.startswith(f"{line}: ") and words in c for c in complaints(tmp_path, text)), complaints(
        tmp_path, text
    )


def test_what_windows_editors_write_is_understood_and_counted(tmp_path: Path) -> None:
    text = "\ufeff" + SIMULATOR.replace("\n", "\r\n") + "\r\n[scan]\r\noverlap = 0.3\r\n"
    assert config.load(written(tmp_path, text)).scan.overlap == 0.3
    assert complaints(tmp_path, text.replace("0.3", "7"))[0].startswith("5: scan.overlap")


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match=r"no configuration .*deblurd config init"):
        config.load(tmp_path / "no.toml")
    with pytest.raises(ConfigError, match="is a folder"):
        config.load(tmp_path)


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    (tmp_path / "here.cfg").touch()
    text = """
[microscope]
config_file = "{}"
adapter_path = "adapters"
[simulator]
slide = "slides/a.png"
[deblur]
model = "models/mine"
"""
    settings = config.load(written(tmp_path, text.format("here.cfg")))
    assert settings.microscope.config_file == tmp_path / "here.cfg"
    assert settings.microscope.adapter_path == tmp_path / "adapters"
    assert settings.simulator is not None
    assert settings.simulator.slide == tmp_path / "slides/a.png"
    assert settings.mosaic.output == tmp_path / "deblurd-slides"
    assert Path(settings.deblur.model) == tmp_path / "models/mine"
    # it may lie in the folder of the adapters
    assert config.load(written(tmp_path, text.format("MM.cfg"))).microscope.config_file == Path("MM.cfg")
    absolute = written(tmp_path, f"{SIMULATOR}[mosaic]\noutput = '{tmp_path / 'x'}'\n")
    assert config.load(absolute).mosaic.output == tmp_path / "x"


def test_the_default_text_loads_and_so_does_every_setting_in_it(tmp_path: Path) -> None:
    text = config.default_text()
    settings = config.load(written(tmp_path, text))
    assert settings.microscope.config_file == Path("MMConfig_demo.cfg")
    assert settings.simulator == SimulatorSettings()

    everything = tomlkit.parse(re.sub(r"(?m)^#(?! )", "", text)).unwrap()
    Settings.model_validate(everything)
    for name in Settings.model_fields:
        assert f"\n[{name}]\n" in text
        model = type(getattr(settings, name))
        assert list(everything[name]) == list(model.model_fields)


def test_the_effective_text_gives_the_same_settings(tmp_path: Path) -> None:
    settings = Settings(
        microscope=MicroscopeSettings(backend="simulator", exposure_ms=3.5),
        simulator=SimulatorSettings(slide=tmp_path / 'odd "name".png'),
    )
    settings = settings.model_copy(
        update={"mosaic": settings.mosaic.model_copy(update={"output": tmp_path / "o"})}
    )
    assert config.load(written(tmp_path, config.effective_text(settings))) == settings


def test_the_schema_names_every_section() -> None:
    assert set(config.schema()["properties"]) == set(Settings.model_fields)


@pytest.mark.parametrize("name", resources.example_names())
def test_every_example_loads(tmp_path: Path, name: str) -> None:
    config.load(written(tmp_path, resources.example_config(name)))


def test_the_examples_are_there_and_others_are_not() -> None:
    assert {"simulator", "democam", "hardware"} <= set(resources.example_names())
    with pytest.raises(NoInputError, match="there are democam, hardware, simulator"):
        resources.example_config("microscope")


def test_models_come_along() -> None:
    assert any((folder / "fast/manifest.json").is_file() for folder in resources.models_folders())


KEYS = st.sampled_from(["a", "b", "c.d", '"e f"', "g"])
VALUES = st.sampled_from(["1", '"x"', "[1,\n 2]", '"""\nx\n"""', "{x = 1}", "2000-01-01", "'''y\n'''"])
GAPS = st.sampled_from(["", "\n", "# c\n", "  \n\n"])


@given(
    st.lists(st.tuples(GAPS, st.booleans(), KEYS, VALUES, st.sampled_from(["", " # t", "  "])), max_size=12)
)
def test_lines_are_those_of_the_file(rows: list[tuple[str, bool, str, str, str]]) -> None:
    """A file built line by line, with sections of their own names, keeps every key where it was put."""
    text, expected, prefix = "", {}, ""
    for number, (gap, heads, key, value, tail) in enumerate(rows):
        text += gap
        line = text.count("\n") + 1
        if heads:
            prefix = f"s{number}"
            text += f"[{prefix}.sub]{tail}\n"
            expected[(prefix, "sub")] = line
            prefix = f"{prefix}.sub"
        else:
            name = f"k{number}.{key}"
            text += f"{name} = {value}{tail}\n"
            loc: Any = tuple(part.strip('"') for part in f"{prefix}.{name}".strip(".").split("."))
            expected[loc] = line
    found = config.lines(tomlkit.parse(text))
    assert {loc: found[loc] for loc in expected} == expected
