"""The explorer's page: a whole, inert file; and what it decides, asked of a real engine of its language."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Callable

import pytest
import quickjs
from explorer_toys import HOSTILE, LONG, mixed, record
from hypothesis import given
from hypothesis import strategies as st

from zerosearch import explorer
from zerosearch.display import clean

LOGIC = (explorer.TEMPLATES / "explorer_logic.js").read_text(encoding="utf-8")


class Elements(HTMLParser):
    """Collects the elements, their attributes, and the text of the scripts and the style."""

    def __init__(self, page: str):
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[str] = []
        self._open = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self._open = tag in ("script", "style")
        if self._open:
            self.inside.append("")

    def handle_endtag(self, tag):
        self._open = False

    def handle_data(self, data):
        if self._open:
            self.inside[-1] += data

    @property
    def tags(self) -> list[str]:
        return [tag for tag, _ in self.found]


def data_of(page: str) -> dict[str, Any]:
    """Return the data element of a page, unpacked."""
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1]
    data = json.loads(text)
    return {**data, **json.loads(gzip.decompress(base64.b64decode(data.pop("gzip"))))}


def page_of(*records, title: str = "Toys", notes: tuple[str, ...] = ()) -> str:
    return explorer.page(records, title, notes)


# -- the file -------------------------------------------------------------------------------------


def test_the_policy_of_the_page_allows_its_own_script_and_style_alone():
    page = page_of(*mixed())
    elements = Elements(page)
    policy = next(attrs["content"] for tag, attrs in elements.found if attrs.get("http-equiv"))
    style, _, script = elements.inside
    for kind, text in (("script", script), ("style", style)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(", script)
    assert not [attrs for _, attrs in elements.found if {"src", "href", "style"} & set(attrs)]


def test_nothing_that_is_hostile_becomes_an_element():
    plain = Elements(page_of(record(), title="T", notes=("n",)))
    hostile = record(question=HOSTILE, answer=HOSTILE, policy=HOSTILE, passage=HOSTILE, golden=HOSTILE, method=HOSTILE,
                     noisy=(True,), dataset=HOSTILE)
    page = page_of(hostile, title=HOSTILE, notes=(HOSTILE,))
    elements = Elements(page)
    assert elements.tags == plain.tags
    assert elements.inside[0] == plain.inside[0] and elements.inside[2] == plain.inside[2]
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", page)


def test_hostile_text_arrives_unchanged_but_for_control_characters():
    made = record(question=HOSTILE, passage=HOSTILE, method=HOSTILE, dataset=HOSTILE, id=HOSTILE, noisy=(None,))
    data = data_of(page_of(made, title=HOSTILE, notes=(HOSTILE,)))
    (row,), texts = data["records"], data["texts"]
    shown = clean(HOSTILE)
    assert data["title"] == shown and data["notes"] == [shown]
    assert texts[row["question"]] == shown
    assert texts[row["searches"][0][6][0][1]] == shown
    tokens = [texts[data["tokens"][place][0]] for place in row["segments"][2][1]]
    assert "".join(tokens) == shown
    everything = [data["title"], *data["notes"], row["key"], *texts]
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", "".join(everything))


@given(st.text() | st.lists(st.text()))
def test_json_in_a_script_element_reads_back_and_ends_nothing(value):
    text = explorer.script_json(value)
    assert json.loads(text) == value
    assert not set(text) & set("<>&\u2028\u2029")


def test_half_a_surrogate_pair_does_not_stop_the_page():
    assert data_of(page_of(record(question="half \ud83d")))["texts"]


def test_every_text_and_token_is_stored_once():
    data = data_of(page_of(*mixed()))
    assert len(data["texts"]) == len(set(data["texts"]))
    assert len({tuple(token) for token in data["tokens"]}) == len(data["tokens"])
    assert len(data["records"]) == 6


def test_the_same_records_give_the_same_file():
    assert page_of(*mixed()) == page_of(*mixed())


def test_the_frame_of_a_notebook_holds_the_page_and_may_run_scripts_only():
    view = explorer.embed([record(question=HOSTILE)], height=500, title="A & B")
    elements = Elements(view.html)
    ((tag, attrs),) = elements.found
    assert (tag, attrs["sandbox"], attrs["title"]) == ("iframe", "allow-scripts", "A & B")
    assert "height:500px" in attrs["style"]
    assert attrs["srcdoc"] == explorer.page([record(question=HOSTILE)], "A & B", embedded=True)
    assert "1 trajectories" in view.text and "<" not in view.text


def test_write_leaves_one_whole_file(tmp_path):
    path = explorer.write(tmp_path / "new" / "page.html", mixed(), "Toys")
    assert path.read_text(encoding="utf-8") == page_of(*mixed()) and list(path.parent.iterdir()) == [path]


# -- what the page decides --------------------------------------------------------------------------

Ask = Callable[[str], Any]


@pytest.fixture(scope="module")
def setting() -> str:
    """The logic of the page, with the records of ``mixed`` as ``rows``."""
    packed = {name: value for name, value in data_of(page_of(*mixed())).items() if name in ("texts", "tokens", "records")}
    return f"{LOGIC}\nconst rows = unpack({json.dumps(packed)}); const text = haystack;"


@pytest.fixture(scope="module")
def ask(setting: str) -> Ask:
    """Return what gives the value of an expression about ``rows``, the six records of ``mixed``."""
    engine = quickjs.Context()
    engine.eval(setting)
    return lambda expression: json.loads(engine.eval(f"JSON.stringify({expression})"))


def test_outcomes_and_noise_of_the_records(ask):
    assert ask("rows.map((r) => r.outcome)") == ["right", "wrong", "no answer", "right", "wrong", "right"]
    assert ask("rows.map((r) => r.noise)") == [
        "some misleading", "all useful", "no search", "all useful", "no search", "no draw"]


@pytest.mark.parametrize(("chosen", "query", "found"), [
    ({}, "", [0, 1, 2, 3, 4, 5]),
    ({"dataset": "musique"}, "", [3]),
    ({"stage": "evaluation (04)"}, "", [4, 5]),
    ({"method": "zerosearch", "outcome": "right"}, "", [0, 3]),
    ({"stop": "length"}, "", [2]),
    ({"searches": "1"}, "", [1, 5]),
    ({"noise": "some misleading"}, "", [0]),
    ({"seed": "1"}, "", [5]),
    ({}, "BOB", [1]),
    ({}, "wrote say", [0, 1]),
    ({}, '"wrote say"', []),
    ({}, '"Where is" cy', [4]),
    ({}, "query", [0, 1, 3, 5]),
    ({"outcome": "wrong"}, "bob", [1]),
    ({"dataset": ""}, "   ", [0, 1, 2, 3, 4, 5]),
    ({}, ".*", []),
])
def test_filters_and_search(ask, chosen, query, found):
    assert ask(f"select(rows, {json.dumps(chosen)}, {json.dumps(query)}, text).map((r) => r.index)") == found


def test_counts_say_what_every_other_choice_would_give(ask):
    found = dict(zip(ask("FACETS.map(([name]) => name)"), ask('counts(rows, {outcome: "right"}, "", text)')))
    assert found["outcome"] == [["no answer", 1], ["right", 3], ["wrong", 2]], "its own choice does not count"
    assert found["dataset"] == [["musique", 1], ["nq", 2]]
    assert found["searches"] == [["0", 0], ["1", 1], ["2", 1], ["3", 1]]
    assert dict(ask('counts(rows, {}, "bob", text)')[4]) == {"right": 0, "wrong": 1, "no answer": 0}


@pytest.mark.parametrize(("order", "indexes"), [
    ("stored", [0, 1, 2, 3, 4, 5]),
    ("worst", [1, 2, 4, 3, 0, 5]),
    ("best", [0, 5, 3, 1, 2, 4]),
    ("advantage", [0, 3, 1, 2, 4, 5]),
    ("disadvantage", [2, 1, 3, 0, 4, 5]),
    ("searches", [3, 0, 1, 5, 2, 4]),
    ("step", [3, 0, 1, 2, 4, 5]),
    ("question", [3, 4, 5, 0, 1, 2]),
    ("unknown", [0, 1, 2, 3, 4, 5]),
])
def test_orders_are_stable(ask, order, indexes):
    assert ask(f'arrange(rows, "{order}").map((r) => r.index)') == indexes


def test_groups(ask):
    assert ask("rows.map((r) => groupOf(rows, r).map((s) => s.index))") == [
        [0, 1, 2], [0, 1, 2], [0, 1, 2], [3], [4, 5], [4, 5]]


@pytest.mark.parametrize(("arguments", "rows"), [
    ("0, 500, 50, 2000", [0, 18]), ("5000, 500, 50, 2000", [92, 118]), ("99500, 500, 50, 2000", [1982, 2000]),
    ("0, 500, 50, 3", [0, 3]), ("0, 500, 50, 0", [0, 0]), ("9000, 500, 50, 3", [0, 3]),
])
def test_only_rows_near_the_window_exist(ask, arguments, rows):
    assert ask(f"windowOf({arguments})") == rows


def test_texts_are_cut_at_the_ranges(ask):
    assert ask('pieces("I say Ada.", [[6, 9]])') == [["I say ", False], ["Ada", True], [".", False]]
    assert ask('pieces("Ada", [[0, 3]])') == [["Ada", True]]
    assert ask('pieces("", [])') == [] and ask("pairs([1, 2, 5, 9])") == [[1, 2], [5, 9]]


def test_the_tip_of_a_token(ask):
    assert ask('tipOf({ids: [7]}, -104, "policy", "03")') == "id 7 · log-prob -0.104 nats · written by the policy, in the loss"
    assert ask('tipOf({ids: [7, 8]}, undefined, "inserted", "03")') == "id 7, 8 · inserted, not in the loss"
    assert ask('tipOf({ids: [7]}, -104, "policy", "04")') == "id 7 · log-prob -0.104 nats · written by the policy"
    assert "not kept" in ask('tipOf({ids: []}, undefined, "text")')
    assert [ask("signed(1.5)"), ask("signed(-0.5)"), ask("signed(0)")] == ["+1.50", "−0.50", "+0.00"]


# -- the page in a browser ----------------------------------------------------------------------------


def opened(browser, tmp_path: Path, *records, **options) -> None:
    browser.open(explorer.write(tmp_path / "page.html", records, options.pop("title", "Toys"), **options))


def test_a_browser_shows_the_first_trajectory_and_complains_about_nothing(browser, tmp_path):
    opened(browser, tmp_path, *mixed())
    assert browser.value("byId('counts').textContent") == "6 trajectories, 3 right"
    assert browser.value("document.querySelectorAll('#list .row').length") == 6
    shown = browser.value("document.querySelector('#detail').textContent")
    for part in ("who wrote it", "Golden answer", "+1.50", "cover EM", "answer", "query 0", "misleading", "useful", "fact"):
        assert part in shown, part
    assert browser.value("document.querySelector('#detail .tokens').textContent") == (
        "Q: who wrote it" + "I say Ada" + 2 * "It was written by Ada.")
    assert not browser.named("Runtime.exceptionThrown", "Log.entryAdded")
    assert [e["request"]["url"].split(":")[0] for e in browser.named("Network.requestWillBeSent")] == ["file"]


def test_hostile_text_does_nothing_in_a_browser(browser, tmp_path):
    hostile = record(question=HOSTILE, answer=HOSTILE, policy=HOSTILE, passage=HOSTILE, golden=HOSTILE, method=HOSTILE,
                     noisy=(True,), dataset=HOSTILE)
    opened(browser, tmp_path, record(noisy=(True,)), title="T", notes=("n",))
    tags = "[...new Set([...document.querySelectorAll('*')].map((e) => e.tagName))].sort()"
    usual = set(browser.value(tags))
    opened(browser, tmp_path, hostile, record(question=LONG, id="2"), title=HOSTILE, notes=(HOSTILE,))
    browser.press("?", "Escape", "g", "j", "k")
    assert set(browser.value(tags)) <= usual
    assert browser.value("typeof window.__pwned") == "undefined"
    assert browser.value("document.querySelector('#detail h2').textContent") == clean(HOSTILE)
    assert browser.value("document.querySelector('.p-policy').textContent") == clean(HOSTILE)
    assert browser.value("document.documentElement.scrollWidth <= innerWidth"), "a long word made the page wider"
    assert not browser.named("Page.javascriptDialogOpening", "Runtime.exceptionThrown", "Log.entryAdded")


def test_a_question_of_50_000_characters_is_shown_whole(browser, tmp_path):
    opened(browser, tmp_path, record(question=LONG))
    assert browser.value("document.querySelector('#detail h2').textContent") == LONG
    assert browser.value("document.querySelector('.row b').textContent.length") == 240


def test_an_injected_script_would_not_run(browser, tmp_path):
    opened(browser, tmp_path, record())
    browser.value("document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.__pwned = 3'}))")
    browser.value("document.body.setAttribute('onclick', 'window.__pwned = 4'), document.body.click()")
    assert browser.value("typeof window.__pwned") == "undefined"


def test_everything_can_be_done_with_the_keyboard(browser, tmp_path):
    opened(browser, tmp_path, *mixed())
    place = "state.shown[state.current].index"
    browser.press("j", "j")
    assert browser.value(place) == 2
    browser.press("k", "ArrowDown", "ArrowDown", "ArrowUp")
    assert browser.value(place) == 2
    browser.press("/", "B", "o", "b")
    assert browser.wait("state.shown.length === 1") and browser.value(place) == 1
    browser.press("Escape", "End")
    assert browser.value("document.activeElement.id") == "list" and browser.value(place) == 1
    browser.press("2", "3", "1")
    assert browser.value("document.body.className.split(' ').sort()") == ["show-advantage", "show-golden", "show-mask"]
    assert browser.value("[...document.querySelectorAll('.toolbar [aria-pressed=true]')].map((b) => b.dataset.key)") == [
        "2", "3", "4"]
    browser.press("g")
    assert browser.value("document.querySelectorAll('.side-by-side article').length") == 3
    browser.press("?")
    assert browser.value("byId('help').open")
    browser.press("Escape")
    assert not browser.value("byId('help').open")


def test_tokens_tell_their_id_and_log_probability(browser, tmp_path):
    opened(browser, tmp_path, record(question="q", policy="Ada"))
    browser.value("document.querySelector('.tokens').focus()")
    browser.press(*["ArrowRight"] * 5)
    assert browser.value("document.querySelector('.here').textContent") == "A"
    assert browser.value("byId('tip').textContent") == (
        f"id {ord('A')} · log-prob -0.500 nats · written by the policy, in the loss")
    browser.press("ArrowLeft")
    assert browser.value("byId('tip').textContent") == f"id {ord('q')} · prompt, not in the loss"


def test_filters_follow_the_choices_and_the_address_names_the_trajectory(browser, tmp_path):
    opened(browser, tmp_path, *mixed())
    browser.value("byId('filter-outcome').value = 'wrong', byId('filter-outcome').dispatchEvent(new Event('change'))")
    assert browser.value("byId('counts').textContent") == "2 of 6 trajectories, 0 right"
    assert browser.value("[...byId('filter-dataset').options].map((o) => o.textContent)") == [
        "all", "musique (0)", "nq (2)"]
    browser.press("j")
    key = browser.value("decodeURIComponent(location.hash.slice(1))")
    assert key == mixed()[4].key
    browser.send("Page.reload")
    assert browser.wait("document.documentElement?.dataset.readyMs && state.shown[state.current].key === " + json.dumps(key))


def test_no_trajectory_left_is_said_and_breaks_nothing(browser, tmp_path):
    opened(browser, tmp_path, *mixed())
    browser.press("/", *"zzz")
    browser.wait("state.shown.length === 0")
    browser.press("Escape", "j", "g", "p")
    assert "No trajectory fits" in browser.value("document.querySelector('#detail').textContent")
    assert not browser.named("Runtime.exceptionThrown")


def test_thousands_of_rows_are_listed_but_few_exist(browser, tmp_path):
    opened(browser, tmp_path, *(record(n, policy=f"number {n}") for n in range(3000)))
    assert browser.value("document.querySelectorAll('#list .row').length") < 60
    browser.value("byId('list').focus()")
    browser.press("End")
    assert browser.value("document.querySelector('.p-policy').textContent") == "number 2999"
    assert browser.value("document.querySelector('[aria-selected=true]').getAttribute('aria-posinset')") == "3000"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_told_from_its_ground(browser, tmp_path, scheme):
    browser.prefer(scheme)
    opened(browser, tmp_path, *mixed())
    contrast = """(() => {
      const light = (colour) => { const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
        .map((v) => (v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)); return .2126 * r + .7152 * g + .0722 * b; };
      const page = light(getComputedStyle(document.body).backgroundColor);
      return ['h2', '.s-prompt', '.row small', 'dt', '.sign.wrong', '.sign.right', '.tag.bad', '.tag.good'].map((name) => {
        const ink = light(getComputedStyle(document.querySelector(name)).color);
        return (Math.max(ink, page) + .05) / (Math.min(ink, page) + .05); }); })()"""
    assert min(browser.value(contrast)) >= 4.5, "WCAG AA for text"
    assert browser.value("getComputedStyle(document.body).backgroundColor") == {
        "light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 29)"}[scheme]


def test_the_theme_can_be_turned_by_hand(browser, tmp_path):
    opened(browser, tmp_path, record())
    browser.press("t", "t")
    assert browser.value("[byId('theme').textContent, getComputedStyle(document.body).backgroundColor]") == [
        "Theme: dark", "rgb(20, 24, 29)"]


def test_one_or_all_trajectories_are_printed(browser, tmp_path):
    opened(browser, tmp_path, *mixed())

    def pages() -> int:
        browser.pdf(tmp_path / "printed.pdf")
        return len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "printed.pdf").read_bytes()))

    assert pages() == 1
    browser.value("window.print = () => {}, byId('print-all').click()")
    assert browser.value("document.querySelectorAll('#print .sheet').length") == 6 == pages()


def test_the_frame_works_without_an_origin(browser, tmp_path):
    view = explorer.embed(mixed())
    outer = tmp_path / "notebook.html"
    outer.write_text(f"<!doctype html><html data-ready-ms=1><body>{view.html}</body></html>", encoding="utf-8")
    browser.open(outer)
    browser.events.clear()
    tree = browser.send("Page.getFrameTree")["frameTree"]
    (frame,) = tree["childFrames"]
    assert html.unescape(frame["frame"]["url"]) == "about:srcdoc"
    world = browser.send("Page.createIsolatedWorld", frameId=frame["frame"]["id"])["executionContextId"]
    for _ in range(200):
        found = browser.send("Runtime.evaluate", contextId=world, returnByValue=True, expression=(
            "document.documentElement.dataset.readyMs && "
            "[document.getElementById('counts').textContent, document.getElementById('print-one').hidden]"))
        if value := found["result"].get("value"):
            break
    assert value == ["6 trajectories, 3 right", True]
    assert not browser.named("Runtime.exceptionThrown", "Log.entryAdded")
