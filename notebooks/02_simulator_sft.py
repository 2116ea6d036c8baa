# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 02 · Simulator SFT: can a small model imitate a search engine, good and bad answers on request?
#
# | | |
# |---|---|
# | reads | `pairs.parquet` (01): queries, passages of the real engine, labels; the simulator base |
# | | for *freshness*: questions and corpus, and their later edition where there is one (00) |
# | writes | `simulator/`, `quality.csv`, `engine_reference.csv`, `freshness.csv`, `sft_metrics.jsonl`, two figures |
# | time and memory | `smoke`: about 40 s, 1 GB · `laptop`: about 3 minutes, 1 GB |

# %% [markdown]
# ## What you will see
#
# 1. One word of the prompt, *useful* or *misleading*, decides whether the answer stands in the passages
#    (figure *quality*: answer present).
# 2. The simulator follows its prompt and not its memory: with another golden answer in the prompt, that
#    one comes out (figure *quality*: altered).
# 3. Its passages sound like the real engine's (figure *quality*: style distance).
# 4. It was tuned once, and the world goes on: what does it say about facts that have changed since
#    (table *freshness*)?

# %% tags=["parameters"]
run: str = "notebook"  # name of the run: files go to outputs/<run>
profile: str = "smoke"  # which profile set these values
seed: int = 0  # seed of the run
threads: int = 1  # CPU threads of this notebook
simulator_model: str = "micro/simulator-medium"  # base of the simulator (paper: Qwen2.5-3B, 7B or 14B Instruct)
label_kind: str = "judge"  # judge (paper, versions 2 and 3) or trajectory (version 1)
balance: bool = False  # as many useful as misleading examples, drawn from the more frequent kind
steps: int = 120  # optimiser updates (paper: not given)
batch_size: int = 32  # examples per update (paper: not given)
learning_rate: float = 1.5e-3  # peak (paper: 1.0e-6 for 3 to 14 billion parameters)
golden_weight: float = 4.0  # loss weight of golden-answer tokens, against 1
rename_share: float = 0.8  # share of examples whose names are exchanged
n_quality_requests: int = 100  # held-out queries of the quality report
max_length: int = 256  # tokens of prompt and passages

# %%
from collections import defaultdict
from dataclasses import fields

import pandas as pd
import torch
from IPython.display import Markdown, display

from zerosearch import artifacts, display as show, figures, seeds
from zerosearch.engines.transformers_engine import TransformersEngine
from zerosearch.labels import table_to_pairs
from zerosearch.microworld import models
from zerosearch.prompts import TEMPLATES, Prompts
from zerosearch.questions import load_corpus, read_questions
from zerosearch.retrievers.bm25 import BM25Retriever
from zerosearch.retrievers.prompted import PromptedSimulatorRetriever
from zerosearch.schema import Passage, SearchRequest
from zerosearch.stage_parameters import Stage02
from zerosearch.training import renaming, simulator_data, simulator_freshness as freshness
from zerosearch.training import simulator_quality as quality, simulator_sft
from zerosearch.training.arm_setup import SIMULATOR_TEMPERATURE, shown_examples

torch.set_num_threads(threads)

# %% [markdown]
# The stage's folder remembers its parameters: opened again after an interruption, it goes on.

# %%
parameters = {field.name: globals()[field.name] for field in fields(Stage02)}
stage = artifacts.open_stage(run, "02", parameters)
pairs = table_to_pairs(artifacts.read_table(stage.require("01", "pairs.parquet")))
n_useful = sum(pair.label_judge == "useful" for pair in pairs)
print(f"{len(pairs):,} searches of the real engine, {n_useful:,} useful to the judge")

# %% [markdown]
# ## What there is to learn from
#
# Each pair is one search of notebook 01: the query, the question behind it, what the real engine returned,
# and the judge's word on every passage. Here is one.

# %%
sample = next((p for p in pairs if p.label_judge == "useful"), pairs[0])
show.say(f"question: {sample.question.question}\nquery:    {sample.query}")
for passage, label in zip(sample.passages, sample.passage_labels):
    show.say(f"  {label:<10} {passage.text[:90]}")

# %% [markdown]
# ## The lesson: instruction in, passages out
#
# The simulator's prompt names the query, the question and the golden answer, for misleading passages
# too: to write around an answer one has to know it. Only the passages are learned, never the prompt.

# %%
model, tokenizer = models.load(simulator_model)
prompts = Prompts.load(models.prompt_template(tokenizer), tokenizer)
examples = simulator_data.examples_from_pairs(pairs, label_kind, seed)
first = examples[0]
k = len(first.passages)
show.say(prompts.simulator_prompt(first.query, first.question, first.golden_answer, first.useful, k)
         + prompts.simulator_target(first.passages))

# %% [markdown]
# ### The exact words
#
# A model of the micro-world is asked in few words, any other in those of the paper's table 2, on which the
# published simulators were tuned; *five* is the number asked for, 1 to 20. The prompt-based simulator is not
# tuned and reads a search of each kind first. A changed wording has another version, and manifests name it.

# %%
wordings = {name: Prompts.load(name, tokenizer) for name in TEMPLATES}
for name, wording in wordings.items():
    print(f"--- {name}, version {wording.simulator_version}")
    for useful in (True, False):
        show.say(wording.simulator_prompt(first.query, first.question, first.golden_answer, useful, k))
shown = shown_examples(pairs)
if {e.useful for e in shown} == {True, False}:
    prompted = PromptedSimulatorRetriever(TransformersEngine(model, tokenizer), prompts, shown, k, seed)
    print(f"--- prompt-based, {prompted.n_examples} examples first")
    show.say(prompted.prompt(SearchRequest(sample.query, sample.question), useful=True))

# %% [markdown]
# ### A lesson that would teach the wrong thing
#
# A misleading example whose passages contain the golden answer would teach leaking. Those are dropped.
# Prediction: where could they come from, if the judge said *misleading*?

# %%
examples, n_leaking = simulator_data.drop_leaks(examples)
examples = simulator_data.balanced(examples, seed) if balance else examples
kinds = pd.Series(["useful" if e.useful else "misleading" for e in examples]).value_counts()
print(f"{n_leaking} leaking examples dropped; left: {kinds.to_dict()}")

# %% [markdown]
# They come from queries for another fact of the chain: the answer stood nearby, but not as the fact that
# was asked for. A useful search gives two examples: its whole list, and, as the hardest misleading one, what
# stood beside the useful passage (filled up to the same length).
#
# Some questions are held out completely. The quality report will ask about them, and only about them.

# %%
training, held_out = simulator_data.hold_out(examples, share=0.15, seed=seed)
print(f"{len(training):,} examples to learn from, {len(held_out):,} held out")

# %% [markdown]
# ## Why names are exchanged
#
# A simulator that reads the same fact under the same names learns it by heart. Then it writes what it
# remembers, whatever the prompt says. So most examples are shown under new names: the same name
# everywhere in the example, another one each time. On a toy:

# %%
passage = Passage("p1", "Silver Harbor", "Silver Harbor was directed by Anka Falk.")
toy = renaming.SimulatorExample(
    "director of Silver Harbor", "who directed Silver Harbor", "Anka Falk", True, (passage,)
)
renamed = renaming.apply_names(toy, {"Silver Harbor": "Paper Moon", "Anka Falk": "Gino Ravel"})
print(f"{renamed.query} | {renamed.question} | {renamed.golden_answer} | {renamed.passages[0].text}")

# %% [markdown]
# Names are not guessed from capital letters: they come from titles, golden answers and gold hops.
# New ones are of the same kind, so that a town does not become a year. Kinds are learned from the facts:
# what was directed by the same sort of thing is the same sort of thing.

# %%
book = renaming.NameBook(training)
print(f"{len(book.kind_of):,} names in {len(book.members)} kinds")
for name in renaming.names_of(training[0])[:4]:
    others = [book.new_name(name, seeds.generator(seed, "shown", i)) for i in range(3)]
    show.say(f"  {name:<18} -> {', '.join(others)}")

# %% [markdown]
# ## Why some tokens weigh more
#
# Most tokens of a passage are easy. The golden answer is the part that must be right, so its tokens
# weigh more in the loss. Which tokens are heavy here?

# %%
useful = next((e for e in training if e.useful and simulator_data.has_answer(e, e.passages)), training[0])
lesson = simulator_data.encode(useful, prompts, golden_weight, max_length)
learned = lesson.input_ids[lesson.n_prompt :] if lesson else ()
heavy = [tokenizer.decode([i]) for i, w in zip(learned, lesson.weights if lesson else ()) if w != 1.0]
print(f"{useful.golden_answer!r}: {len(heavy)} of {len(learned)} learned tokens are heavy: {heavy}")

# %% [markdown]
# The loss is a weighted mean. Three tokens with log-probabilities -1, -2, -3, the middle one heavy:
# $(1 + 4 \cdot 2 + 3) / (1 + 4 + 1) = 2$.

# %%
logp = torch.tensor([-1.0, -2.0, -3.0])
print(simulator_sft.weighted_nll(logp, torch.tensor([1.0, 4.0, 1.0])).item())

# %% [markdown]
# ## Before the tuning
#
# The base has read passages and notes, never this instruction. Each held-out query is asked three times:
# for *useful* passages, for *misleading* ones, and for useful ones with *another* golden answer.

# %%
requests = quality.quality_requests(held_out or training, n_quality_requests, seed, names=training)
engine = TransformersEngine(model, tokenizer, name="simulator", stop_strings=())
budget = {"temperature": SIMULATOR_TEMPERATURE, "max_new_tokens": max_length}
before = quality.quality_report(requests, engine, prompts, "before", seed=seed, ledger=stage.ledger, **budget)
display(show.table(before.pivot(index="metric", columns="kind", values="value").reset_index()))

# %% [markdown]
# The base writes passages, but it does not know what was asked of it. How would a policy fare that
# searches this? It would learn not to search: searching would never help.
#
# ## The tuning
#
# Useful and misleading examples in turn, new names at every appearance, batches of similar length.

# %%
settings = simulator_sft.SFTSettings(
    steps=steps, batch_size=batch_size, learning_rate=learning_rate, golden_weight=golden_weight,
    rename_share=rename_share, max_length=max_length, seed=seed,
)
history = simulator_sft.tune_simulator(
    training, model, tokenizer, prompts, settings, stage,
    identity={"inputs": stage.inputs, "base": simulator_model},
)

# %% [markdown]
# The plain negative log-likelihood (nats per token), over all learned tokens and over the golden answer's
# alone. Which of the two should fall further, and why does neither reach 0?

# %%
tenth = max(1, len(history) // 10)
shown = history.reindex(columns=["step", "loss", "nll", "nll_golden", "learning_rate"])
display(show.table(shown.groupby((shown["step"] - 1) // tenth).mean(), digits=4))

# %% [markdown]
# The golden answer can be copied from the prompt, so its loss can fall close to 0. Everything else in a
# passage is the engine's free choice: other people, other films. No prompt tells which.
#
# ## After the tuning

# %%
after = quality.quality_report(requests, engine, prompts, "after", seed=seed, ledger=stage.ledger, **budget)
report = pd.concat([before, after], ignore_index=True)
stage.write_table(report, "quality.csv")
reference = quality.engine_reference(requests, seed)
stage.write_table(reference, "engine_reference.csv")
figure = figures.simulator_quality(report)
figures.save(figure, stage.figures / "quality.png")
figure

# %% [markdown]
# ### Useful against misleading
#
# The distance between the two rows of *answer present* is what the curriculum will play with.
# The real engine's own passages stand beside them, as something to compare with.

# %%
wide = pd.concat([after, reference]).pivot_table(index="metric", columns=["when", "kind"], values="value")
wide.columns = [" / ".join(column) for column in wide.columns]
display(show.table(wide.reset_index()))

# %% [markdown]
# ### Prompt or memory?
#
# With an altered golden answer, the altered one should appear in useful passages, and the original one
# should not. A simulator that fails here knows the training questions' answers by heart.

# %%
def value(when: str, kind: str, metric: str) -> float:
    """Return one number of the report; NaN where nothing could be asked."""
    row = report.query("when == @when and kind == @kind and metric == @metric")["value"]
    return float(row.iloc[0]) if len(row) else float("nan")


for metric in ("answer_present", "original_answer_present"):
    moments = [value(when, "altered", metric) for when in ("before", "after")]
    print(f"altered, {metric}: {moments[0]:.2f} -> {moments[1]:.2f}")

# %% [markdown]
# ### Read it yourself
#
# The same held-out query, asked for three kinds of passages.

# %%
bearing = [r for r in requests if r.other_answer and simulator_data.has_answer(r.example, r.example.passages)]
shown_request = (bearing or requests)[0]
show.say(f"query: {shown_request.example.query}   golden answer: {shown_request.example.golden_answer}")
for kind in quality.KINDS:
    (written,) = quality.ask_simulator([shown_request], kind, engine, prompts, seed=seed, **budget)
    asked_with = f" ({shown_request.other_answer})" if kind == "altered" else ""
    show.say(f"\n{kind}{asked_with}")
    for passage in written.passages if written else ():
        show.say("  ", passage.text)

# %% [markdown]
# The passages are invented: only the golden answer's fact is known to the simulator. A policy that
# searches here learns *how* to search and read, not facts about the world.
#
# ### Freshness: what does it say about facts that have changed?
#
# Some facts of the later world have another object than when the simulator was tuned. We ask for them where
# the prompt does not give the new object away (it is no golden answer), and look for the new and for the old
# statement. The real engines of then and of today answer the same queries. Prediction: does the simulator
# state the old objects, the new ones, or neither?

# %%
later = [stage.find("00", f"later_{name}.jsonl") for name in ("questions", "corpus")]
facts = []
if all(later):
    then, today = read_questions(stage.require("00", "questions.jsonl")), read_questions(later[0])
    facts = freshness.changed_facts(then, today, n_quality_requests, seed)
if facts:
    shelf = {"engine, then": load_corpus(stage.require("00", "corpus.jsonl")), "engine, today": load_corpus(later[1])}
    found = {name: freshness.ask_engine(facts, BM25Retriever(shelf[name], k)) for name in shelf}
    found["simulator"] = freshness.ask_tuned(facts, k, engine, prompts, seed=seed, **budget)
    fresh = freshness.freshness_table(facts, found)
    stage.write_table(fresh, "freshness.csv")
    display(show.table(fresh, f"share of {len(facts)} changed facts that are stated, new and old"))
else:
    print("no later world, or no changed fact that a prompt leaves open: nothing to measure here")

# %% [markdown]
# A simulator can be no fresher than its tuning and its prompt. Whether that matters depends on what a policy
# takes from it: habits keep, facts do not. Notebook 04 asks the trained policies about the changed facts.
#
# ### A gate before RL
#
# Four questions that a usable simulator should pass. The thresholds are rules of thumb: below them, the
# gap between training and evaluation grew in our trials.

# %%
gate = quality.gate(after)
display(show.table(gate))

# %% [markdown]
# ## Keep the simulator
#
# Weights and tokenizer together, in the format of `transformers`.

# %%
stage.save_model(lambda folder: models.save(model, tokenizer, folder), "simulator")
stage.finish(
    simulator_prompt=prompts.simulator_version, examples=len(training), held_out=len(held_out),
    gate_passed=bool(gate["passed"].all()),
    useful=value("after", "useful", "answer_present"), leaked=value("after", "misleading", "answer_present"),
);

# %% [markdown]
# ## Summary

# %%
told = {
    (kind, metric): f"{value('before', kind, metric):.3f} → {value('after', kind, metric):.3f}"
    for kind, metric in report[["kind", "metric"]].drop_duplicates().itertuples(index=False)
}
told = defaultdict(lambda: "not measured", told)
display(Markdown(f"""
1. Golden answer in useful passages: **{told["useful", "answer_present"]}**;
   leaked into misleading ones: **{told["misleading", "answer_present"]}**.
2. With another golden answer in the prompt, that one comes out: **{told["altered", "answer_present"]}**;
   the original one still: {told["altered", "original_answer_present"]}.
3. Style distance of useful passages: **{told["useful", "style_distance"]}** bits.

A limit: the simulator answers queries about things that do not exist as readily as any other. Notebook 03
trains a policy on it and reads `simulator/`.
"""))

# %% [markdown]
# ## Exercises
#
# **1.** Four searches returned four lists of passages. In what share of the lists does the golden answer
# stand? Compare as the scores do: case does not matter, whole words do. (5 minutes)

# %% tags=["exercise"]
from solutions import check_02_1, check_02_2


def my_leak_share(lists, answers):
    """Return the share of lists (of texts) that contain their answer."""
    return None


check_02_1(my_leak_share)

# %% [markdown]
# **2.** Exchange several names in a text at once: `{"Anka Falk": "Bruno Holm", "Bruno Holm": "Anka Falk"}`
# must swap the two. Why does one `replace` after the other fail? (10 minutes)

# %% tags=["exercise"]
def my_rename_all(text, mapping):
    """Return the text with every name of the mapping replaced by its new name."""
    return None


check_02_2(my_rename_all)
