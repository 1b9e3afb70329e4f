"""The page of a report in a browser: what scripts make of it, wide and narrow, light and dark, and without scripts."""

import json
import re
import shutil
import subprocess

import numpy as np
import page_samples
import pytest
from PIL import Image

from benchmarks import report
from benchmarks.base.store import Store

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on this machine"
)

ARMS = '["sgd", "adam", "padam", "nadam", "adamw", "amsgrad", "rmsprop", "adamax"]'
# What a reader does, once the page is ready; what came of it goes into an element of its own.
READER = """
<script>
(async () => {
  const pause = (t) => new Promise((done) => setTimeout(done, t));
  while (!document.documentElement.dataset.ready) await pause(50);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const seen = {};
  const table = document.querySelector(".block table");
  const rows = () => [...table.tBodies[0].rows].filter((row) => !row.hidden);
  const firsts = () => rows().map((row) => row.cells[0].textContent);
  const lines = () => all(".live .mark-line path").length;
  seen.charts = all(".chart").length; seen.live = all(".live svg").length;
  seen.still = all(".still").filter((one) => one.offsetHeight > 0).length;
  seen.given = firsts(); seen.lines = lines();
  const buttons = [...table.tHead.rows[0].cells].map((cell) => cell.firstChild);
  seen.buttons = buttons.every((one) => one.tagName === "BUTTON" && one.tabIndex === 0);
  seen.sorts = [];
  for (let i = 0; i < 3; i++) {
    buttons[0].click();
    seen.sorts.push([buttons[0].parentNode.getAttribute("aria-sort"), firsts()]);
  }
  const field = document.querySelector(".filter");
  field.value = "ADAM"; field.dispatchEvent(new Event("input")); seen.filtered = firsts();
  seen.count = document.querySelector("output").textContent;
  field.value = ""; field.dispatchEvent(new Event("input"));
  document.querySelector('.arms [data-arm="adam"] input').click(); await pause(1500);
  seen.without = firsts(); seen.fewer = lines();
  document.querySelector('[data-arms="all"]').click(); await pause(1500);
  const choose = async (name, value) => {
    const select = document.querySelector(`[data-choice="${name}"]`);
    select.value = value; select.dispatchEvent(new Event("change")); await pause(1500);
    return all('[data-name="curves-error"] .live .role-axis-label text').map((one) => one.textContent).join(" ");
  };
  seen.labels = await choose("scale", ""); seen.log = await choose("scale", "log");
  await choose("scale", ""); seen.seconds = await choose("along", "seconds"); await choose("along", "epoch");
  const path = () => document.querySelector('[data-name="curves-error"] .live .mark-line path').getAttribute("d");
  const rough = path(); await choose("smooth", "1"); seen.smoothed = path() !== rough;
  await choose("smooth", "0");
  const labels = () => all('[data-name="curves-error"] .live .role-axis-label text')
    .map((one) => one.textContent).join(" ");
  const mark = document.querySelector('[data-name="curves-error"] .live .mark-symbol path'), before = labels();
  const { left, top } = mark.getBoundingClientRect();
  const wheel = { clientX: left, clientY: top, deltaY: -300, bubbles: true, cancelable: true };
  mark.dispatchEvent(new WheelEvent("wheel", wheel)); await pause(500); seen.scrolled = labels() === before;
  mark.dispatchEvent(new WheelEvent("wheel", { ...wheel, shiftKey: true })); await pause(500);
  seen.zoomed = labels() !== before;
  document.querySelector('.arms [data-arm="adam"]').dispatchEvent(new Event("pointerenter")); await pause(500);
  seen.faint = all('[data-name="curves-error"] .live .mark-line path')
    .filter((one) => Number(one.getAttribute("opacity") ?? 1) < .5).length;
  seen.lit = all("tr.lit").length;
  document.querySelector('.arms [data-arm="adam"]').dispatchEvent(new Event("pointerleave")); await pause(500);
  const cell = document.querySelector('[data-name="curves-error"] .live [class*="voronoi"] path');
  const box = cell.getBoundingClientRect();
  const over = { clientX: box.left + box.width / 2, clientY: box.top + box.height / 2, bubbles: true };
  for (const kind of ["pointerover", "pointermove"]) cell.dispatchEvent(new PointerEvent(kind, over));
  await pause(500);
  seen.hovered = all(".arms .lit").map((one) => one.textContent.trim());
  seen.told = document.querySelector("#vg-tooltip-element").textContent;
  seen.elsewhere = all('[data-name="curves-distance"] .live .mark-line path')
    .filter((one) => Number(one.getAttribute("opacity") ?? 1) < .5).length;
  document.body.append(Object.assign(document.createElement("pre"), { id: "seen", textContent: JSON.stringify(seen) }));
})();
</script>
"""
# A page in a frame: as narrow as a telephone, which a window of Chromium never is.
FRAME = """<!doctype html><body style="margin:0">
<iframe src="{page}" style="width:{width}px;height:4000px;border:0"></iframe>
<script>
addEventListener("message", (event) => document.body.setAttribute("data-seen", JSON.stringify(event.data)));
</script>"""
MEASURE = """<script>
setInterval(() => parent.postMessage({ready: document.documentElement.dataset.ready, inner: innerWidth,
  width: document.documentElement.scrollWidth,
  tables: [...document.querySelectorAll(".scroll")].some((one) => one.scrollWidth > one.clientWidth)}, "*"), 100);
</script>"""


def browse(page, folder, *options):
    """What Chromium prints when it opens a page, and the errors of its console."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr"]
    command += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=60000", *options, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    errors = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return done.stdout, errors


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a study of eight arms, one of which diverged once."""
    folder = tmp_path_factory.mktemp("browser")
    study = page_samples.load(folder, page_samples.THREE.replace('["sgd", "adam", "padam"]', ARMS))
    store = Store(folder / "runs")
    store.prepare()
    page_samples.fill(study, store, diverges=lambda run: run.arm.label == "padam" and run.config.seed == 1)
    return report.write([study], store, folder / "report")[0]


def changed(page, text):
    """The page with something more at its end."""
    path = page.with_name(f"{len(text)}.html")
    before, _, after = page.read_text(encoding="utf-8").rpartition("</body>")  # Vega's script speaks of bodies, too
    path.write_text(f"{before}{text}</body>{after}", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def seen(page):
    """What the reader saw."""
    text, errors = browse(changed(page, READER), page.parent, "--window-size=1400,1000", "--dump-dom")
    assert errors == []
    found = re.search(r'<pre id="seen">(.*?)</pre>', text)
    assert found, "the page was never ready"
    return json.loads(found[1])


def test_charts_come_alive(seen):
    """Each still chart gives way to a live one, without a word in the console."""
    assert seen["live"] == seen["charts"] >= 5
    assert seen["still"] == 0
    assert seen["lines"] == 8 * 4


def test_tables_sort_and_filter(seen):
    """By buttons that the keyboard reaches: up, down, and back as given; by text, whatever its case, with the count."""
    assert seen["buttons"]
    orders, rows = zip(*seen["sorts"], strict=True)
    assert orders == ("ascending", "descending", "none")
    assert rows[0] == sorted(seen["given"], key=str.lower)
    assert rows[1] == rows[0][::-1]
    assert rows[2] == seen["given"]
    assert seen["filtered"] == [name for name in seen["given"] if "adam" in name.lower()]
    assert seen["count"] == f"{len(seen['filtered'])} of 8"


def test_an_arm_is_switched_off_everywhere(seen):
    """In the tables and in all charts; under the pointer it is set off in both."""
    assert seen["without"] == [name for name in seen["given"] if name != "Adam"]
    assert seen["fewer"] == 7 * 4
    assert seen["faint"] == 7
    assert seen["lit"] > 0


def test_a_curve_under_the_pointer_is_named(seen):
    """What it is and its numbers are said there, and the arm is set off in all charts."""
    assert len(seen["hovered"]) == 1
    assert re.match(rf"optimizer\s*{re.escape(seen['hovered'][0])}", seen["told"].strip())
    assert "mean" in seen["told"]
    assert seen["elsewhere"] == 7


def test_curves_change_as_chosen(seen):
    """Logarithmic, along seconds, smoothed; the wheel zooms with Shift alone."""
    assert seen["log"] != seen["labels"]
    assert seen["seconds"] != seen["labels"]
    assert seen["smoothed"]
    assert seen["scrolled"]
    assert seen["zoomed"]


def test_nothing_is_wider_than_a_telephone(page):
    """At 400 pixels the page does not scroll sideways; its tables do, each in its own box."""
    text, _ = browse(framed(changed(page, MEASURE), 400), page.parent, "--window-size=1000,4000", "--dump-dom")
    found = json.loads(re.search(r'data-seen="(.*?)"', text)[1].replace("&quot;", '"'))
    assert found == {"ready": "yes", "inner": 400, "width": 400, "tables": True}


def framed(page, width):
    """A page with another in a frame."""
    path = page.with_name(f"frame-{width}-{page.name}")
    path.write_text(FRAME.format(page=page.name, width=width))
    return path


def without_scripts(page):
    """The page for a browser that is told to run none."""
    path = page.with_name("still.html")
    policy = '<meta http-equiv="Content-Security-Policy" content="script-src \'none\'">'
    path.write_text(page.read_text(encoding="utf-8").replace("<head>", f"<head>{policy}", 1), encoding="utf-8")
    return path


def picture(page, *options):
    """The colours of a screenshot with their counts."""
    path = page.with_suffix(".png")
    path.unlink(missing_ok=True)
    browse(page, page.parent, "--window-size=1000,2400", f"--screenshot={path}", *options)
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    colours, counts = np.unique(pixels, axis=0, return_counts=True)
    return {"#{:02x}{:02x}{:02x}".format(*colour): int(count) for colour, count in zip(colours, counts, strict=True)}


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no-scripts"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_charts_are_seen_light_and_dark(page, dark, scripts):
    """With and without scripts lines have their colours on the paper of the reader's choice."""
    shown = page if scripts else without_scripts(page)
    colours = picture(shown, f"--blink-settings=preferredColorScheme={0 if dark else 1}")
    paper, line = ("#14181d", "#efb031") if dark else ("#ffffff", "#e15f0a")
    assert max(colours, key=lambda colour: colours[colour]) == paper
    assert colours[line] > 100


def test_without_scripts_the_page_is_whole(page):
    """Nothing that a script would have to make is missing, and there is no control without a use."""
    text = re.sub(r"<script.*?</script>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert text.count('<div class="still"><svg') == text.count('role="img"') >= 5
    useless = re.compile(r'<p class="live-only.*?</p>|<input type="checkbox" checked>', re.DOTALL)
    assert not re.search("<(button|select|input)", useless.sub("", text))
    assert "html:not(.scripts) .live-only, html:not(.scripts) .controls input { display: none }" in text
    assert page.stat().st_size < 5e6
