"""The world, its questions, and what the bases were allowed to read."""

from __future__ import annotations

from collections import Counter

import pytest

from zerosearch import seeds
from zerosearch.microworld import language as lang
from zerosearch.microworld import pretrain, pretrain_texts as texts, prepare
from zerosearch.microworld.tokenizer import build_tokenizer
from zerosearch.microworld.world import build_questions, build_world, is_world_name
from zerosearch.prompts import MICRO, Prompts
from zerosearch.schema import Passage

WORLD = build_world(7)
QUESTIONS = build_questions(WORLD, 150, 900)
TOKENIZER = build_tokenizer()
PROMPTS = Prompts.load("micro", TOKENIZER)


def follow(question) -> str:  # noqa: ANN001
    """Answer a question by walking the corpus: the golden answer must come out."""
    sentences = {(p.metadata["subject"], p.metadata["relation"]): p for p in WORLD.passages()}
    hops = question.metadata["hops"]
    objects = []
    for hop in hops:
        passage = sentences[hop["subject"], hop["relation"]]
        assert passage.text == hop["sentence"] and hop["object"] in passage.text
        objects.append(passage.metadata["object"])
    if question.metadata["kind"] == "comparison":
        return min(hops, key=lambda h: int(h["object"]))["subject"]
    for before, after in zip(hops, hops[1:], strict=False):
        assert before["object"] == after["subject"]
    return objects[-1]


def test_counts_and_splits() -> None:
    counts = Counter((q.dataset, q.split) for q in QUESTIONS)
    assert {s for s, split in counts if split == "train"} == set(lang.TRAINING_FAMILIES)
    assert all(counts[s, "eval"] == (125 if s == "bamboogle" else 150) for s in lang.FAMILIES)
    assert counts["nq", "train"] == counts["hotpotqa", "train"] == 900
    assert len({q.id for q in QUESTIONS}) == len(QUESTIONS)


def test_every_golden_answer_follows_from_the_corpus() -> None:
    for question in QUESTIONS:
        assert follow(question) == question.golden_answers[0]


def test_hops_per_family() -> None:
    hops = {f: Counter(len(q.metadata["hops"]) for q in QUESTIONS if q.dataset == f) for f in lang.FAMILIES}
    assert all(set(hops[f]) == {1} for f in ("nq", "triviaqa", "popqa"))
    assert all(set(hops[f]) == {2} for f in ("hotpotqa", "2wikimultihopqa"))
    assert set(hops["musique"]) == {2, 3, 4} and set(hops["bamboogle"]) == {2, 3}


def test_training_and_evaluation_start_from_different_entities() -> None:
    starts = {split: {q.metadata["hops"][0]["subject"] for q in QUESTIONS if q.split == split} for split in ("train", "eval")}
    assert not starts["train"] & starts["eval"]


def test_no_question_text_twice_between_train_and_eval() -> None:
    by_split = {split: {q.question for q in QUESTIONS if q.split == split} for split in ("train", "eval")}
    assert not by_split["train"] & by_split["eval"]


def test_same_seed_same_world_and_longer_lists_extend_shorter_ones() -> None:
    build_world.cache_clear()
    assert build_world(7).facts == WORLD.facts
    assert build_world(8).facts != WORLD.facts
    few = [q for q in build_questions(WORLD, 20, 50) if q.dataset == "nq" and q.split == "eval"]
    many = [q for q in QUESTIONS if q.dataset == "nq" and q.split == "eval"]
    assert [q.question for q in few] == [q.question for q in many[:20]]


@pytest.mark.parametrize("kind", sorted(pretrain.DOCUMENTS))
def test_no_name_of_any_world_in_pretraining_text(kind: str) -> None:
    source = texts.FactSource(seeds.generator(0, "leak test", kind))
    written = ["".join(t for t, _ in pretrain.DOCUMENTS[kind](source)) for _ in range(400)]
    assert not prepare.names_in(written, WORLD)
    assert not prepare.names_in(written, build_world(11))


def test_world_names_are_a_third() -> None:
    first, second = lang.NAME_WORDS["person"]
    share = sum(is_world_name(f"{a} {b}") for a in first for b in second) / (len(first) * len(second))
    assert 0.30 < share < 0.37


def test_pretraining_texts_look_exactly_like_rollouts() -> None:
    sentences = ["Silver Harbor came out in 1931.", "Alda Brenner directed Silver Harbor."]
    passages = [Passage(str(i), "", s) for i, s in enumerate(sentences)]
    assert texts.information(sentences) == PROMPTS.observation(passages, 500)
    source = texts.FactSource(seeds.generator(0, "format"))
    for _ in range(50):
        prompt = texts.search_document(source, texts.ABLE)[0][0]
        question = prompt.removeprefix("Question: ").rstrip("\n")
        assert prompt == PROMPTS.policy_prompt(question)
    reading = texts.reading_document(source)[0][0]
    body, question = reading.split("\nAnswer using these passages: ")
    lines = [line.strip() for line in body.removeprefix("Passages:").splitlines() if line.strip()]
    rag = PROMPTS.rag_prompt(question.rstrip("\n"), [Passage(str(i), "", s) for i, s in enumerate(lines)], 500)
    assert rag == reading


def test_micro_prompts_are_word_level() -> None:
    prompt = PROMPTS.simulator_prompt("director of Silver Harbor", "who directed Silver Harbor", "Alda Brenner", True, 5)
    pieces = TOKENIZER.convert_ids_to_tokens(TOKENIZER(prompt, add_special_tokens=False).input_ids)
    assert not [p for p in pieces if len(p) == 1 and p.isalpha() and p != "Ċ" and p != "Ġ"]
    assert MICRO.forced_prefix == "<think> I need"


def test_pretraining_is_deterministic_and_learns() -> None:
    recipe = pretrain.Recipe(
        phases=((1.0, {"copy": 1.0}),), tokens=40_000, batch_tokens=512, hidden_size=32, n_layers=1, n_heads=2, n_kv_heads=1, ffn_size=64
    )
    losses: list[list[float]] = [[], []]
    models = [pretrain.pretrain(recipe, TOKENIZER, lambda p, l, s, k=k: losses[k].append(l)) for k in (0, 1)]
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert (a == b).all()
    ids, weights = next((i, w) for _, i, w in pretrain.batches(recipe, TOKENIZER))
    import torch

    with torch.no_grad():
        after = pretrain.weighted_loss(models[0], torch.from_numpy(ids), torch.from_numpy(weights)).item()
        before = pretrain.weighted_loss(pretrain.new_model(recipe, TOKENIZER), torch.from_numpy(ids), torch.from_numpy(weights)).item()
    assert after < before - 0.5


def test_shipped_bases_belong_to_the_recipes() -> None:
    from zerosearch.microworld import bases

    manifest = bases.verify()  # raises with the command that rebuilds them when a recipe has changed
    abilities = manifest["models"]["policy"]["abilities"]
    assert abilities["copies_from_passage"]["value"] >= 0.5  # one of five passages: 0.2 by chance
    assert abilities["valid_query"]["value"] >= 0.9
