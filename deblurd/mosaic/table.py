"""The table of tiles beside the image: each tile's box on the slide and what became of it."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import zarr

NAME = "tiles"


def table_file(mosaic: Path) -> Path:
    return mosaic / "tables" / NAME / "table.csv"


def write_table(mosaic: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes ``tables/tiles`` into an OME-Zarr: regions of interest by the convention of Fractal's ROI tables, version 1, as CSV.

    rows: mappings with `x_micrometer`, `y_micrometer`, `len_x_micrometer`, `len_y_micrometer` and any further columns, equal in all.
    """
    root = zarr.open_group(str(mosaic), mode="r+", zarr_format=3)
    tables = root.require_group("tables")
    tables.attrs.put({"tables": [NAME]})
    table = tables.require_group(NAME)
    table.attrs.put(
        {
            "type": "roi_table",
            "table_version": "1",
            "backend": "csv",
            "index_key": "FieldIndex",
            "index_type": "str",
            "region": {"path": "../../"},
        }
    )
    coming = iter(rows)
    first = next(coming, None)
    with table_file(mosaic).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=["FieldIndex"] if first is None else list(first))
        writer.writeheader()
        if first is not None:
            # one by one: there may be tens of thousands
            writer.writerows(itertools.chain([first], coming))
