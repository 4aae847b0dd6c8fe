"""Whatever the mixture of mistakes: each is reported once, at its own line, and nothing else is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deblurd.config import load
from deblurd.errors import ConfigError

SOUND = {
    "microscope": ['backend = "simulator"', "exposure_ms = 5", "buffer_mb = 64"],
    "simulator": ["seed = 3", "fov_px = [ # height, width\n 256,\n 256,\n]"],
    "scan": ["overlap = 0.3", 'mode = "watch"'],
    "deblur": ['model = "wiener"', "threads = 1"],
    "mosaic": ['output = """\nslides"""', "shard_px = 512"],
    "slide": ["idle_end_s = 10.5", "home_um = [0, -1.5]"],
}
FAULTS = {
    "microscope": ["hang_s = 0", "stage_poll = 5", 'encoding = "sRGB"', "latency_ms = true", "mirrored = 1"],
    "simulator": ["bit_depth = 12", "frames_per_s = inf", "slide_size_mm = [1]", "vignetting = 1.0"],
    "scan": ["area_mm = [1.0, 0]", 'speed_um_s = "fast"', "lanes = 3"],
    "deblur": ['device = "gpu"', "batch = 0", "thread = 2"],
    "mosaic": ["chunk_px = 300", "refresh_s = -1", "chunk = [\n 1,\n]"],
    "slide": ['name = "a/b"', "home_radius_um = -1", "idle = 3"],
}
ENTRIES = [
    (section, row, row in FAULTS[section]) for section in SOUND for row in SOUND[section] + FAULTS[section]
]


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, set[tuple[int, str]]]:
    """A configuration with some mistakes, as bytes, and the line and key of each."""
    chosen = draw(st.lists(st.sampled_from(ENTRIES), unique=True))
    # without it, every file would lack its microscope
    chosen = [entry for entry in chosen if entry[1] != SOUND["microscope"][0]]
    style = draw(st.sampled_from(["tables", "dotted"]))
    text, expected = draw(st.sampled_from(["", "# é\n\n"])), set()
    for section in draw(st.permutations(list(SOUND))):
        rows = [(row, bad) for name, row, bad in chosen if name == section]
        if section == "microscope":
            rows.append((SOUND["microscope"][0], False))
        if style == "tables":
            text += f"[{section}] # of its own\n"
        for row, bad in draw(st.permutations(rows)):
            if bad:
                expected.add((text.count("\n") + 1, f"{section}.{row.split(' ')[0]}"))
            text += (row if style == "tables" else f"{section}.{row}") + draw(
                st.sampled_from(["\n", " # c\n", "\n\n"])
            )
    text = text.replace("\n", draw(st.sampled_from(["\n", "\r\n"])))
    return draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + text.encode(), expected


@given(files())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_mistake_is_reported_at_its_line_and_nothing_else(
    tmp_path: Path, case: tuple[bytes, set[tuple[int, str]]]
) -> None:
    content, expected = case
    path = tmp_path / "deblurd.toml"
    path.write_bytes(content)
    if not expected:
        load(path)
        return
    with pytest.raises(ConfigError) as err:
        load(path)
    found = [
        re.fullmatch(rf"{re.escape(str(path))}:(\d+): ([\w.]+): .+", line)
        for line in str(err.value).splitlines()
    ]
    assert all(found)
    assert sorted((int(m[1]), m[2]) for m in found if m) == sorted(expected)


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_whatever_get_past_or_break_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "deblurd.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        load(path)
