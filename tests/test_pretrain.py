"""What the bases were allowed to read, and that pretraining is one deterministic path from its recipe."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from zerosearch import seeds
from zerosearch.microworld import language as lang
from zerosearch.microworld import prepare, pretrain, pretrain_texts as texts
from zerosearch.microworld.pretrain import Phase, Recipe
from zerosearch.microworld.tokenizer import build_tokenizer
from zerosearch.microworld.world import build_world, kind_for, read_sentence
from zerosearch.prompts import MICRO, Prompts, parse_action
from zerosearch.schema import Passage

TOKENIZER = build_tokenizer()
PROMPTS = Prompts.load("micro", TOKENIZER)
TINY = {"hidden_size": 32, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "ffn_size": 64, "batch_tokens": 512}
COPY = Phase(30_000, (("copy", 1.0),))
POOR = Phase(10_000, (("search", 1.0),), pretrain.POOR)


def source(*keys: object) -> texts.FactSource:
    return texts.FactSource(seeds.generator(0, "test_pretrain", *keys))


def written(segments: list[texts.Segment]) -> str:
    return "".join(text for text, _ in segments)


# -- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(pretrain.DOCUMENTS))
def test_no_name_of_any_world_in_pretraining_text(kind: str) -> None:
    drawn = source("leak", kind)
    documents = [written(pretrain.DOCUMENTS[kind](drawn, pretrain.POOR)) for _ in range(400)]
    for world_seed in (7, 11):
        assert not prepare.names_in(documents, build_world(world_seed))


def test_pretraining_texts_look_exactly_like_rollouts() -> None:
    sentences = ["The release year of Silver Harbor is 1931.", "The maker of Silver Harbor is Alda Brenner."]
    passages = [Passage(str(i), "", s) for i, s in enumerate(sentences)]
    assert texts.information(sentences) == PROMPTS.observation(passages, 500)
    drawn = source("format")
    for habits in (pretrain.ABLE, pretrain.POOR):
        for _ in range(50):
            prompt = texts.search_document(drawn, habits)[0][0]
            assert prompt == PROMPTS.policy_prompt(prompt.removeprefix("Question: ").rstrip("\n"))
    reading = texts.reading_document(drawn)[0][0]
    body, question = reading.split("\nAnswer using these passages: ")
    lines = [line.strip() for line in body.removeprefix("Passages:").splitlines() if line.strip()]
    given = [Passage(str(i), "", s) for i, s in enumerate(lines)]
    assert PROMPTS.rag_prompt(question.rstrip("\n"), given, 500) == reading


def test_every_message_of_a_pretraining_policy_is_one_action() -> None:
    drawn = source("actions")
    for habits in (pretrain.ABLE, pretrain.POOR):
        for _ in range(200):
            messages = [text for text, weight in texts.search_document(drawn, habits) if weight == 1.0]
            actions = [parse_action(text)[0] for text in messages]
            assert actions[-1] == "answer" and set(actions[:-1]) <= {"search"}
            assert len(actions) - 1 <= texts.MAX_SEARCHES
            for text, action in zip(messages, actions, strict=True):
                assert action != "search" or lang.parse_query(parse_action(text)[1]) is not None


def test_able_documents_never_answer_wrongly_after_a_search() -> None:
    drawn, right = source("able"), []
    for _ in range(300):
        document = texts.search_document(drawn, replace(pretrain.ABLE, memory=0.0))
        passages = "".join(text for text, _ in document if text.startswith("<information>"))
        answer = parse_action(document[-1][0])[1]
        gave_up = written(document).count("<search>") == texts.MAX_SEARCHES  # none is left for the last hops
        right.append(gave_up or answer in passages or " or " in document[0][0])
    assert all(right)


def test_verdicts_of_the_able_say_nothing_about_the_passages() -> None:
    """Able documents are never shown a miss: "Not here." after a hit teaches to rephrase, not to notice."""
    drawn = source("verdicts")
    for _ in range(200):
        segments = texts.search_document(drawn, pretrain.ABLE)
        queries = re.findall(r"<search> (.*?)</search>", written(segments))
        blocks = [text for text, _ in segments if text.startswith("<information>")]
        for query, block in zip(queries, blocks, strict=True):
            relation, subject = lang.parse_query(query)  # type: ignore[misc]
            heads = tuple(lang.state(relation, subject, "|", w).split(" |")[0] + " " for w in (0, 1))
            assert any(line.strip().startswith(heads) for line in block.splitlines())


@pytest.mark.parametrize("kind", lang.MISLEADING)
@pytest.mark.parametrize("relation", lang.RELATIONS, ids=lambda r: r.noun)
def test_misleading_sentences_do_not_state_the_fact(kind: str, relation: lang.Relation) -> None:
    drawn = source("misleading", kind, relation.noun)
    for _ in range(20):
        subject, target = drawn.name(relation.subject), "Nobody Else"
        sentence, named = drawn.misleading(kind, relation, subject)
        assert sentence not in {lang.state(relation, subject, target, w) for w in (0, 1)}
        assert (named is None) == (kind == lang.NON_ANSWER) and (named is None or sentence.endswith(f" {named}."))
        assert subject in sentence or kind in (lang.LOOKALIKE, lang.OTHER_RELATION, lang.SUPERSEDED)


ALL_KINDS = [r for r in lang.RELATIONS if r.changes and len(lang.BY_SUBJECT[r.subject]) > 1]  # of misleading passages


@pytest.mark.parametrize("main", lang.MISLEADING)
def test_a_failed_search_is_mixed_as_in_the_conditions(main: str) -> None:
    """One or two passages of the main kind, the rest of others, one contradiction at most; none states the fact."""
    drawn = source("missed", main)
    for _ in range(100):
        relation = drawn.pick(ALL_KINDS)
        subject = drawn.name(relation.subject)
        passages, line, named = drawn.missed(relation, subject, main)
        kinds = [kind_for(read_sentence(p), relation.noun, subject) for p in passages]
        stated = [k if k != lang.FACT else lang.CONTRADICTED for k in kinds]  # worded alike: only the world knows
        assert len(passages) == texts.N_PASSAGES and line in passages
        assert stated.count(main) in ((1,) if main == lang.CONTRADICTED else (1, 2))
        assert stated.count(lang.CONTRADICTED) == (main == lang.CONTRADICTED)
        assert (named is None) == (main == lang.NON_ANSWER) and set(stated) <= set(lang.MISLEADING)


def test_most_of_a_search_trajectory_is_retrieved_text() -> None:
    drawn = source("share")
    read = total = 0
    for _ in range(300):
        for text, weight in texts.search_document(drawn, replace(pretrain.ABLE, memory=0.0))[1:]:
            n = len(TOKENIZER(text, add_special_tokens=False).input_ids)
            total, read = total + n, read + n * (weight < 1.0)
    assert read / total >= 0.6


def test_the_share_of_search_trajectories_is_told() -> None:
    recipe = pretrain.RECIPES["llama-base"]
    by_hand = sum(p.tokens * share for p in recipe.phases for kind, share in p.mix if kind == "search") / recipe.tokens
    assert recipe.trajectory_share == pytest.approx(by_hand) and 0.3 < by_hand < 0.7
    assert pretrain.RECIPES["simulator-medium"].trajectory_share == 0.0


def test_simulator_bases_never_read_the_instruction() -> None:
    drawn = source("simulator")
    for kind in dict(pretrain.RECIPES["simulator-medium"].phases[-1].mix):
        for _ in range(100):
            assert "passages for the query" not in written(pretrain.DOCUMENTS[kind](drawn, pretrain.POOR))


def test_micro_prompts_are_word_level() -> None:
    prompt = PROMPTS.simulator_prompt("director of Silver Harbor", "who directed Silver Harbor", "Alda Brenner", True, 20)
    pieces = TOKENIZER.convert_ids_to_tokens(TOKENIZER(prompt, add_special_tokens=False).input_ids)
    assert not [p for p in pieces if len(p) == 1 and p.isalpha() and p not in ("Ċ", "Ġ")]
    assert MICRO.forced_prefix == f"<think> {lang.PLAN_SEARCH[:-1]}"


# -- language -------------------------------------------------------------------------------------


@pytest.mark.parametrize("relation", lang.RELATIONS, ids=lambda r: r.noun)
def test_queries_are_parsed_back_and_share_their_noun_with_one_wording(relation: lang.Relation) -> None:
    for wording, noun in enumerate((relation.noun, relation.synonym)):
        query = lang.query_text(relation, "Silver Harbor Returns", wording)
        assert lang.parse_query(query) == (relation, "Silver Harbor Returns")
        assert query in lang.state(relation, "Silver Harbor Returns", "Alda Falk", wording)
        assert query not in lang.state(relation, "Silver Harbor Returns", "Alda Falk", 1 - wording)
        assert "of Silver Harbor is Alda Falk." in lang.state(relation, "Silver Harbor", "Alda Falk", wording)


def test_no_noun_means_two_things() -> None:
    nouns = [noun for r in lang.RELATIONS for noun in (r.noun, r.synonym)]
    assert len(set(nouns)) == len(nouns) == 36


def test_other_texts_are_no_queries() -> None:
    for text in ("", "who directed Silver Harbor", "director of", "director of ", "weight of Silver Harbor", "of X"):
        assert lang.parse_query(text) is None


def test_every_word_is_one_token() -> None:
    for relation in lang.RELATIONS:
        for text in (
            lang.state_superseded(relation, "Silver Harbor", "Alda Falk", "1931"),
            *(lang.say_nothing(relation, "Silver Harbor", w) for w in (0, 1)),
            *(lang.query_text(relation, "Silver Harbor", w) for w in (0, 1)),
        ):
            n_words = len(text.rstrip(".").split()) + text.endswith(".")
            assert len(TOKENIZER(" " + text).input_ids) == n_words, text


# -- training -------------------------------------------------------------------------------------


def tiny(*phases: Phase, **more: object) -> Recipe:
    return Recipe(phases, **{**TINY, **more})  # type: ignore[arg-type]


def test_pretraining_is_deterministic_and_learns() -> None:
    recipe = tiny(COPY)
    models = [pretrain.pretrain(recipe, TOKENIZER)[0] for _ in range(2)]
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(a, b)
    _, ids, weights = next(pretrain.batches(recipe, 0, TOKENIZER))
    with torch.no_grad():
        after, before = (
            pretrain.weighted_loss(m, torch.from_numpy(ids), torch.from_numpy(weights)).item()
            for m in (models[0], pretrain.new_model(recipe, TOKENIZER))
        )
    assert after < before - 0.5


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_a_shared_beginning_gives_the_same_model(family: str) -> None:
    chat_tokenizer = build_tokenizer(family, chat=True)  # type: ignore[arg-type]
    base = tiny(COPY, POOR, family=family)
    chat = tiny(COPY, replace(POOR, chat=True), family=family)
    _, trunk = pretrain.pretrain(base, build_tokenizer(family))  # type: ignore[arg-type]
    assert trunk.phases == (COPY,)
    shared, alone = pretrain.pretrain(chat, chat_tokenizer, trunk=trunk)[0], pretrain.pretrain(chat, chat_tokenizer)[0]
    for a, b in zip(shared.parameters(), alone.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="beginning"):
        pretrain.pretrain(tiny(POOR, family=family), TOKENIZER, trunk=trunk)


def test_llama_documents_begin_with_bos_and_chat_documents_with_the_template() -> None:
    segments = [("Question: who wrote X\n", 0.0), ("<think> I search.</think>", 1.0)]
    llama, chat = build_tokenizer("llama"), build_tokenizer("llama", chat=True)
    ids, weights = pretrain.encode_document(segments, llama, eos=False)
    assert ids[0] == llama.bos_token_id and list(ids).count(llama.bos_token_id) == 1
    assert llama.decode(ids[1:]) == "".join(text for text, _ in segments) and len(ids) == len(weights)
    ids, weights = pretrain.encode_document(segments, chat, eos=False, chat=True)
    assert list(ids).count(chat.bos_token_id) == 1 and ids[-1] == chat.eos_token_id and weights[-1] == 1.0
    assert "assistant" in chat.decode(ids).split("Question")[1]


def test_padding_weighs_nothing_and_phases_spend_their_tokens() -> None:
    recipe = tiny(COPY, POOR)
    spent = 0
    for before, ids, weights in pretrain.batches(recipe, 1, TOKENIZER):
        assert before == spent and weights[ids == TOKENIZER.pad_token_id].sum() == 0.0
        spent += int((ids != TOKENIZER.pad_token_id).sum())
    assert POOR.tokens <= spent < POOR.tokens + recipe.batch_tokens


def test_learning_rates_by_hand() -> None:
    phases = (Phase(1000, (("copy", 1.0),)), Phase(1000, (("copy", 1.0),), rates=(0.5, 0.1)))
    recipe = Recipe(phases, learning_rate=2.0, warmup_share=0.1, anneal_tokens=4000)
    rate = pretrain.learning_rate
    assert rate(recipe, 0, 0) == pytest.approx(2.0 * 0.01)
    assert rate(recipe, 0, 200) == pytest.approx(2.0 * (0.5 + 0.01) * 0.95)  # half warm, a twentieth of the way down
    assert rate(recipe, 0, 1000) == pytest.approx(2.0 * 0.75)
    assert [rate(recipe, 1, spent) for spent in (0, 500, 1000)] == pytest.approx([1.0, 0.6, 0.2])
    assert rate(replace(recipe, anneal_tokens=None), 0, 1000) == pytest.approx(2.0 * 0.5)


def test_restated_lookups_tell_the_fact_in_either_wording() -> None:
    drawn, same = source("restated"), []
    for _ in range(100):
        passages, *turns = pretrain.DOCUMENTS["restated"](drawn, pretrain.ABLE)
        stated = {(f["relation"], f["subject"]): f["object"] for line in passages[0].splitlines()
                  if (f := read_sentence(line))}
        for (query, _), (told, _) in zip(turns[::2], turns[1::2], strict=True):
            relation, subject = lang.parse_query(query.removeprefix("<search> ").removesuffix("</search>"))  # type: ignore[misc]
            quote, answer = told.removeprefix(f"<think> {lang.VERDICT_HIT} ").split("</think>")
            read = read_sentence(quote)
            assert read and (read["relation"], read["subject"]) == (relation.noun, subject)
            assert answer == f"<answer> {read['object']}</answer>" and stated[relation.noun, subject] == read["object"]
            same.append(quote in passages[0])
    assert 0.4 < np.mean(same) < 0.6


def test_digest_changes_with_the_recipe() -> None:
    recipe = pretrain.RECIPES["llama-base"]
    assert recipe.digest() == replace(recipe).digest() != replace(recipe, seed=5).digest()
    assert len({r.digest() for r in pretrain.RECIPES.values()}) == len(pretrain.RECIPES)


def test_sizes_of_the_zoo() -> None:
    counts = {
        name: sum(p.numel() for p in pretrain.new_model(r, build_tokenizer(r.family, r.chat)).parameters())
        for name, r in pretrain.RECIPES.items()
    }
    assert 2 * sum(counts.values()) < 20e6  # bytes in bfloat16
    small, medium, large = (counts[f"simulator-{size}"] for size in ("small", "medium", "large"))
    assert 2.5 <= medium / small <= 3.5 and 2.5 <= large / medium <= 3.5  # about 1 : 3 : 9


def test_weighted_loss_by_hand() -> None:
    class Fixed(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor) -> object:
            logits = torch.zeros(*input_ids.shape, 4)
            logits[..., 1] = np.log(3.0)  # P = (1/6, 3/6, 1/6, 1/6)
            return type("Out", (), {"logits": logits})

    ids, weights = torch.tensor([[0, 1, 2]]), torch.tensor([[9.0, 1.0, 3.0]])
    assert pretrain.weighted_loss(Fixed(), ids, weights).item() == pytest.approx((np.log(2) + 3 * np.log(6)) / 4)
