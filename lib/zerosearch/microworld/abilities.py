"""The ability card: what a base model can do before any training of ours, measured on fresh facts.

Single abilities are probed on facts drawn for the card alone (a seed of its own, names that no world
uses).  What they add up to is measured by letting the base answer questions of a world that no run
uses, through the same loop and engine as everybody else.  Every number comes with its n.

The gate says between which bounds a base is fit for the studies: able enough that reinforcement
learning finds something, weak enough that it has something to teach.  The bounds were fixed before any
policy was trained in this world, the probes before any two arms were compared.
"""

from __future__ import annotations

import math
import re
from typing import Any, Callable, Sequence

import numpy as np
import torch
from scipy.stats import mannwhitneyu
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from zerosearch import seeds
from zerosearch.engines.base import Engine, Generation, GenerationRequest
from zerosearch.engines.transformers_engine import TransformersEngine
from zerosearch.labels import gold_hops
from zerosearch.microworld import language as lang
from zerosearch.microworld import pretrain_texts as texts
from zerosearch.microworld.pretrain_texts import FactSource
from zerosearch.microworld.world import build_questions, build_world
from zerosearch.prompts import MICRO, Prompts, parse_action, prompt_ids
from zerosearch.retrievers.bm25 import BM25Retriever
from zerosearch.rollout import RolloutRequest, RolloutSettings, rollout
from zerosearch.schema import Question
from zerosearch.scoring import em

N_PROBES = 300
CARD_WORLD_SEED = 4711  # a world that no profile uses
QUESTIONS_PER_FAMILY = 40
MAX_SEARCHES = 5
Card = dict[str, dict[str, Any]]
# ability -> (least, most): what the main base must show.
GATE: dict[str, tuple[float, float]] = {
    "copies_from_passage": (0.90, 1.0),
    "valid_query": (0.95, 1.0),
    "tells_hit_from_miss": (0.60, 0.75),
    "searches_again": (0.20, 0.40),
    "forced_em": (0.0, 0.25),
    "oracle_gain": (0.25, 1.0),
}


def _entry(value: float, n: int, meaning: str) -> dict[str, Any]:
    return {"value": round(float(value), 4), "n": n, "meaning": meaning}


def _share(values: Sequence[bool], meaning: str) -> dict[str, Any]:
    return _entry(sum(values) / len(values), len(values), meaning)


def policy_card(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Card:
    """Return the abilities of a policy base (about a minute on one core)."""
    engine = TransformersEngine(model, tokenizer)
    source = FactSource(seeds.generator("ability card", "policy"))
    one_hop = [texts.draw_task(source, one_hop=1.0) for _ in range(N_PROBES)]
    mixed = [texts.draw_task(source) for _ in range(N_PROBES)]
    hits = [_after_search(source, task, None) for task in one_hop]
    kinds = [lang.MISLEADING[i % len(lang.MISLEADING)] for i in range(N_PROBES)]
    misses = [_after_search(source, task, kind) for task, kind in zip(one_hop, kinds, strict=True)]
    near = [_after_search(source, task, kind, near=True) for task, kind in zip(one_hop, kinds, strict=True)]
    card = {
        "copies_from_passage": _share(
            _copies(engine, one_hop, hits),
            "one of five passages states the fact; after `Found:` it is told exactly, in either wording",
        ),
        "valid_query": _share(
            _queries(engine, mixed), "forced to search: the first query asks for the question's first fact"
        ),
        **_detection(model, tokenizer, hits, misses, near, kinds),
        "searches_again": _share(
            [parse_action(t)[0] == "search" for t in _write(engine, misses, 1.0)],
            "after a search that missed, sampled: another search",
        ),
        "trusts_passage": _share(
            [parse_action(t) == ("answer", task.answer) for t, task in zip(_write(engine, hits, 1.0), one_hop, strict=True)],
            "after a search that hit, sampled: the exact answer",
        ),
        "searches_at_once": _share(
            [parse_action(t)[0] == "search" for t in _write(engine, [_question(t) for t in mixed], 1.0)],
            "share of sampled first messages that search instead of answering from memory",
        ),
    }
    return card | _scores(engine)


def gate_rows(card: Card) -> list[dict[str, Any]]:
    """Return one row per bound of the gate: ability, value, least, most, passed."""
    return [
        {
            "ability": ability, "value": card[ability]["value"], "least": least, "most": most,
            "passed": least <= card[ability]["value"] <= most,
        }
        for ability, (least, most) in GATE.items()
    ]


# -- single abilities -----------------------------------------------------------------------------


def _write(engine: Engine, prompts: Sequence[str], temperature: float = 0.0, budget: int = 48) -> list[str]:
    """Return what the model writes after each prompt.

    A prompt is what the user says up to the first line end, and what the policy wrote and read after it.
    """
    tokenizer = engine.tokenizer
    requests = [
        GenerationRequest(tuple(_encode(tokenizer, p)), seeds.derive_seed("card", i), budget, temperature)
        for i, p in enumerate(prompts)
    ]
    return [tokenizer.decode(g.token_ids) for g in engine.generate(requests)]


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    asked, rest = text.split("\n", 1) if text.startswith("Question:") else (text, "")
    ids = prompt_ids(tokenizer, asked + "\n" if text.startswith("Question:") else asked)
    return ids + (tokenizer(rest, add_special_tokens=False).input_ids if rest else [])


def _question(task: texts.Task) -> str:
    return MICRO.policy.format(question=task.question)


def _after_search(source: FactSource, task: texts.Task, kind: str | None, near: bool = False) -> str:
    """Return question, first search and five passages: with the fact (kind None), or of a search that failed.

    near: one misleading passage stands in the place of the fact, the others are those of a search that hit.
    """
    relation, subject, target = task.hops[0]
    wording = int(source.rng.integers(2))
    if kind is None:
        passages = source.hit(relation, subject, source.sentence(relation, subject, target))
    elif near:
        passages = source.hit(relation, subject, source.misleading(kind, relation, subject)[0])
    else:
        passages = source.missed(relation, subject, kind)[0]
    query = lang.query_text(relation, subject, wording)
    search = f"<think> {lang.PLAN_SEARCH}</think><search> {query}</search>"
    return _question(task) + search + texts.information(passages)


def _copies(engine: Engine, tasks: Sequence[texts.Task], hits: Sequence[str]) -> list[bool]:
    written = _write(engine, [f"{hit}<think> {lang.VERDICT_HIT}" for hit in hits])
    quoted = [text.split("</think>")[0].strip() for text in written]
    return [q in [lang.state(*task.hops[0], w) for w in (0, 1)] for q, task in zip(quoted, tasks, strict=True)]


def _queries(engine: Engine, tasks: Sequence[texts.Task]) -> list[bool]:
    written = _write(engine, [_question(t) + MICRO.forced_prefix for t in tasks])
    wanted = [{lang.query_text(*t.hops[0][:2], wording) for wording in (0, 1)} for t in tasks]
    return [parse_action(w)[1] in queries for w, queries in zip(written, wanted, strict=True)]


def _detection(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, hits: Sequence[str], misses: Sequence[str],
    near: Sequence[str], kinds: Sequence[str],
) -> Card:
    """Return the AUROC of the verdict: how well the odds of "Not here." against "Found:" rank misses above hits."""
    doubt_hit, doubt_miss, doubt_near = (
        np.array([_doubt(model, tokenizer, p) for p in prompts]) for prompts in (hits, misses, near)
    )
    card = {
        "tells_hit_from_miss": _entry(
            auroc(doubt_miss, doubt_hit), len(hits) + len(misses),
            "AUROC of the odds of `Not here.`: failed searches of six main kinds, evenly, against hits",
        )
    }
    for kind in lang.MISLEADING:
        chosen = doubt_miss[[k == kind for k in kinds]]
        card[f"tells_{kind}"] = _entry(auroc(chosen, doubt_hit), len(chosen), f"the same for the main kind {kind}")
    card["tells_near_miss"] = _entry(
        auroc(doubt_near, doubt_hit), len(hits) + len(near),
        "the same where one misleading passage stands in the place of the fact, the others are those of a hit",
    )
    return card


def auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Return the chance that a positive's score is above a negative's, ties counted half."""
    return float(mannwhitneyu(positive, negative).statistic) / (len(positive) * len(negative))


@torch.no_grad()
def _doubt(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, conversation: str) -> float:
    """Return log P(first token of "Not here.") - log P(first token of "Found:") after a conversation."""
    miss, hit = (
        tokenizer(" " + verdict, add_special_tokens=False).input_ids[0] for verdict in (lang.VERDICT_MISS, lang.VERDICT_HIT)
    )
    ids = torch.tensor([_encode(tokenizer, conversation + "<think>")], device=model.device)
    last = model(input_ids=ids).logits[0, -1].float()
    return (last[miss] - last[hit]).item()


# -- what they add up to --------------------------------------------------------------------------


class OracleVerdicts:
    """An engine that writes the true verdict for the policy: what it would be worth to know hits from misses.

    After every search the message begins with "Found:" when a passage states the fact asked for, else with
    "Not here."; the rest is the policy's own.
    """

    def __init__(self, engine: Engine, questions: Sequence[Question]):
        self.engine, self.tokenizer, self.name = engine, engine.tokenizer, "oracle verdicts"
        self._hops = {q.question: gold_hops(q) for q in questions}

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Return the messages, the begun thought included (at log-prob 0: nobody sampled it)."""
        begun = [self._begin(r) for r in requests]
        asked = [
            GenerationRequest((*r.prompt_ids, *b), r.seed, r.max_new_tokens, r.temperature)
            for r, b in zip(requests, begun, strict=True)
        ]
        made = self.engine.generate(asked)
        return [
            Generation((*b, *g.token_ids), (*(0.0 for _ in b), *g.logprobs), g.stop_reason)
            for b, g in zip(begun, made, strict=True)
        ]

    def release(self) -> None:
        """Give back what the engine keeps between turns."""
        self.engine.release()

    def _begin(self, request: GenerationRequest) -> list[int]:
        text = self.tokenizer.decode(request.prompt_ids)
        if not text.endswith("</information>"):
            return []
        verdict = lang.VERDICT_HIT if self._states_the_fact(text) else lang.VERDICT_MISS
        return self.tokenizer(f"<think> {verdict}", add_special_tokens=False).input_ids

    def _states_the_fact(self, text: str) -> bool:
        question = re.search(r"Question: (.*)", text)[1]  # type: ignore[index]
        asked = lang.parse_query(re.findall(r"<search>(.*?)</search>", text)[-1])
        block = text.rsplit("<information>", 1)[1]
        return any(
            asked == (relation := lang.BY_NOUN[h.relation], h.subject)
            and any(lang.state(relation, h.subject, h.object, wording) in block for wording in (0, 1))
            for h in self._hops[question]
        )


def _scores(engine: TransformersEngine) -> Card:
    """Return average EM over the seven families, greedy: left alone, forced to search, with true verdicts."""
    world = build_world(CARD_WORLD_SEED)
    questions = [q for q in build_questions(world, QUESTIONS_PER_FAMILY, 1) if q.split == "eval"]
    retriever = BM25Retriever(world.passages(), k=texts.N_PASSAGES)
    prompts = Prompts.load("micro", engine.tokenizer)

    def score(player: Engine, forced: bool) -> float:
        settings = RolloutSettings(
            max_searches=MAX_SEARCHES, temperature=0.0, forced_prefix=prompts.forced_prefix if forced else ""
        )
        made = rollout([RolloutRequest(q) for q in questions], player, retriever, prompts, settings)
        return math.fsum(em(t.answer, t.question.golden_answers) for t in made) / len(made)

    n, alone, forced = len(questions), score(engine, False), score(engine, True)
    oracle = score(OracleVerdicts(engine, questions), True)
    where = "a world no run uses, real engine with all its misleading passages, greedy"
    return {
        "free_em": _entry(alone, n, f"EM left alone; {where}"),
        "forced_em": _entry(forced, n, f"EM when made to search first; {where}"),
        "oracle_em": _entry(oracle, n, "the same with the true verdict put into its mouth after every search"),
        "oracle_gain": _entry(oracle - forced, n, "what knowing hits from misses would be worth: oracle_em - forced_em"),
    }


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
        "states_the_note": _share(
            [any(s in line and o in line for line in w.splitlines()) for w, (s, o) in zip(written, stated, strict=True)],
            "page written from one note: a line names its subject and its object",
        ),
        "ends_in_time": _share([w.endswith(tokenizer.eos_token) for w in written], "page ends by itself in 96 tokens"),
    }


CARDS: dict[str, Callable[[PreTrainedModel, PreTrainedTokenizerBase], Card]] = {
    "policy": policy_card, "simulator": simulator_card,
}
