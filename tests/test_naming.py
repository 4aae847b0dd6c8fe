"""What slides are called."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from deblurd.naming import as_slide_id, folder_name, is_slide_id, next_slide_id
from deblurd.settings import SlideSettings

NOW = datetime(2026, 11, 26, 16, 30, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "a b", "ends.", "nul", "COM1.x", "x" * 65, "ü"]
)
def test_what_is_no_folder_everywhere_is_no_name(name: str) -> None:
    assert not is_slide_id(name)


@given(st.text(max_size=100))
def test_any_barcode_is_a_name_or_refused(text: str) -> None:
    found = as_slide_id(text)
    assert found is None or is_slide_id(found)


def test_a_barcode_keeps_what_can_stand_in_a_name() -> None:
    assert as_slide_id("S26-1234;A1;2") == "S26-1234-A1-2"
    assert as_slide_id("//") is None


def test_templates_count_what_is_there(tmp_path: Path) -> None:
    template = "{date}-{operator}-{counter:03}"
    assert next_slide_id(tmp_path, template, NOW, "ada") == "20261126-ada-001"
    (tmp_path / "20261126-ada-001").mkdir()
    (tmp_path / "20261126-ada-002").mkdir()
    assert next_slide_id(tmp_path, template, NOW, "ada") == "20261126-ada-003"
    assert next_slide_id(tmp_path, "slide", NOW, None) == "slide"
    folder = "{slide_id}_{utc}_{counter}"
    assert folder_name(tmp_path, folder, "S", NOW, None) == "S_20261126T163000Z_1"
    (tmp_path / "S" / "one").mkdir(parents=True)
    assert folder_name(tmp_path, folder, "S", NOW, None) == "S_20261126T163000Z_2"


@pytest.mark.parametrize(
    ("key", "template", "why"),
    [
        ("name", "{slide}", "there is no {slide}: write {counter}, {date}, {operator}"),
        ("name", "{counter:x{}}", 'cannot be formatted as ":x{}"'),
        ("name", "{counter:9999999999}", "cannot be formatted"),
        ("name", "{date:%Y}", "cannot be formatted"),
        ("name", "{}", "there is no {}"),
        ("name", "a b", "no folder is called so"),
        ("name", "..", "no folder is called so"),
        ("name", "{counter.real}", "there is no {counter.real}"),
        ("name", "{", "cannot be filled in"),
        ("folder", "{slide_id}", "two scans could have the same folder"),
        ("folder", "../{slide_id}_{utc}", "no folder is called so"),
        ("folder", "{slide_id}_{date}_{utc}", "there is no {date}"),
        ("operator", "A B", "pattern"),
    ],
)
def test_a_template_that_names_no_folder_is_refused(key: str, template: str, why: str) -> None:
    with pytest.raises(ValidationError) as err:
        SlideSettings.model_validate({key: template})
    assert why in str(err.value)
