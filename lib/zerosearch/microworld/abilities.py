"""The ability card: what a base model can do before any training of ours, measured on fresh facts.

Every number comes with its n.  The facts are drawn anew for the card (a seed of its own), so nothing
here has been read in pretraining, and nothing here belongs to a world.
"""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from zerosearch import seeds
from zerosearch.engines.base import GenerationRequest
from zerosearch.engines.transformers_engine import TransformersEngine
from zerosearch.microworld import language as lang
from zerosearch.microworld import pretrain_texts as texts
from zerosearch.microworld.pretrain_texts import FactSource
from zerosearch.prompts import MICRO, parse_action

N_PROBES = 200
Card = dict[str, dict[str, Any]]


def _entry(values: list[bool], meaning: str) -> dict[str, Any]:
    return {"value": round(sum(values) / len(values), 4), "n": len(values), "meaning": meaning}


def _write(engine: TransformersEngine, prompts: list[str], temperature: float = 0.0, budget: int = 48) -> list[str]:
    """Return what the model writes after each prompt."""
    tokenizer = engine.tokenizer
    requests = [
        GenerationRequest(
            tuple(tokenizer(p, add_special_tokens=False).input_ids), seeds.derive_seed("card", i), budget, temperature
        )
        for i, p in enumerate(prompts)
    ]
    return [tokenizer.decode(g.token_ids) for g in engine.generate(requests)]


def policy_card(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Card:
    """Return the abilities of a policy base (about ten seconds on one core)."""
    engine = TransformersEngine(model, tokenizer)
    source = FactSource(seeds.generator("ability card", "policy"))
    tasks = [texts.draw_task(source, one_hop=1.0) for _ in range(N_PROBES)]
    return {
        "copies_from_passage": _entry(
            _reading(engine, source), "RAG prompt, one hop, five passages, one states the fact: exact answer"
        ),
        "valid_query": _entry(
            _queries(engine, tasks), "forced to search: the first query names the relation and the entity"
        ),
        "searches_at_once": _entry(
            [parse_action(t)[0] == "search" for t in _write(engine, [_question(t) for t in tasks], 1.0)],
            "share of sampled first messages that search instead of answering from memory",
        ),
        "trusts_passage": _entry(
            _after_reading(engine, source, tasks, hit=True), "after a search that hit, sampled: the exact answer"
        ),
        "searches_again": _entry(
            _after_reading(engine, source, tasks, hit=False), "after a search that missed, sampled: another search"
        ),
    }


def _question(task: texts.Task) -> str:
    return MICRO.policy.format(question=task.question)


def _reading(engine: TransformersEngine, source: FactSource) -> list[bool]:
    documents = [texts.reading_document(source) for _ in range(N_PROBES)]
    written = _write(engine, [d[0][0] for d in documents])
    return [parse_action(w) == parse_action(d[1][0]) for w, d in zip(written, documents, strict=True)]


def _queries(engine: TransformersEngine, tasks: list[texts.Task]) -> list[bool]:
    written = _write(engine, [_question(t) + MICRO.forced_prefix for t in tasks])
    wanted = [{lang.query_text(*t.hops[0][:2], wording) for wording in (0, 1)} for t in tasks]
    return [parse_action(w)[1] in queries for w, queries in zip(written, wanted, strict=True)]


def _after_reading(
    engine: TransformersEngine, source: FactSource, tasks: list[texts.Task], *, hit: bool
) -> list[bool]:
    prompts = []
    for task in tasks:
        relation, subject, target = task.hops[0]
        fact = source.sentence(relation, subject, target) if hit else None
        search = f"<think> {lang.plan_need(relation, subject)}</think><search> {lang.query_text(relation, subject)}</search>"
        prompts.append(_question(task) + search + texts.information(source.block(relation, subject, fact)))
    actions = [parse_action(text) for text in _write(engine, prompts, 1.0)]
    if hit:
        return [action == ("answer", task.answer) for action, task in zip(actions, tasks, strict=True)]
    return [action == "search" for action, _ in actions]


def simulator_card(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Card:
    """Return the abilities of a simulator base: it has never seen the simulator's instruction."""
    engine = TransformersEngine(model, tokenizer, stop_strings=())
    source = FactSource(seeds.generator("ability card", "simulator"))
    stated, subjects = [], []
    for _ in range(N_PROBES):
        relation = source.pick(lang.RELATIONS)
        subject, target = source.name(relation.subject), source.name(relation.object)
        stated.append((subject, target))
        subjects.append(f"Notes about {subject}: {relation.noun} {target}.\nText:")
    written = _write(engine, subjects, budget=96)
    return {
        "states_the_note": _entry(
            [any(s in line and o in line for line in w.splitlines()) for w, (s, o) in zip(written, stated, strict=True)],
            "page written from one note: a line names its subject and its object",
        ),
        "ends_in_time": _entry([w.endswith(tokenizer.eos_token) for w in written], "page ends by itself in 96 tokens"),
    }
