"""Records of the explorer: who wrote a token, where a golden answer stands, what a search brought."""

from __future__ import annotations

import pandas as pd
import pytest
from conftest_models import TOKENIZER
from hypothesis import given
from hypothesis import strategies as st

from zerosearch import explorer_records as records
from zerosearch import rollout, scoring
from zerosearch.display import clean
from zerosearch.explorer_records import Origin, Speller
from zerosearch.microworld.language import MISLEADING
from zerosearch.schema import Passage, Question, Retrieval, ScoredTrajectory, SearchRequest, Trajectory, Turn

TRAINING = Origin("03", "zerosearch", 2)
QUESTION = Question("nq/1", "nq", "who wrote it", ("Ada Falk",), "train")


class Bytes:
    """A tokenizer whose ids are the bytes of UTF-8, as a byte fallback makes them."""

    def decode(self, ids) -> str:
        return bytes(ids).decode("utf-8", errors="replace")


class NoFirstBlank:
    """A tokenizer of words that drops the blank of the first, as SentencePiece does."""

    def decode(self, ids) -> str:
        return "".join(f" word{i}" for i in ids).removeprefix(" ")


def trajectory(**changes) -> Trajectory:
    """Return: prompt of 2 tokens, 3 of the policy, 2 inserted, 2 of the policy."""
    request = SearchRequest("author of it", QUESTION, step=3, sample=1, noise_probability=0.5)
    passages = (
        Passage("p1", "It", "It was written by Ada Falk.", {"kind": "fact"}),
        Passage("p2", "It", "It was written by Ada Falkner.", {"kind": MISLEADING[0]}),
    )
    found = Retrieval(request, passages, "simulator", noisy=True, cached=True)
    turns = (Turn("a", "search", "author of it", found, "b"), Turn("c", "answer", "Ada Falk"))
    values = dict(
        question=QUESTION, prompt_ids=(72, 105), token_ids=(97, 0xC3, 0xA9, 98, 98, 99, 100),
        loss_mask=(True, True, True, False, False, True, True), logprobs=(-0.5, -0.25, -0.125, 0.0, 0.0, -1.0, -2.0),
        turns=turns, stop_reason="answer", answer="Ada Falk", step=3, sample=1,
    )
    return Trajectory(**values | changes)


def test_sources_follow_the_loss_mask_and_bytes_of_one_character_stay_together():
    segments = records.of_trajectory(trajectory(), Speller(Bytes()), TRAINING).segments
    assert [s.source for s in segments] == ["prompt", "policy", "inserted", "policy"]
    assert segments[0].spans == (("H", (72,)), ("i", (105,)))
    assert segments[1].spans == (("a", (97,)), ("é", (0xC3, 0xA9)))
    assert segments[1].logprobs == (-0.5, -0.375), "the log-probability of é is the sum over its bytes"
    assert segments[2].spans == (("b", (98,)), ("b", (98,))) and segments[2].logprobs == ()
    assert segments[3].logprobs == (-1.0, -2.0)


def test_no_token_is_lost_or_invented():
    record = records.of_trajectory(trajectory(), Speller(Bytes()), TRAINING)
    ids = [i for s in record.segments for _, span in s.spans for i in span]
    assert ids == [72, 105, 97, 0xC3, 0xA9, 98, 98, 99, 100]
    assert (record.n_tokens, record.n_written, record.n_searches) == (7, 5, 1)


@given(st.text())
def test_spans_read_as_the_ids_decoded_at_once(text):
    encoded = TOKENIZER(text, add_special_tokens=False).input_ids
    spans = Speller(TOKENIZER).spell(encoded)
    assert "".join(shown for shown, _ in spans) == clean(TOKENIZER.decode(encoded))
    assert [i for _, ids in spans for i in ids] == encoded


@given(st.binary(max_size=40))
def test_bytes_that_are_no_text_are_shown_too(data):
    spans = Speller(Bytes()).spell(tuple(data))
    assert "".join(shown for shown, _ in spans) == clean(data.decode("utf-8", errors="replace"))
    assert b"".join(bytes(ids) for _, ids in spans) == data


def test_the_blank_between_words_survives_a_tokenizer_that_drops_the_first():
    assert [text for text, _ in Speller(NoFirstBlank()).spell((4, 5, 6))] == ["word4", " word5", " word6"]


def test_scores_come_from_the_answer_and_reward_and_advantage_from_training():
    scored = ScoredTrajectory(trajectory(answer="Ada"), 2 / 3, 0.0, 0.0, 2 / 3)
    record = records.of_scored(scored, Speller(Bytes()), TRAINING, advantage=-0.5)
    assert record.scores == scoring.Scores(0.0, 0.0, pytest.approx(2 / 3))
    assert (record.reward, record.advantage) == (2 / 3, -0.5)
    plain = records.of_trajectory(trajectory(answer=None), Speller(Bytes()), Origin("04", "search"))
    assert (plain.answer, plain.reward, plain.advantage, plain.scores.f1) == (None, None, None, 0.0)


def test_a_group_is_one_step_in_training_and_one_question_in_evaluation():
    def group(origin: Origin, **changes) -> str:
        return records.of_trajectory(trajectory(**changes), Speller(Bytes()), origin).group

    assert group(TRAINING) == group(TRAINING, sample=2) != group(TRAINING, step=4)
    assert group(TRAINING) != group(Origin("03", "zerosearch", 1))
    assert group(Origin("04", "rag", 0)) == group(Origin("04", "zerosearch", 2))


def test_searches_show_noise_cache_kinds_and_golden_answers():
    (search,) = records.of_trajectory(trajectory(), Speller(Bytes()), TRAINING).searches
    assert (search.turn, search.query, search.source, search.noisy, search.cached) == (
        0, "author of it", "simulator", True, True)
    fact, misleading = search.passages
    assert (fact.kind, fact.misleading, misleading.kind, misleading.misleading) == ("fact", False, MISLEADING[0], True)
    assert [fact.text[a:b] for a, b in fact.golden] == ["Ada Falk"]
    assert misleading.golden == (), "Falkner is another word"


def test_a_failed_search_keeps_its_reason():
    failed = Retrieval(SearchRequest("q", QUESTION), (), "serpapi", error="quota \x1b[31m")
    made = trajectory(turns=(Turn("a", "search", "q", failed),), stop_reason="retriever_error", answer=None, error="quota")
    record = records.of_trajectory(made, Speller(Bytes()), TRAINING)
    assert (record.searches[0].error, record.error, record.stop_reason) == ("quota ␛[31m", "quota", "retriever_error")


@pytest.mark.parametrize(("text", "golden", "found"), [
    ("<answer> Lower Hazel</answer>", ["Lower Hazel"], ["Lower Hazel"]),
    ("In LOWER  hazel, and in (Lower Hazel).", ["Lower Hazel"], ["LOWER  hazel", "Lower Hazel"]),
    ("It is the Moon<|im_end|>", ["The Moon"], ["Moon"]),
    ("born in the U.S.A.", ["USA"], ["U.S.A"]),
    ("1935 and 35", ["35"], ["35"]),
    ("hello", ["l"], []),
    ("Ada Falk Ada", ["Ada Falk", "Falk Ada"], ["Ada Falk Ada"]),
    ("--- the ---", ["---"], []),
    ("", ["x"], []),
])
def test_golden_answers_are_found_as_whole_words(text, golden, found):
    assert [text[a:b] for a, b in records.golden_ranges(text, golden)] == found


@given(st.text(alphabet="aAb .,-'the\n\t\xa0İσς", max_size=30), st.text(alphabet="aAb .the", max_size=6))
def test_a_range_is_found_exactly_where_cover_em_says_yes(text, golden):
    ranges = records.golden_ranges(text, [golden])
    assert bool(ranges) == scoring.contains_answer(text, [golden])
    assert all(0 <= a < b <= len(text) for a, b in ranges)
    assert all(before[1] < after[0] for before, after in zip(ranges, ranges[1:]))


def test_golden_tokens_are_marked_one_by_one():
    made = trajectory(token_ids=tuple(b"x Ada Falk."), loss_mask=(True,) * 11, logprobs=(-1.0,) * 11)
    segment = records.of_trajectory(made, Speller(Bytes()), TRAINING).segments[1]
    assert "".join("^" if golden else "." for golden in segment.golden) == "..^^^^^^^^."


def test_rows_of_a_training_become_the_records_of_their_trajectories():
    table = rollout.trajectories_to_table([trajectory(), trajectory(sample=2, answer=None, stop_reason="length")])
    table = table.assign(reward=[1.0, 0.0], advantage=[0.7, float("nan")])
    first, second = records.of_table(table, Speller(Bytes()), TRAINING)
    assert first == records.of_trajectory(trajectory(), Speller(Bytes()), TRAINING, 1.0, 0.7)
    assert (second.reward, second.advantage, second.answer) == (0.0, None, None)
    assert first.key != second.key


def test_transcripts_are_shown_as_text_without_tokens():
    rows = pd.DataFrame([{
        "method": "rag", "seed": 0, "dataset": "nq", "question_id": "nq/1", "question": "who", "golden_answers": ["Ada"],
        "prediction": None, "stop_reason": "length", "error": None, "n_searches": 1, "n_tokens": 9,
        "transcript": "I say Ada\x00 now",
    }])
    (record,) = records.of_transcripts(rows)
    (segment,) = record.segments
    assert segment.source == "text" and segment.logprobs == ()
    assert [(text, golden) for (text, _), golden in zip(segment.spans, segment.golden)] == [("I say Ada␀ now", False)]
    (record,) = records.of_transcripts(rows.assign(transcript="I say Ada now", prediction="Ada"))
    assert [text for text, _ in record.segments[0].spans] == ["I say ", "Ada", " now"]
    assert record.segments[0].golden == (False, True, False) and record.scores.em == 1.0
    assert (record.n_searches, record.n_written, record.searches) == (1, 9, ())


def test_rows_of_an_evaluation_name_their_own_method():
    given = Turn("", "search", "who wrote it", trajectory().turns[0].retrieval, "read")
    table = rollout.trajectories_to_table([trajectory(turns=(given, *trajectory().turns), step=0, sample=0)])
    (record,) = records.of_table(table.assign(method="rag", seed=4, given=True), Speller(Bytes()))
    assert record.origin == Origin("04", "rag", 4) and record.group == "04/nq/1"
    assert [search.turn for search in record.searches] == [-1, 0] and record.n_searches == 2
    assert (record.reward, record.advantage) == (None, None)
