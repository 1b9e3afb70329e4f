"""The page of a report, and the files beside it: whole, self-contained, and what the tables and charts say."""

import base64
import dataclasses
import errno
import html.parser
import io
import itertools
import re
from pathlib import Path

import msgspec
import numpy as np
import page_samples
import pandas as pd
import pytest
import torch

from benchmarks import cli, report
from benchmarks.base.store import Store, StoreError
from benchmarks.report.display import drawing, palette
from benchmarks.report.display.table import Cell, Column, Row, Table
from benchmarks.report.pages import export, page
from benchmarks.report.pages.export import ReportError
from benchmarks.report.results import collect
from benchmarks.report.sections import charts, underway
from benchmarks.report.watch import watch

ODD = "A $x$ for 5$ <b>&amp;</b> 比較 «Œuvre»"
VOID = frozenset({"meta", "br", "input", "link", "img", "hr"})


@pytest.fixture
def store(tmp_path):
    found = Store(tmp_path / "runs")
    found.prepare()
    return found


@pytest.fixture
def study(tmp_path):
    return page_samples.load(tmp_path, page_samples.THREE)


class Checker(html.parser.HTMLParser):
    """Collects what a page consists of, and that tags close in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.references, self.images, self.text, self.tags = [], [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        assert len(values) == len(attributes), f"an attribute twice: {attributes}"
        self.tags.append((tag, values))
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [values["id"]] if "id" in values else []
        self.references += [values[key] for key in ("src", "href", "xlink:href", "action") if key in values]
        if values.get("role") == "img":
            self.images.append(values)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def page_of(studies, store, folder):
    """The page of these studies, and its text."""
    path, _ = report.write(studies, store, folder / "report")
    return path, path.read_text(encoding="utf-8")


def test_the_page_needs_nothing_else(tmp_path, store, study):
    """Well-formed; no reference leaves the page but to data in it; ids unique over all charts of all studies."""
    several = [study, page_samples.load(tmp_path, page_samples.THREE.replace("Three", "Four"), "again")]
    page_samples.fill(study, store)
    path, text = page_of(several, store, tmp_path)
    found = Checker(text)
    assert path.name == "index.html"
    assert found.open == []
    assert len(found.ids) == len(set(found.ids))
    assert all(one == "main" or one.startswith("study-") for one in found.ids)  # live charts give theirs other names
    assert all(one.startswith(("#", "data:")) for one in found.references)
    assert {one[1:] for one in found.references if one[0] == "#"} <= set(found.ids)
    markup = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org/)", markup)
    assert set(re.findall(r"url\(#([^)\"]*)\)", markup)) <= set(found.ids)
    assert "Three & more" in found.words
    assert "Four & more" in found.words
    assert "python -m benchmarks run study" in found.words
    assert "<em>finds</em>" in text


def test_the_verdict_comes_first(tmp_path, store, study):
    """One sentence with its interval, before every description, table and chart."""
    page_samples.fill(study, store)
    _, text = page_of([study], store, tmp_path)
    verdict = re.search(r'<div class="verdict">\s*<p>(.*?)</p>', text)
    assert re.search(r"\[\d", verdict[1])
    assert verdict.start() < min(text.index(tag) for tag in ("<table", "<figure", '<p class="soft"'))


def test_every_chart_can_be_read(tmp_path, store, study):
    """Each has an alternative with numbers, a caption, and its numbers as a table."""
    page_samples.fill(study, store)
    _, text = page_of([study], store, tmp_path)
    images = Checker(text).images
    names = [image["data-name"] for image in images]
    assert names[:5] == ["scores", "curves-train_loss", "curves-online_loss", "curves-error", "curves-distance"]
    assert all("SGD (momentum)" in image["aria-label"] for image in images)
    assert text.count("<figcaption>") == len(images)
    assert text.count("<summary>") == 5  # of the others the numbers are tables of the report
    assert "Dotted: the learning rate falls, after epoch 3." in text


def test_titles_are_shown_as_they_are(tmp_path, store):
    """Dollars are no mathematics, angle brackets no markup, and letters of any script stay: on page, in SVG and TeX."""
    study = page_samples.load(tmp_path, page_samples.THREE.replace("Three & more", ODD))
    page_samples.fill(study, store)
    _, page = page_of([study], store, tmp_path)
    found = Checker(page)
    assert ODD in found.words
    table = Table.plain("T", ["name", "cost"], [[ODD, "5 $ & 3 %"]])
    assert r"5 \$ \& 3 \%" in export.latex(table)
    assert export.frame(table)["name"].tolist() == [ODD]


def test_a_label_in_a_chart_is_text(tmp_path, store, study):
    """A title with markup is escaped in the chart as well."""
    page_samples.fill(study, store)
    found = collect(study, store)
    series = [
        dataclasses.replace(one, arm=dataclasses.replace(one.arm, title=ODD + one.arm.label)) for one in found.series
    ]
    odd = dataclasses.replace(found, series=tuple(series))
    styles = palette.styles(odd.series)
    figure = charts.draw(odd, styles)[0]
    drawn = drawing.drawing(figure, "x", drawing.Looks(styles))
    assert "&lt;b&gt;&amp;amp;&lt;/b&gt; 比較" in drawn.svg
    assert "<b>" not in drawn.svg


def test_files_hold_what_the_tables_say(tmp_path, store, study):
    """CSV, Parquet and LaTeX of every table, with its numbers; the page carries the CSV as it is in the folder."""
    page_samples.fill(study, store)
    path, found = report.write([study], store, tmp_path / "report")
    folder = tmp_path / "report/study"
    assert found
    for table in found:
        frame = export.frame(table)
        read = pd.read_parquet(folder / f"{table.name}.parquet")
        assert read.equals(frame)
        text = pd.read_csv(io.StringIO((folder / f"{table.name}.csv").read_text()))
        assert text.shape == frame.shape
        assert frame.iloc[:, 0].tolist() == [row.cells[0].text for row in table.rows]
        latex = (folder / f"{table.name}.tex").read_text()
        assert latex.count("\\\\\n") == len(table.rows) + 1
        assert all(rule in latex for rule in ("\\toprule", "\\midrule", "\\bottomrule"))
        encoded = base64.b64encode((folder / f"{table.name}.csv").read_bytes()).decode()
        assert encoded in path.read_text()
    assert {one.name for one in folder.glob("*.svg")} == {f"{one.stem}.svg" for one in folder.glob("*.png")}
    assert "var(--" not in (folder / "curves-error.svg").read_text()
    assert "(<study/curves-error.svg>)" in (tmp_path / "report/study.md").read_text()


def test_a_frame_has_numbers_where_a_table_has():
    """A numeric column is numeric, hidden ones included; no name occurs twice; TeX has what people see."""
    columns = [Column("optimizer", "optimizer", numeric=False), Column("score", "score")]
    columns.append(Column("score, sd", "score", shown=False))
    rows = [
        Row("a", [Cell("A"), Cell("1.5 ± 0.1", 1.5), Cell("0.1", 0.1)]),
        Row("b", [Cell("B"), Cell("–"), Cell("–")]),
    ]
    table = Table("t", "T", columns, rows)
    frame = export.frame(table)
    assert list(frame) == ["optimizer", "score", "score_2"]
    assert frame["score"].tolist()[0] == 1.5
    assert np.isnan(frame["score"].tolist()[1])
    assert frame["score_2"].tolist()[0] == 0.1
    assert r"A & 1.5 $\pm$ 0.1 \\" in export.latex(table)


def test_a_report_of_nothing(tmp_path, store, study):
    """A study that has not been run yet says so, without charts and the script that draws them."""
    path, text = page_of([study], store, tmp_path)
    assert "9 of the study still to come" in text
    assert len(text) < 50_000
    assert {one.name for one in path.parent.rglob("*") if one.is_file()} == {"study.html", "study.md"}


def test_a_map_says_what_diverged(tmp_path, store):
    """Learning rate × p: a number in each cell, or that every run diverged."""
    study = page_samples.load(tmp_path, page_samples.MAP)
    page_samples.fill(
        study, store, diverges=lambda run: run.config.hyper["lr"] == 1.0 and run.config.hyper["partial"] == 0.25
    )
    _, text = page_of([study], store, tmp_path)
    figure = text[text.index('id="study-study-figure-map"') :]
    assert figure.count(">diverged</text>") == 1
    assert "1 of 9 cells diverged" in text
    assert "Grey: every run diverged." in text


def test_far_and_diverged_arms_are_said(tmp_path, store):
    """An arm far from all others is written at the edge, and what diverged is counted, so that the rest can be seen."""
    study = page_samples.load(
        tmp_path, page_samples.THREE.replace('["sgd", "adam", "padam"]', '["sgd", "adam", "padam", "nadam", "adamw"]')
    )
    finals = {"sgd": 90.0, "adam": 90.5, "nadam": 91.0, "adamw": 91.5, "padam": 12.0}
    page_samples.fill(
        study,
        store,
        lambda run: finals[run.config.optimizer] + 0.1 * run.config.seed,
        lambda run: run.config.optimizer == "adam" and run.config.seed == 0,
    )
    found = collect(study, store)
    styles = palette.styles(found.series)
    figure = charts.draw(found, styles)[0]
    svg = drawing.drawing(figure, "x", drawing.Looks(styles)).svg
    assert "◂ 12.1" in svg
    assert "1 of 3 diverged" in svg
    assert "Padam 12.10 [11.85, 12.35]" in figure.alternative


def test_large_studies_fit(tmp_path, store):
    """The points of all curves together are bounded, and with them the page: 5 MB at most."""
    arms = '"padam"\nhyper = { lr = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], partial = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5] }'
    text = page_samples.THREE.replace('["sgd", "adam", "padam"]', arms).replace("epochs = 6", "epochs = 400")
    study = page_samples.load(tmp_path, text.replace('reference = "sgd"\n', "").replace("seeds = 3", "seeds = 1"))
    page_samples.fill(study, store)
    found = collect(study, store)
    styles = palette.styles(found.series)
    figures = charts.draw(found, styles)
    drawn = [drawing.drawing(figure, "x", drawing.Looks(styles)) for figure in figures]
    assert sum(len(one.svg) + len(str(one.live)) for one in drawn) < 4e6


def test_looks_keep_apart():
    """Colours differ for every kind of colour vision, on light and dark pages, and no two arms of thirty look alike."""
    linear = np.vectorize(lambda c: c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)
    to_cones = np.array([[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]])
    to_lab = np.array([[0.2105, 0.7936, -0.0041], [1.978, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]])
    deficiencies = (  # Machado, Oliveira & Fernandes 2009, full severity
        np.eye(3),
        np.array([[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]]),
        np.array([[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]]),
        np.array([[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]]),
    )

    def rgb(text):
        return linear([int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)])

    def apart(a, b):
        labs = [[to_lab @ np.cbrt(to_cones @ np.clip(m @ x, 0, 1)) for m in deficiencies] for x in (rgb(a), rgb(b))]
        return min(np.linalg.norm(x - y) for x, y in zip(*labs, strict=True))

    def contrast(a, b):
        light = sorted(0.05 + rgb(x) @ [0.2126, 0.7152, 0.0722] for x in (a, b))
        return light[1] / light[0]

    for i, paper in enumerate(("#ffffff", "#14181d")):
        colours = [palette.INK[i], *(hue[i] for hue in palette.HUES)]
        assert min(apart(a, b) for a, b in itertools.combinations(colours, 2)) > 0.09
        assert min(contrast(colour, paper) for colour in colours) > 3
    style = (Path(page.__file__).parent / "templates/style.css").read_text()
    for block, paper in zip(style.split("prefers-color-scheme: dark")[:2], ("#ffffff", "#14181d"), strict=True):
        texts = dict(re.findall(r"--(ink|soft|accent|good|bad): (#\w{6})", block))
        assert min(contrast(colour, paper) for colour in texts.values()) > 4.5


def test_an_arm_looks_the_same_everywhere(tmp_path, store):
    """By its label, on every workload and in every study of a page; thirty arms have thirty looks."""
    study = page_samples.load(tmp_path, page_samples.THREE.replace('"digits-mlp"', '["digits-mlp", "fashion-cnn"]'))
    page_samples.fill(study, store)
    styles = palette.styles(collect(study, store).series, "sgd")
    assert list(styles) == ["sgd", "adam", "padam"]
    assert styles["sgd"] == palette.Style(*palette.INK)
    looks = {(palette.HUES[i % 5], palette.DASHES[i // 5]) for i in range(30)}
    assert len(looks) == 30


def test_no_store_no_report(tmp_path, study, capsys):
    """A store that does not exist is said in one line, with exit code 2, and nothing is written."""
    with pytest.raises(StoreError, match="there are no results at"):
        report.write([study], Store(tmp_path / "nowhere"), tmp_path / "report")
    code = cli.main(["report", "quick", "--results", str(tmp_path / "nowhere")])
    said = capsys.readouterr().err.strip()
    assert (code, said.count("\n")) == (2, 0)
    assert said.startswith("error: there are no results at")
    assert not (tmp_path / "nowhere").exists()
    assert not (tmp_path / "report").exists()


def test_a_full_disk_keeps_the_former_report(tmp_path, store, study, monkeypatch, capsys):
    """When the disk is full in the middle, every file of the former report is there as it was, and nothing else."""
    page_samples.fill(study, store)
    directory = tmp_path / "report"
    report.write([study], store, directory)
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    count, write = itertools.count(), Path.write_bytes

    def full(path, content):
        if next(count) == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ReportError, match="No space left on device"):
        report.write([study], store, directory, refresh=7)
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before
    assert not list(directory.glob(".*"))


def test_a_place_that_cannot_be_written(tmp_path, store, capsys):
    """One line and exit code 2."""
    (tmp_path / "file").write_text("")
    code = cli.main(["report", "quick", "--results", str(store.root), "--output", str(tmp_path / "file/report")])
    said = capsys.readouterr().err.strip()
    assert (code, said.count("\n")) == (2, 0)
    assert said.startswith("error: cannot write the report to")


def test_two_studies_of_one_name(tmp_path, store, study):
    """Their files would overwrite each other."""
    with pytest.raises(ReportError, match="two of these studies are called 'study'"):
        report.write([study, study], store, tmp_path / "report")


def test_skipped_files_are_listed(tmp_path, store, study):
    """What is in the store and not in the report is named, with the reason."""
    page_samples.fill(study, store)
    (store.root / "foreign.jsonl").write_text("{}\n")
    _, text = page_of([study], store, tmp_path)
    assert re.search(r"<li>foreign\.jsonl: is not a run", text)


def begin(study, store, seed=0, label="adam"):
    """A checkpoint as the engine leaves it, after two epochs."""
    run = next(run for run in study.runs() if run.arm.label == label and run.config.seed == seed)
    records = [msgspec.to_builtins(one) for one in page_samples.epochs(run, 90.0)[:2]]
    state = {"config": run.config.to_dict(), "records": records, "model": {"weight": torch.zeros(3)}}
    torch.save(state, store.checkpoint(f"{label}{seed}"))


def test_runs_in_progress_are_shown(tmp_path, store, study):
    """From checkpoints: how far they are, and curves of an arm without a finished run; a broken one is passed over."""
    begin(study, store)
    store.checkpoint("broken").write_bytes(b"no checkpoint")
    found = underway.collect(study, store)
    assert [(one.arm.label, list(one.runs)) for one in found] == [("adam", [0])]
    _, text = page_of([study], store, tmp_path)
    assert "Adam (in progress)" in text
    row = re.search(r"In progress</h2>.*?<tbody>.*?</tr>", text, re.DOTALL)[0]
    assert re.findall(r"<td[^>]*>(.*?)</td>", row)[:3] == ["0", "2", "6"]
    assert 'data-name="curves-error"' in text
    assert 'data-name="scores"' not in text


def test_watching_ends_with_the_study(tmp_path, store, study):
    """Written when the store has changed and only then; the page refreshes itself until the study is complete."""
    said, states = [], []
    directory = tmp_path / "report"

    def wait(seconds):
        states.append('http-equiv="refresh" content="3"' in (directory / "study.html").read_text())
        if len(states) == 2:
            begin(study, store)
        if len(states) == 3:
            page_samples.fill(study, store)

    path = watch([study], store, directory, 3, said.append, wait)
    assert states == [True, True, True]
    assert [line.split(" ", 1)[1].split(":")[0] for line in said] == ["9 runs to come", "9 runs to come", "complete"]
    assert 'http-equiv="refresh"' not in path.read_text()
