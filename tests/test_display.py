"""Notebook views: readable, and inert whatever a model or an engine wrote."""

from __future__ import annotations

import html
import re

import numpy as np
import pandas as pd
import pytest
import small_run
from hypothesis import given
from hypothesis import strategies as st

from zerosearch import display
from zerosearch.errors import WorkbookError
from zerosearch.schema import Passage, Question, Retrieval, ScoredTrajectory, SearchRequest, Trajectory, Turn

HOSTILE = small_run.HOSTILE
QUESTION = Question("nq/1", "nq", f"Who? {HOSTILE}", ("Ada", HOSTILE))


class Bytes:
    """A tokenizer whose ids are the bytes of UTF-8, as a byte fallback makes them."""

    def decode(self, ids) -> str:
        return bytes(ids).decode("utf-8", errors="replace")


def _trajectory(policy: str, observation: str, noisy: bool | None = True) -> Trajectory:
    request = SearchRequest("who", QUESTION)
    retrieval = Retrieval(request, (Passage("p", "", observation),), "simulator", noisy=noisy)
    ids = (*policy.encode(), *observation.encode())
    mask = (True,) * len(policy.encode()) + (False,) * len(observation.encode())
    logprobs = tuple(-0.5 if trained else 0.0 for trained in mask)
    turns = (Turn(policy, "search", policy, retrieval, observation),)
    return Trajectory(QUESTION, tuple(b"Question: "), ids, mask, logprobs, turns, "answer", answer="Ada")


def _is_inert(markup: str) -> None:
    assert "<script" not in markup.lower() and "onerror=" not in re.sub(r"&[^;]+;", "", markup).lower()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", markup)


def test_control_characters_become_visible_signs():
    assert display.clean("\x1b[31mred\x07\x7f\u202e\n\ttab") == "␛[31mred␇␡<U+202E>\n\ttab"


@given(st.text())
def test_escaping_loses_nothing_but_control_characters(text):
    escaped = display.escape(text)
    assert html.unescape(escaped) == display.clean(text)
    assert not set(escaped) & set("<>\"'")
    _is_inert(escaped)


def test_a_table_escapes_cells_headers_and_caption():
    view = display.table(pd.DataFrame({HOSTILE: [HOSTILE, 1]}), caption=HOSTILE)
    _is_inert(view.html)
    assert view.html.count("&lt;script&gt;") == 3 and "\x1b" not in repr(view)


def test_numbers_are_rounded_aligned_and_dashed():
    frame = pd.DataFrame({"arm": ["a", None], "n": [1200, 3], "value": [0.12345, np.nan],
                          "seed": [0.0, np.nan], "usd": [1.5, 2.0], "ok": [True, False]})
    view = display.table(frame, digits=2, formats={"usd": "${:.2f}"})
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", view.html)
    assert cells == ["a", "1,200", "0.12", "0", "$1.50", "True", "–", "3", "–", "–", "$2.00", "False"]
    assert view.html.count("text-align:right") == 4 * 3, "four columns of numbers"


def test_a_long_table_says_how_long_it_is():
    view = display.table(pd.DataFrame({"n": range(1000)}), "counts", max_rows=5)
    assert "counts (first 5 of 1,000 rows)" in view.html and view.html.count("<tr>") == 6


def test_an_empty_table_is_still_a_table():
    assert "<table" in display.table(pd.DataFrame(columns=["a"])).html


def test_tokens_are_coloured_by_the_loss_mask():
    markup = display.trajectory(_trajectory("ab", "xy"), Bytes()).html
    spans = re.findall(r'<span style="([^"]*)" title="([^"]*)">([^<]*)</span>', markup)
    written = {text: (style, tip) for style, tip, text in spans}
    policy, inserted = display._SOURCES["policy"][1], display._SOURCES["inserted"][1]
    assert written["a"][0] == written["b"][0] == policy and written["x"][0] == inserted
    assert written["a"][1] == f"id {ord('a')} · log-prob -0.500" and "log-prob" not in written["x"][1]
    assert "".join(text for _, _, text in spans) == "Question: abxy"


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=12), st.text(max_size=12))
def test_no_character_is_lost_and_none_is_split(policy, observation):
    observation = observation.encode(errors="ignore").decode()
    markup = display.trajectory(_trajectory(policy, observation), Bytes()).html
    _is_inert(markup)
    shown = "".join(re.findall(r'title="id [^"]*">([^<]*)</span>', markup))
    assert html.unescape(shown) == display.clean("Question: " + policy + observation)


def test_hostile_text_is_inert_everywhere_in_a_trajectory():
    scored = ScoredTrajectory(_trajectory(HOSTILE, HOSTILE), reward=0.5, em=1.0, cover_em=1.0, f1=0.5)
    view = display.trajectory(scored, Bytes())
    _is_inert(view.html)
    assert "reward 0.50" in view.html and "simulator (misleading)" in view.html and "\x1b" not in repr(view)


def test_the_noise_draw_is_shown_only_where_there_was_one():
    markup = display.trajectory(_trajectory("a", "b", noisy=None), Bytes()).html
    assert "(misleading)" not in markup and "(useful)" not in markup


def test_a_transcript_is_escaped():
    view = display.transcript(HOSTILE, HOSTILE, HOSTILE)
    _is_inert(view.html)
    assert "\x1b" not in repr(view)


def test_scores_in_words():
    wide = display.scores_wide(small_run.score_rows())
    assert wide.set_index("method").loc["zerosearch", "nq"] == "0.70 [0.65, 0.75]"
    average = small_run.score_rows().assign(dataset="average", low=np.nan)
    both = display.scores_wide(pd.concat([average, small_run.score_rows()]))
    assert list(both.columns)[-1] == "average" and both["average"].iloc[0] == "0.02"
    with pytest.raises(WorkbookError, match="run stage 04"):
        display.scores_wide(small_run.score_rows(), "f1")


def test_views_can_be_put_together():
    both = display.table(pd.DataFrame({"a": [1]})) + display.transcript("text")
    assert both.html.count("<table") == 1 and "text" in both.html and "text" in both.text
