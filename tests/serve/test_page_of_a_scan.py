"""A whole scan of the simulator, watched from a real browser: started, labelled, looked at, finished from the page."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.page.scans import Scan

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


def _chromium() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("there is no Chromium: install Debian's package chromium")
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=_chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def scan(tmp_path: Path) -> Iterator[Scan]:
    with Scan(tmp_path / "slides", speed_um_s=300.0, area_mm=(1.5, 1.1)) as scan:
        yield scan


@pytest.fixture
def page(browser: Any, scan: Scan) -> Iterator[Any]:
    """A window that is closed before the scan ends; whatever its console says, or fails to load, is a fault of the test."""
    context = browser.new_context(viewport={"width": 1366, "height": 768})
    page, said = context.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on(
        "response",
        lambda response: said.append(f"{response.status} {response.url}") if response.status >= 400 else None,
    )
    yield page
    context.close()
    assert said == []


@pytest.mark.slow
def test_a_scan_is_watched_and_finished_from_the_page(page: Any, scan: Scan) -> None:
    expect = playwright.expect
    page.goto(scan.url)
    expect(page.locator("#banner")).to_have_text("For research use only. Not for diagnosis.")
    expect(page.locator("#sentence")).to_have_text(re.compile(r"Scanning S-001: \d+ fields?"), timeout=30_000)
    expect(page.locator("#tag-after")).to_be_visible(timeout=20_000)
    expect(page.locator("#after")).to_be_visible()
    expect(page.locator("#nothing")).to_be_hidden(timeout=30_000)
    # the mosaic shows tissue and not only the dark ground: some of its pixels are bright
    page.wait_for_function(_BRIGHT, timeout=20_000)

    # it grows without flashing: once something is seen, it stays
    page.uncheck("#follow")
    page.evaluate(_WATCH)
    shown = page.evaluate("window.revisions")
    page.wait_for_function(f"() => window.revisions >= {shown + 4}", timeout=40_000)
    assert page.evaluate("window.flashes") == 0

    page.locator("#divide").focus()
    page.keyboard.press("Home")
    assert page.locator("#after").evaluate("e => e.style.clipPath") == "inset(0px 0px 0px 0%)"

    for layer in ("coverage", "sharpness", "source"):
        page.check(f"input[value={layer}]")
        page.wait_for_function(_DRAWN, timeout=20_000)

    # as a barcode reader types: wherever the focus is, with Enter at the end
    page.keyboard.type("A-17")
    page.keyboard.press("Enter")
    expect(page.locator("#answer")).to_have_text("The slide at work is A-17.")
    expect(page.locator("#sentence")).to_have_text(re.compile(r"Scanning A-17: \d+ fields"))
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#sentence")).to_have_text(re.compile(r"^Paused A-17: .* until you resume\.$"))
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#sentence")).to_have_text(re.compile(r"^Scanning A-17"))

    page.get_by_role("button", name="Finish").click()
    expect(page.locator("#answer")).to_have_text("Finishing A-17.")
    card = page.locator("#slide-list button").filter(has_text="covered")
    expect(card).to_have_count(1, timeout=40_000)
    card.click()
    expect(page.locator("#shown")).to_have_text(re.compile(r"^S-001_\d+T\d+Z$"))
    page.wait_for_function(_BRIGHT, timeout=20_000)
    expect(page.locator("#log-title")).to_have_text(re.compile("^What happened to S-001_"))
    for line in ("label: A-17", "paused: paused by hand", "closing: finished by hand"):
        expect(page.locator("#alert-list")).to_contain_text(line)
    page.get_by_role("button", name="Back to the slide at work").click()
    expect(page.get_by_role("button", name="Back to the slide at work")).to_be_hidden()
    expect(page.locator("#alert-list")).to_contain_text("scanning, scan of an area")


@pytest.mark.parametrize(("width", "height"), [(1366, 768), (820, 1180), (1180, 820), (390, 844)])
def test_nothing_is_cut_off(page: Any, scan: Scan, width: int, height: int) -> None:
    page.set_viewport_size({"width": width, "height": height})
    page.goto(scan.url)
    playwright.expect(page.locator("#sentence")).to_have_text(re.compile("Scanning|Waiting"), timeout=30_000)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for selector in (
        "#banner",
        "#mosaic",
        "#compare",
        "#speed-gauge",
        "#actions",
        "#label",
        "#charts",
        "#figures",
    ):
        box = page.locator(selector).bounding_box()
        assert box is not None, selector
        assert box["width"] > 30, selector
        assert box["x"] >= 0, selector
        assert box["x"] + box["width"] <= width, selector
    if (width, height) == (1366, 768):
        assert page.evaluate("document.documentElement.scrollHeight") <= height


def test_it_is_accessible(page: Any, scan: Scan) -> None:
    page.goto(scan.url)
    playwright.expect(page.locator("#sentence")).to_have_text(re.compile("Scanning"), timeout=30_000)
    playwright.expect(page.locator("#tag-after")).to_be_visible(timeout=20_000)
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is missing"
    )
    # run by the browser's debugger: the page's own policy lets no foreign script in
    found = axe.Axe().run(page).response["violations"]
    assert [(fault["id"], [node["html"] for node in fault["nodes"]]) for fault in found] == []


def test_it_can_be_used_without_a_mouse(page: Any, scan: Scan) -> None:
    page.goto(scan.url)
    playwright.expect(page.locator("#sentence")).to_have_text(re.compile("Scanning"), timeout=30_000)
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "document.activeElement.id || document.activeElement.name || document.activeElement.dataset.action"
            )
        )
    assert {"layer", "follow", "zoom-in", "zoom-out", "zoom-all", "finish", "divide"} <= reached


def test_no_daemon_is_said(browser: Any, tmp_path: Path) -> None:
    context = browser.new_context()
    page = context.new_page()
    with Scan(tmp_path / "slides") as scan:
        page.goto(scan.url)
        playwright.expect(page.locator("#sentence")).to_have_text(
            re.compile("Scanning|Waiting"), timeout=30_000
        )
    playwright.expect(page.locator("#sentence")).to_have_text(re.compile("does not answer"), timeout=20_000)
    context.close()


_PIXELS = """(selector) => {
  const canvas = document.querySelector(selector);
  if (!canvas || !canvas.width) return [];
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', {willReadFrequently: true});
  copy.drawImage(canvas, 0, 0);
  return copy.getImageData(0, 0, canvas.width, canvas.height).data;
}"""

_BRIGHT = f"""() => {{
  const pixels = ({_PIXELS})('#mosaic .openseadragon-canvas canvas');
  let bright = 0;
  for (let i = 0; i < pixels.length; i += 400) bright += pixels[i + 1] > 120;
  return bright > 20;
}}"""

_DRAWN = f"""() => {{
  const pixels = ({_PIXELS})('#overlay');
  let drawn = 0;
  for (let i = 3; i < pixels.length; i += 400) drawn += pixels[i] > 0;
  return drawn > 50;
}}"""

# looks at every picture that the screen shows, and at every answer that brings a new part of the mosaic
_WATCH = f"""() => {{
  window.flashes = 0;
  window.revisions = 0;
  let most = 0;
  const look = () => {{
    const pixels = ({_PIXELS})('#mosaic .openseadragon-canvas canvas');
    let bright = 0;
    for (let i = 0; i < pixels.length; i += 400) bright += pixels[i + 1] > 120;
    window.flashes += bright < 0.9 * most;
    most = Math.max(most, bright);
    requestAnimationFrame(look);
  }};
  requestAnimationFrame(look);
  new PerformanceObserver((list) => {{
    for (const entry of list.getEntries()) window.revisions += /mosaic\\/.*revision/.test(entry.name);
  }}).observe({{ type: 'resource' }});
}}"""
