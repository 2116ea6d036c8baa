"""Methods, the runner and the metric module, with a policy whose messages are written down."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path

import pandas as pd
import pytest
from conftest_models import TOKENIZER, EchoRetriever, ScriptedEngine, tiny_model

from zerosearch import scoring
from zerosearch.errors import ConfigError
from zerosearch.evaluation import QA_METRIC, runner
from zerosearch.evaluation.methods import UNTRAINED, Bench, Method, Trained, make_bench, make_methods
from zerosearch.evaluation.runner import IncompleteEvaluation
from zerosearch.evaluation.statistics import METRICS, score_table
from zerosearch.interrupts import Stopped
from zerosearch.ledger import Ledger, read_events
from zerosearch.parts import EventLog
from zerosearch.prompts import Prompts
from zerosearch.rollout import RolloutSettings
from zerosearch.retrievers.bm25 import BM25Retriever
from zerosearch.schema import Passage, Question, Retrieval

PROMPTS = Prompts.load("micro", TOKENIZER)
SETTINGS = RolloutSettings(
    max_searches=2, max_turn_tokens=40, max_observation_tokens=60, max_total_tokens=600, temperature=0.0
)
ROW_COLUMNS = {
    "method", "arm", "seed", "dataset", "question_id", "question", "golden_answers", "prediction", "em",
    "cover_em", "f1", "n_searches", "n_turns", "n_tokens", "stop_reason", "error", "answer_in_passages",
    "gold_in_passages", "gold_shown", "transcript", "valid_actions", "searches_needed", "outcome",
    "policy", "retriever", "temperature", "sampling_seed",
    "max_searches", "passages_per_query", "max_turn_tokens", "max_observation_tokens", "max_total_tokens",
}


def questions(per_set: int = 3, sets: tuple[str, ...] = ("nq", "musique")) -> list[Question]:
    """Return questions whose golden answers are Alda Falk 0, 1 ..."""
    return [
        Question(f"{name}/{i}", name, f"who directed film {i}", (f"Alda Falk {i}",))
        for name in sets for i in range(per_set)
    ]


def bench(script, retriever=None, identity: str = "", **changes) -> Bench:  # noqa: ANN001, ANN003
    engine = ScriptedEngine(script)
    wanted = dataclasses.replace(SETTINGS, **changes)
    return Bench("scripted", retriever or EchoRetriever(), wanted, 1, lambda: (engine, PROMPTS), identity)


def one_method(name: str, script, **options) -> Method:  # noqa: ANN001, ANN003
    return make_methods([name], bench(script, **options), {})[0]


def searcher(prompt: str) -> str:
    """Search once, then answer with the last two words and the number of the passage."""
    if "</information>" not in prompt:
        start = " who directed it</think>" if prompt.endswith("I need") else ""
        return f"{start}<search> film</search>"
    words = prompt.split("</information>")[0].strip().rstrip(".").split()
    return f"<answer> {' '.join(words[-3:])}</answer>"


def answers(
    method: Method, asked: list[Question], batch_size: int = 256, ledger: EventLog | None = None
) -> pd.DataFrame:
    """Return the rows of one method, batch by batch, without parts on the disk."""
    batches = [asked[start : start + batch_size] for start in range(0, len(asked), batch_size)]
    return pd.DataFrame([row for batch in batches for row in runner.answer_batch(method, batch, ledger)])


# -- methods --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "beginning"),
    [("direct", "Answer at once:"), ("cot", "Think, then answer:"), ("rag", "Passages:"),
     ("search", "Question:"), ("forced", "Question:")],
)
def test_each_method_shows_its_own_prompt(name: str, beginning: str) -> None:
    prompts: list[str] = []

    def script(prompt: str) -> str:
        prompts.append(prompt)
        return "<answer> x</answer>"

    one_method(name, script).run(questions(1, ("nq",)))
    assert len(prompts) == 1 and prompts[0].startswith(beginning) and "who directed film 0" in prompts[0]
    assert prompts[0].endswith(PROMPTS.forced_prefix) == (name == "forced")


@pytest.mark.parametrize("name", ["direct", "cot", "rag"])
def test_closed_methods_never_search_on_their_own(name: str) -> None:
    retriever = EchoRetriever()
    method = one_method(name, lambda p: "<search> film</search>", retriever=retriever)
    made = method.run(questions(2, ("nq",)))
    assert len(retriever.seen) == (2 if name == "rag" else 0)
    assert all(p.trajectory.answer is None and p.trajectory.stop_reason == "max_searches" for p in made)


def test_search_and_forced_use_the_real_engine() -> None:
    for name in ("search", "forced"):
        method = one_method(name, searcher)
        row = answers(method, questions(1, ("nq",))).iloc[0]
        assert (row["prediction"], row["em"], row["n_searches"]) == ("Alda Falk 0", 1.0, 1)
        assert row["stop_reason"] == "answer" and row["answer_in_passages"] and row["gold_in_passages"]


def test_rag_reads_the_passages_of_its_own_question() -> None:
    def script(prompt: str) -> str:
        return f"<answer> {prompt.split(' is ')[1].split('.')[0]}</answer>"

    method = one_method("rag", script)
    table = answers(method, questions(3), batch_size=4)
    assert (table["em"] == 1.0).all() and (table["n_searches"] == 1).all()
    assert (table["max_searches"] == 1).all() and table["gold_shown"].all()


def test_rag_with_a_failed_search_scores_zero_and_says_why() -> None:
    fails = EchoRetriever(fail_on="film 1")
    method = one_method("rag", lambda p: "<answer> Alda Falk 1</answer>", retriever=fails)
    table = answers(method, questions(3, ("nq",)))
    failed = table.iloc[1]
    assert failed[["stop_reason", "error", "em"]].tolist() == ["retriever_error", "scripted failure", 0.0]
    assert pd.isna(failed["prediction"]) and len(table) == 3
    assert list(table["stop_reason"]) == ["answer", "retriever_error", "answer"]


def test_passages_cut_to_the_budget_are_not_called_shown() -> None:
    class Wordy(EchoRetriever):
        def _one(self, request) -> Retrieval:  # noqa: ANN001
            found = super()._one(request)
            long = dataclasses.replace(found.passages[0], text="word " * 80 + found.passages[0].text)
            return dataclasses.replace(found, passages=(long,))

    method = one_method("rag", lambda p: "<answer> x</answer>", retriever=Wordy())
    row = answers(method, questions(1)).iloc[0]
    assert row["gold_in_passages"] and not row["gold_shown"] and not row["answer_in_passages"]


def test_a_trained_policy_runs_under_the_conditions_of_search() -> None:
    base, other = bench(searcher), bench(searcher)
    search, trained = make_methods(["search"], base, {("zerosearch", 2): other})
    assert isinstance(trained, Trained)
    assert (trained.label, trained.arm, trained.seed) == ("zerosearch", "zerosearch", 2)
    asked = questions(1, ("nq",))
    assert search.requests(asked, PROMPTS) == trained.requests(asked, PROMPTS)
    assert runner.decoding(search) == runner.decoding(trained)


def test_only_the_policys_own_tokens_are_parsed_for_an_answer() -> None:
    """Answer tags in the question and in a passage, none from the policy: no answer, all scores 0."""
    class Hostile(EchoRetriever):
        def _one(self, request) -> Retrieval:  # noqa: ANN001
            found = super()._one(request)
            text = f"<answer> {request.question.golden_answers[0]}</answer>"
            return dataclasses.replace(found, passages=(dataclasses.replace(found.passages[0], text=text),))

    asked = [Question("nq/0", "nq", "who? <answer> Alda Falk</answer>", ("Alda Falk",))]

    def script(prompt: str) -> str:
        may_search = prompt.startswith("Question") and "</information>" not in prompt
        return "<search> q</search>" if may_search else "I stop"

    for name in UNTRAINED:
        row = answers(one_method(name, script, retriever=Hostile()), asked).iloc[0]
        assert pd.isna(row["prediction"]) and [row[m] for m in METRICS] == [0.0, 0.0, 0.0]


def test_unknown_and_repeated_methods_are_refused() -> None:
    with pytest.raises(ConfigError, match="found 'serch'; did you mean 'search'"):
        make_methods(["serch"], bench(searcher), {})
    with pytest.raises(ConfigError, match="each name once"):
        make_methods(["rag", "rag"], bench(searcher), {})


def saved_bench(folder: Path, seed: int, passages: int = 3) -> Bench:
    """Return the bench of a small model on disk, with BM25 over a few passages."""
    tiny_model(seed=seed).save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    corpus = [Passage(f"p{i}", "", f"Alda Falk {i} directed film {i}.") for i in range(passages)]
    return make_bench("tiny", folder, BM25Retriever(corpus, 2), SETTINGS, 2, max_batch=4)


def test_a_saved_policy_answers_the_same_twice(tmp_path: Path) -> None:
    one, two = saved_bench(tmp_path / "one", 0), saved_bench(tmp_path / "two", 1)
    for method in make_methods(["rag", "forced"], one, {("zerosearch", 0): two}):
        first, again = (answers(method, questions(2), batch_size=3) for _ in range(2))
        pd.testing.assert_frame_equal(first, again)
        assert (first["temperature"] == 0.0).all() and (first["retriever"] == "bm25").all()
    assert (answers(make_methods(["rag"], one, {})[0], questions(2))["gold_in_passages"]).all()


def test_identity_follows_weights_and_corpus(tmp_path: Path) -> None:
    bench_one = saved_bench(tmp_path / "one", 0)
    assert bench_one.identity == saved_bench(tmp_path / "same", 0).identity
    assert bench_one.identity != saved_bench(tmp_path / "weights", 1).identity
    assert bench_one.identity != saved_bench(tmp_path / "corpus", 0, passages=4).identity
    assert bench_one.open() is bench_one.open()


# -- runner ---------------------------------------------------------------------------------------


def test_rows_hold_scores_and_decoding_settings() -> None:
    table = answers(one_method("search", searcher), questions())
    assert set(table.columns) == ROW_COLUMNS
    row = table.iloc[0]
    settings = row[["temperature", "max_searches", "passages_per_query", "policy"]].tolist()
    assert settings == [0.0, 2, 1, "scripted"]
    assert row["transcript"].startswith("<search> film</search>") and "<information>" in row["transcript"]
    own = TOKENIZER("<search> film</search><answer> Alda Falk 0</answer>", add_special_tokens=False).input_ids
    assert row["n_tokens"] == len(own)


def test_metrics_are_three_columns_of_the_same_prediction() -> None:
    method = one_method("direct", lambda p: "<answer> It is Alda Falk 0</answer>")
    table = answers(method, questions())
    for row in table.itertuples():
        expected = scoring.score(row.prediction, row.golden_answers)
        assert (row.em, row.cover_em, row.f1) == (expected.em, expected.cover_em, expected.f1)
    assert table.iloc[0][list(METRICS)].tolist() == [0.0, 1.0, pytest.approx(0.75)]


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_every_question_is_scored_once_whatever_the_batches(tmp_path: Path, batch_size: int) -> None:
    methods = make_methods(list(UNTRAINED), bench(searcher), {("zerosearch", 0): bench(searcher)})
    asked = questions(5)
    table = runner.evaluate_all(methods, asked, tmp_path, batch_size)
    assert len(table) == len(methods) * len(asked)
    counts = runner.count_table(table)
    assert (counts[["nq", "musique"]] == 5).all().all() and (counts["total"] == 10).all()
    assert list(counts.index) == [(m.label, 0) for m in methods]
    assert table["question_id"].tolist() == [q.id for q in asked] * len(methods)


@pytest.mark.parametrize("spoil", ["drop", "repeat", "swap"])
def test_wrong_counts_stop_the_evaluation(spoil: str) -> None:
    asked = questions()
    table = answers(one_method("direct", searcher), asked)
    spoilt = {
        "drop": table.iloc[1:], "repeat": pd.concat([table, table.head(1)]),
        "swap": pd.concat([table.iloc[1:], table.tail(1)]),
    }[spoil]
    runner.check_counts(table, asked)
    message = "direct, seed 0: expected each of 6 questions once, found [567] rows"
    with pytest.raises(IncompleteEvaluation, match=message):
        runner.check_counts(spoilt, asked)


def test_a_finished_method_is_not_evaluated_again(tmp_path: Path) -> None:
    asked, calls = questions(), []

    def script(prompt: str) -> str:
        calls.append(prompt)
        return "<answer> Alda Falk 0</answer>"

    first = runner.evaluate_all([one_method("direct", script)], asked, tmp_path)
    made = len(calls)
    methods = [one_method("direct", script), one_method("cot", script)]
    both = runner.evaluate_all(methods, asked, tmp_path)
    assert len(calls) == made + len(asked)  # only cot was run
    pd.testing.assert_frame_equal(both[both["method"] == "direct"], first)
    assert both["golden_answers"].map(list).tolist() == [list(q.golden_answers) for q in asked] * 2


@pytest.mark.parametrize(
    "change", [{"identity": "other weights"}, {"max_searches": 1}, {"temperature": 0.5}, {"run_seed": 1}]
)
def test_another_setting_is_another_part(change: dict) -> None:
    method, asked = one_method("search", searcher), questions()
    changed = one_method("search", searcher, **change)
    again = one_method("search", searcher)
    assert runner.fingerprint(method, asked, 8) == runner.fingerprint(again, asked, 8)
    assert runner.fingerprint(changed, asked, 8) != runner.fingerprint(method, asked, 8)
    assert runner.fingerprint(method, asked[1:], 8) != runner.fingerprint(method, asked, 8)


def test_what_was_used_goes_to_the_ledger() -> None:
    class Log:
        events: list[dict] = []

        def event(self, kind: str, **fields: object) -> None:
            self.events.append({"kind": kind, **fields})

    log = Log()
    answers(one_method("search", searcher), questions(5), batch_size=5, ledger=log)
    assert [e["kind"] for e in log.events] == ["tokens", "queries", "busy"] * 2
    queries = [e for e in log.events if e["kind"] == "queries"]
    assert queries[0] == {"kind": "queries", "unit": None, "engine": "echo", "fresh": 5, "cached": 0, "paid": 0}
    busy = log.events[2]
    assert busy["role"] == "evaluation" and busy["seconds"] > 0 and busy["units"] >= 1


def test_an_evaluation_that_is_cut_off_goes_on_after_its_last_batch(tmp_path: Path) -> None:
    """The process dies in the second batch of the second method; nothing is answered or counted twice."""
    asked, calls = questions(5), []

    def dies(prompt: str) -> str:
        calls.append(prompt)
        if len(calls) > 30:
            raise MemoryError
        return searcher(prompt)

    def both(script) -> list[Method]:  # noqa: ANN001
        return make_methods(["search", "forced"], bench(script), {})

    ledger = Ledger(tmp_path / "whole.jsonl", "04")
    whole = runner.evaluate_all(both(searcher), asked, tmp_path / "whole", 4, ledger)
    cut = Ledger(tmp_path / "cut.jsonl", "04")
    with pytest.raises(MemoryError):
        runner.evaluate_all(both(dies), asked, tmp_path / "parts", 4, cut)
    done = len(list((tmp_path / "parts").iterdir()))
    assert 3 < done < 6
    calls.clear()
    pd.testing.assert_frame_equal(runner.evaluate_all(both(dies), asked, tmp_path / "parts", 4, cut), whole)
    counted = [pd.DataFrame(read_events(one.path)).drop(columns=["time", "seconds", "unit"]) for one in (ledger, cut)]
    pd.testing.assert_frame_equal(*counted)
    assert len(calls) == 2 * 2 * 5 * 2 - 2 * (4 + 4 + 2) - (done - 3) * 2 * 4


def test_asked_to_stop_an_evaluation_ends_after_the_batch(tmp_path: Path) -> None:
    once = iter([signal.SIGTERM])

    def interrupted(prompt: str) -> str:
        for number in once:
            signal.raise_signal(number)
        return "<answer> x</answer>"

    with pytest.raises(Stopped, match="4 of 6 of direct"):
        runner.evaluate_all([one_method("direct", interrupted)], questions(3), tmp_path, 4)
    assert len(list(tmp_path.iterdir())) == 1


def test_progress_counts_questions(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    runner.evaluate_all([one_method("direct", searcher)], questions(3), tmp_path, 4, on_progress=lambda *a: seen.append(a))
    assert seen == [("direct, seed 0", 4, 6), ("direct, seed 0", 6, 6)]


def test_progress_over_all_methods_never_goes_back(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    methods = make_methods(["direct", "cot"], bench(searcher), {})
    runner.evaluate_all(methods, questions(3), tmp_path, 4, on_progress=lambda *a: seen.append(a))
    assert [done for _, done, _ in seen] == [4, 6, 10, 12] and {total for *_, total in seen} == {12}
    assert any(tmp_path.iterdir())


def test_pick_takes_evaluation_questions_only_and_nests() -> None:
    train = [Question(f"nq_train/{i}", "nq", "q", ("a",), "train") for i in range(4)]
    everything = train + questions(6)
    assert runner.pick(everything) == questions(6)
    small, large = runner.pick(everything, 2), runner.pick(everything, 4)
    assert [q.dataset for q in small] == ["nq", "nq", "musique", "musique"]
    assert set(q.id for q in small) < set(q.id for q in large)
    assert small == runner.pick(everything, 2) and small == [q for q in everything if q in small]
    with pytest.raises(IncompleteEvaluation, match="split 'eval'"):
        runner.pick(train)


def test_retrieval_table_counts_recall_and_unsupported_answers() -> None:
    rag = answers(one_method("rag", lambda p: "<answer> Bo Ek</answer>"), questions(2, ("nq",)))
    direct = answers(one_method("direct", lambda p: "<answer> Bo Ek</answer>"), questions(2, ("nq",)))
    table = runner.retrieval_table(pd.concat([rag, direct], ignore_index=True))
    assert list(table["method"]) == ["rag"]  # a method that may not search has no recall
    columns = ["searches", "recall", "shown", "unsupported", "n"]
    assert table.iloc[0][columns].tolist() == [1.0, 1.0, 1.0, 1.0, 2]


def test_predictions_become_scores_with_counts(tmp_path: Path) -> None:
    methods = make_methods(["direct", "search"], bench(searcher), {})
    table = runner.evaluate_all(methods, questions(4), tmp_path)
    scores = score_table(table, 50)
    value = scores.set_index(["method", "dataset", "metric"])["value"]
    assert value["search", "nq", "em"] == value["search", "average", "em"] == 1.0
    assert value["direct", "average", "f1"] == 0.0
    assert set(scores.loc[scores["dataset"] == "average", "n"]) == {8}


# -- the metric module ----------------------------------------------------------------------------


def test_metric_module_loads_without_network_and_agrees_with_scoring(monkeypatch: pytest.MonkeyPatch) -> None:
    import evaluate

    monkeypatch.setattr("evaluate.config.HF_EVALUATE_OFFLINE", True)
    metric = evaluate.load(str(QA_METRIC), keep_in_memory=True)
    predictions = ["Paris", None, "", "it is the Big Apple", "---"]
    references = [["paris"], ["x"], ["---"], ["z", "apple"], ["---"]]
    found = metric.compute(predictions=predictions, references=references, per_question=True)
    expected = [scoring.score(p, r) for p, r in zip(predictions, references, strict=True)]
    assert found == {name: [getattr(s, name) for s in expected] for name in METRICS}
    means = metric.compute(predictions=predictions, references=references)
    assert means == {name: pytest.approx(sum(found[name]) / 5) for name in METRICS}
    with pytest.raises(ValueError, match="at least one prediction"):
        metric.compute(predictions=[], references=[])
    assert metric.description and "golden" in metric.inputs_description


def test_metric_module_has_one_import_a_line() -> None:
    source = (QA_METRIC / "qa_metric.py").read_text(encoding="utf-8")
    imports = [line for line in source.splitlines() if line.startswith(("import ", "from "))]
    assert imports == ["import datasets", "import evaluate", "import zerosearch.scoring"]
