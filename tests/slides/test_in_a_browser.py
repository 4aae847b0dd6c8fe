"""A finished mosaic, read by zarrita in a real browser: the very pixels that zarr-python reads."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
import zarr
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from deblurd.slides.folder import SlideFolder

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

ZARRITA = "zarrita@0.7.5"

PAGE = """<!doctype html>
<script type="importmap">%s</script>
<script type="module">
import * as zarr from "zarrita";
const root = zarr.root(new zarr.FetchStore(location.origin + "/slide/mosaic.ome.zarr"));
window.read = async (name) => {
  const found = await zarr.get(await zarr.open(root.resolve(name), { kind: "array" }));
  let text = "";
  for (let i = 0; i < found.data.length; i += 32768) text += String.fromCharCode(...found.data.subarray(i, i + 32768));
  return { shape: found.shape, base64: btoa(text) };
};
window.attributes = async () => (await zarr.open(root, { kind: "group" })).attrs;
window.ready = true;
</script>"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with zarrita and what it needs, as its registry has them."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("there is no npm to fetch zarrita with: install Node.js")
    folder = tmp_path_factory.mktemp("zarrita")
    command = [
        npm,
        "install",
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        "--prefix",
        str(folder),
        ZARRITA,
    ]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as err:
        pytest.skip(f"npm cannot fetch {ZARRITA}: {err}")
    return folder


def import_map(packages: Path) -> str:
    """Where a browser finds each package, and each part of one that its exports name."""
    found = {}
    for manifest in packages.glob("node_modules/**/package.json"):
        if "node_modules" in str(manifest.parent.relative_to(packages / "node_modules")):
            continue
        content = json.loads(manifest.read_text("utf-8"))
        name, exports = content.get("name"), content.get("exports", {})
        for part, target in exports.items() if isinstance(exports, dict) else ():
            path = target.get("import") if isinstance(target, dict) else target
            while isinstance(path, dict):
                path = path.get("default") or path.get("import")
            if name and isinstance(path, str) and part.startswith("."):
                where = (manifest.parent / path).relative_to(packages)
                found[f"{name}{part[1:]}"] = f"/{where.as_posix()}"
    return json.dumps({"imports": found})


@pytest.fixture
def address(finished: Path, packages: Path, tmp_path: Path) -> Iterator[str]:
    (tmp_path / "index.html").write_text(PAGE % import_map(packages), "utf-8")
    app = Starlette(
        routes=[
            Mount("/node_modules", StaticFiles(directory=packages / "node_modules")),
            Mount("/slide", StaticFiles(directory=finished)),
            Mount("/", StaticFiles(directory=tmp_path, html=True)),
        ]
    )
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    server.should_exit = True
    thread.join()
    listener.close()


@pytest.fixture
def page(address: str) -> Iterator[Any]:
    browser_path = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if browser_path is None:
        pytest.skip("there is no Chromium: install Debian's package chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        opened = browser.new_page()
        opened.goto(address)
        opened.wait_for_function("window.ready === true")
        yield opened
        browser.close()


def test_zarrita_reads_every_level_as_zarr_python_does(finished: Path, page: Any) -> None:
    group = zarr.open_group(str(SlideFolder(finished).mosaic), mode="r")
    attributes = page.evaluate("window.attributes()")
    assert attributes == json.loads(json.dumps(dict(group.attrs)))
    levels = [each["path"] for each in attributes["ome"]["multiscales"][0]["datasets"]]
    for name in [*levels, *(f"labels/source/{level}" for level in levels)]:
        array: Any = group[name]
        found = page.evaluate("name => window.read(name)", name)
        pixels = np.frombuffer(base64.b64decode(found["base64"]), np.uint8).reshape(found["shape"])
        assert np.array_equal(pixels, array[:])
