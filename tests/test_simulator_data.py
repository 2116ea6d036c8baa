"""simulator_data.py: leaks dropped, lessons planned, tokens weighted."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from conftest_models import FAMILIES, tokenizer_of
from hypothesis import given
from hypothesis import strategies as st
from test_renaming import EXAMPLES, FILMS, PEOPLE, example, passage

from zerosearch.errors import ConfigError
from zerosearch.labels import Pair
from zerosearch.microworld.tokenizer import build_tokenizer
from zerosearch.prompts import Prompts, prompt_ids
from zerosearch.schema import Passage, Question
from zerosearch.training.renaming import SimulatorExample
from zerosearch.training.simulator_data import (
    Lesson,
    answer_is_asked,
    answer_weights,
    batched,
    collate,
    drop_leaks,
    encode,
    examples_from_pairs,
    has_answer,
    hold_out,
    lesson_plan,
)

TOKENIZER = build_tokenizer()
PROMPTS = Prompts.load("micro", TOKENIZER)


def pair(label_judge: str, label_trajectory: str, passage_labels: tuple[str, ...]) -> Pair:
    hops = [{"subject": FILMS[0], "relation": "director", "object": PEOPLE[0], "sentence": "s"}]
    question = Question("nq/1", "nq", "who directed Silver Harbor", (PEOPLE[0], "A. Falk"), "train", {"hops": hops})
    return Pair(
        "nq/1#0.0", 1, question, "director of Silver Harbor", "bm25", example().passages,
        passage_labels, True, label_trajectory, label_judge,  # type: ignore[arg-type]
    )


def test_a_useful_pair_also_teaches_what_came_besides() -> None:
    whole, rest = examples_from_pairs([pair("useful", "misleading", ("useful", "misleading"))])
    assert whole.useful and whole.passages == example().passages and whole.golden_answer == PEOPLE[0]
    assert whole.aliases == (PEOPLE[0], "A. Falk") and whole.facts == ((FILMS[0], "director", PEOPLE[0]),)
    assert not rest.useful and rest.passages == example().passages[1:] and rest.key != whole.key


def test_what_came_besides_is_filled_up_with_passages_that_mislead_too() -> None:
    mine = pair("useful", "misleading", ("useful", "misleading"))
    says_it = Passage("x", FILMS[0], f"{PEOPLE[0]} directed {FILMS[0]}.", mine.passages[0].metadata)
    other = replace(
        mine, trajectory_id="nq/2#0.0", passages=(says_it, passage(FILMS[2], "director", PEOPLE[2], 7)),
        passage_labels=("misleading", "misleading"), label_judge="misleading",
    )
    _, rest, _ = examples_from_pairs([mine, other])
    assert rest.passages[0] == mine.passages[1] and len(rest.passages) == 2
    assert rest.passages[1].id == "p7"  # the passage that states the asked-for fact was not taken
    assert examples_from_pairs([mine, other]) == examples_from_pairs([mine, other])


def test_the_trajectory_label_has_one_word_for_the_whole_list() -> None:
    (only,) = examples_from_pairs([pair("useful", "misleading", ("useful", "misleading"))], "trajectory")
    assert not only.useful and only.passages == example().passages


def test_a_misleading_pair_stays_one_example_and_unknown_labels_are_refused() -> None:
    (only,) = examples_from_pairs([pair("misleading", "useful", ("misleading", "misleading"))])
    assert not only.useful
    with pytest.raises(ConfigError, match="did you mean 'judge'"):
        examples_from_pairs([], "judgee")


def test_misleading_pairs_with_the_golden_answer_are_dropped() -> None:
    leaking = replace(example(useful=False), golden_answer=PEOPLE[0], aliases=("A. Falk", PEOPLE[0]))
    clean = example(useful=False)
    useful = replace(leaking, useful=True)  # may of course contain it
    assert drop_leaks([leaking, clean, useful]) == ([clean, useful], 1)


def test_an_answer_that_the_question_names_is_no_leak() -> None:
    comparison = replace(
        example(useful=False), question=f"Which came out first, {FILMS[0]} or {FILMS[1]}?", golden_answer=FILMS[0],
        aliases=(FILMS[0],),
    )
    assert answer_is_asked(comparison) and has_answer(comparison, comparison.passages)
    assert drop_leaks([comparison]) == ([comparison], 0)


def test_hold_out_splits_by_question() -> None:
    twice = [*EXAMPLES, *(replace(e, query="another query") for e in EXAMPLES)]
    train, held = hold_out(twice, 0.5, seed=3)
    assert len(train) + len(held) == 8 and held and train
    assert not {e.question for e in train} & {e.question for e in held}
    assert hold_out(twice, 0.0, 3) == (twice, []) and hold_out(twice, 1.0, 3) == ([], twice)


def test_the_plan_alternates_kinds_and_repeats_none_early() -> None:
    pool = [*EXAMPLES, *(replace(e, useful=False, key=f"{e.key} no") for e in EXAMPLES[:2])]
    plan = lesson_plan(pool, 16, rename_share=0.0, seed=0)
    assert [e.useful for e in plan] == [True, False] * 8
    assert Counter(e.key for e in plan if e.useful) == Counter({film: 2 for film in FILMS})  # two whole passes
    assert all(count == 4 for count in Counter(e.key for e in plan if not e.useful).values())
    assert plan == lesson_plan(pool, 16, 0.0, 0) and plan[:8] == lesson_plan(pool, 8, 0.0, 0)


def test_a_kind_that_is_absent_is_done_without() -> None:
    assert all(e.useful for e in lesson_plan(EXAMPLES, 6, 0.0, 0))


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0, 0), (1.0, 200, 200), (0.8, 140, 180)])
def test_the_share_of_renamed_examples(share: float, low: int, high: int) -> None:
    plan = lesson_plan(EXAMPLES, 200, share, seed=1)
    renamed = sum(e.query != f"director of {e.key}" for e in plan)
    assert low <= renamed <= high


def test_the_golden_answer_weighs_more_token_by_token() -> None:
    lesson = encode(replace(example(), golden_answer=PEOPLE[0], aliases=(PEOPLE[0],)), PROMPTS, 4.0, 256)
    learned = lesson.input_ids[lesson.n_prompt :]
    assert len(learned) == len(lesson.weights)
    heavy = TOKENIZER.decode([i for i, w in zip(learned, lesson.weights) if w == 4.0])
    assert heavy.strip() == PEOPLE[0]
    assert learned[-1] == TOKENIZER.eos_token_id and lesson.weights[-1] == 1.0
    text = TOKENIZER.decode(lesson.input_ids[: lesson.n_prompt])
    assert text.endswith("Passages:") and "useful" in text and PEOPLE[0] in text
    assert TOKENIZER.decode(learned[:-1]) == PROMPTS.simulator_target(example().passages)


@pytest.mark.parametrize(("family", "chat"), FAMILIES)
def test_a_lesson_is_a_prompt_passages_and_one_end_in_every_family(family: str, chat: bool) -> None:
    tokenizer = tokenizer_of(family, chat)
    prompts, one = Prompts.load("micro", tokenizer), example()
    lesson = encode(one, prompts, 4.0, 256)
    prompt, learned = lesson.input_ids[: lesson.n_prompt], lesson.input_ids[lesson.n_prompt :]
    asked = prompts.simulator_prompt(one.query, one.question, one.golden_answer, True, len(one.passages))
    assert list(prompt) == prompt_ids(tokenizer, asked)
    assert tokenizer.decode(learned) == prompts.simulator_target(one.passages) + tokenizer.eos_token
    assert tokenizer.bos_token_id not in learned and learned.count(tokenizer.eos_token_id) == 1
    rows = [{"input_ids": lesson.input_ids[:n], "n_prompt": lesson.n_prompt, "weights": lesson.weights}
            for n in (len(lesson.input_ids), len(lesson.input_ids) - 2)]
    rows[1]["weights"] = lesson.weights[:-2]
    targets = collate(rows, tokenizer)["targets"].tolist()
    assert targets == [*learned, *learned[:-2]]  # the end is learned once, padding never, also where they are one token


def test_misleading_examples_have_no_heavy_tokens_and_say_so() -> None:
    lesson = encode(replace(example(useful=False), golden_answer=PEOPLE[0]), PROMPTS, 4.0, 256)
    assert set(lesson.weights) == {1.0}
    assert "misleading" in TOKENIZER.decode(lesson.input_ids[: lesson.n_prompt])


def test_a_cut_example_does_not_learn_to_stop_there() -> None:
    whole = encode(example(), PROMPTS, 4.0, 256)
    cut = encode(example(), PROMPTS, 4.0, len(whole.input_ids) - 3)
    assert cut.input_ids == whole.input_ids[:-3] and cut.weights == whole.weights[:-3]
    assert TOKENIZER.eos_token_id not in cut.input_ids
    assert encode(example(), PROMPTS, 4.0, whole.n_prompt) is None


def test_answer_weights_by_hand() -> None:
    text = "born in Port Amber. PORT AMBER"
    offsets = [(0, 4), (4, 7), (7, 12), (12, 18), (18, 19), (19, 24), (24, 30)]
    assert answer_weights(text, offsets, ["Port Amber"], 4.0) == [1, 1, 4, 4, 1, 4, 4]
    assert answer_weights(text, offsets, ["ort", ""], 4.0) == [1.0] * 7  # whole words only


@given(st.integers(1, 120), st.integers(1, 9))
def test_batches_hold_every_lesson_once(count: int, batch_size: int) -> None:
    lessons = [Lesson(tuple(range(2 + (i * 7) % 23)), 1, ()) for i in range(count)]
    ordered = batched(lessons, batch_size, seed=0)
    assert Counter(map(id, ordered)) == Counter(map(id, lessons))
    assert ordered == batched(lessons, batch_size, seed=0)


def test_batches_need_less_padding_than_the_plan() -> None:
    lessons = [Lesson(tuple(range(2 + (i * 37) % 101)), 1, ()) for i in range(64)]

    def cells(order: list[Lesson]) -> int:
        return sum(max(len(x.input_ids) for x in order[i : i + 8]) * 8 for i in range(0, 64, 8))

    assert cells(batched(lessons, 8, seed=0)) < 0.7 * cells(lessons)


def test_collate_by_hand() -> None:
    rows = [
        {"input_ids": [5, 6, 7], "n_prompt": 1, "weights": [1.0, 4.0]},
        {"input_ids": [5, 6, 7, 8, 9], "n_prompt": 3, "weights": [2.0, 1.0]},
    ]
    batch = collate(rows, TOKENIZER)
    pad = TOKENIZER.pad_token_id
    assert batch["input_ids"].tolist() == [[5, 6, pad, pad], [5, 6, 7, 8]]
    assert batch["positions"].tolist() == [0, 1, 6, 7]
    assert batch["targets"].tolist() == [6, 7, 8, 9]
    assert torch.equal(batch["weights"], torch.tensor([1.0, 4.0, 2.0, 1.0]))


def test_text_of_any_script_keeps_its_weights() -> None:
    odd = SimulatorExample("café 東京", "où ?", "東京", True, (Passage("p", "", "La ville de 東京, Japon."),))
    lesson = encode(odd, PROMPTS, 4.0, 512)
    heavy = TOKENIZER.decode([i for i, w in zip(lesson.input_ids[lesson.n_prompt :], lesson.weights) if w == 4.0])
    assert heavy.strip() == "東京"
