"""The report: one file, self-contained, complete, and inert whatever the models wrote."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import pytest
import small_run

from zerosearch import artifacts, report
from zerosearch.errors import MissingInput
from zerosearch.explorer import EXPLORER

VOID = {"meta", "img", "br", "link", "hr"}


class Reader(HTMLParser):
    """Collects tags and attributes, and checks that every tag is closed where it should be."""

    def __init__(self):
        super().__init__()
        self.tags, self.open, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> tuple[str, Reader]:
    """The report of a small run, as text and read by a parser."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZEROSEARCH_OUTPUTS", str(tmp_path_factory.mktemp("outputs")))
        small_run.write("toy")
        folder = artifacts.run_dir("toy") / "notebooks"
        folder.mkdir()
        (folder / "04 evaluate <b>.ipynb").write_text("{}", encoding="utf-8")
        markup = report.write("toy").read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(markup)
    assert not reader.open
    return markup, reader


def test_nothing_is_loaded_from_elsewhere(page):
    markup, reader = page
    for tag, attribute in (("img", "src"), ("link", "href"), ("script", "src"), ("iframe", "src")):
        assert all(attrs[attribute].startswith("data:image/png;base64,") for attrs in reader.all(tag))
    assert not re.search(r"@import|url\(", markup)
    assert "default-src 'none'" in reader.all("meta")[2]["content"]


def test_there_is_no_script_and_no_handler(page):
    markup, reader = page
    assert not reader.all("script") and "<script" not in markup.lower()
    assert not [name for _, attrs in reader.tags for name in attrs if name.startswith("on")]
    assert markup.count("&lt;script&gt;") > 3, "the hostile text is shown, as text"


def test_control_and_direction_characters_are_visible_signs(page):
    markup, _ = page
    assert "␛[31mred" in markup and "&lt;U+202E&gt;" in markup
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", markup)


def test_figures_are_embedded_with_their_finding_as_alternative_text(page):
    _, reader = page
    images = reader.all("img")
    assert len(images) == 3, "two reward curves and the stage times"
    assert all(base64.b64decode(image["src"].split(",")[1]).startswith(b"\x89PNG") for image in images)
    assert any(image["alt"].startswith("Mean reward, first to last fifth") for image in images)


def test_scores_parameters_times_versions_and_examples_are_there(page):
    _, reader = page
    text = " ".join(reader.text)
    for expected in ("0.70 [0.65, 0.75]", "questions_per_step", "of search-r1, seed 0", "matplotlib",
                     "profile smoke", "What the policy wrote: 2 examples", "04_evaluate/comparisons.csv",
                     "EM 1, golden: Grey Harp"):
        assert expected in text, expected


def test_missing_stages_are_named_with_their_command(page):
    _, reader = page
    text = " ".join(reader.text)
    assert "./run_all.sh --run toy --only 05" in text and "notebooks/00_micro_world.ipynb" in text
    assert "--only 04" not in text


def test_links_lead_to_the_executed_notebooks_and_to_sections(page):
    _, reader = page
    links = [attrs["href"] for attrs in reader.all("a")]
    assert "notebooks/04%20evaluate%20%3Cb%3E.ipynb" in links
    ids = {attrs["id"] for _, attrs in reader.tags if "id" in attrs}
    assert {link[1:] for link in links if link.startswith("#")} <= ids


def test_a_page_of_trajectories_is_linked_where_there_is_one(page, tmp_path, monkeypatch):
    assert EXPLORER not in page[0]
    monkeypatch.setenv("ZEROSEARCH_OUTPUTS", str(tmp_path))
    small_run.write("toy")
    (artifacts.run_dir("toy") / EXPLORER).write_text("<p></p>")
    reader = Reader()
    reader.feed(report.write("toy").read_text(encoding="utf-8"))
    assert EXPLORER in [attrs["href"] for attrs in reader.all("a")]


def test_dark_pages_small_screens_and_paper_are_served(page):
    markup, _ = page
    for rule in ("prefers-color-scheme: dark", "width=device-width", "@media print", "overflow-x:auto"):
        assert rule in markup


def test_a_run_without_a_finished_stage_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("ZEROSEARCH_OUTPUTS", str(tmp_path))
    with pytest.raises(MissingInput, match="./run_all.sh --run none"):
        report.write("none")


def test_writing_twice_replaces_the_report(tmp_path, monkeypatch):
    monkeypatch.setenv("ZEROSEARCH_OUTPUTS", str(tmp_path))
    small_run.write("toy")
    first, second = report.write("toy"), report.write("toy")
    assert first == second and [p.name for p in tmp_path.joinpath("toy").glob("*.html")] == ["report.html"]


@pytest.mark.parametrize("parameter", ["corpus_file", "questions_dir", "questions_source"])
def test_a_run_on_data_of_its_own_says_that_the_graph_shows_the_micro_world(parameter, page, tmp_path, monkeypatch):
    said = "micro-world on which the shipped models were made, not the corpus of this run"
    assert said not in page[0], "the toy run has the micro-world's own corpus"
    monkeypatch.setenv("ZEROSEARCH_OUTPUTS", str(tmp_path))
    artifacts.open_stage("own", "00", {**small_run.PARAMETERS, parameter: "mine"}).finish()
    assert said in report.render("own")


@pytest.mark.parametrize(("judge", "told"), [("rule", True), ("some-model at http://judge", False)])
def test_labels_that_no_model_made_are_said_to_be_the_rules(judge, told, tmp_path, monkeypatch):
    monkeypatch.setenv("ZEROSEARCH_OUTPUTS", str(tmp_path))
    artifacts.open_stage("toy", "01", small_run.PARAMETERS).finish(judge=judge)
    assert ("No model was asked in this run" in report.render("toy")) == told
