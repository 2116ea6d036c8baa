"""robustness.py: the same policies under other searches, with engines whose faults are known."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from conftest_models import EchoRetriever
from test_evaluation import PROMPTS, SETTINGS, ScriptedEngine, questions, searcher

from zerosearch import stage_parameters
from zerosearch.evaluation import conditions, robustness, runner
from zerosearch.evaluation.methods import Bench, Method, make_methods
from zerosearch.evaluation.robustness import Trial
from zerosearch.schema import Passage, Question, Retrieval, SearchRequest


class WrongRetriever:
    """An engine that always names somebody else."""

    name = "wrong"

    def search(self, requests: list[SearchRequest]) -> list[Retrieval]:
        return [Retrieval(r, (Passage("w", "", "film is Bo Ek 9."),), self.name) for r in requests]


def methods(
    retriever, seeds: tuple[int, ...] = (0,), names: tuple[str, ...] = ("search", "forced")  # noqa: ANN001
) -> list[Method]:
    """Return the methods of a run with one arm: all use the scripted searcher."""
    bench = Bench("scripted", retriever, SETTINGS, 1, lambda: (ScriptedEngine(searcher), PROMPTS), retriever.name)
    return make_methods(list(names), bench, {("zerosearch", seed): bench for seed in seeds})


def later(n: int = 2) -> list[Question]:
    """Return questions whose answer was ``Bo Ek 9`` and is another one now."""
    return [
        Question(f"nq/{i}", "nq", f"who directed film {i}", (f"Alda Falk {i}",), "eval", {"past_answer": "Bo Ek 9"})
        for i in range(n)
    ]


def run_all(folder: Path, seeds: tuple[int, ...] = (0, 1)) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return (headline predictions, predictions under conditions, clean ones included)."""
    asked, drawn = questions(4), runner.pick(questions(4), 2)
    headline = runner.evaluate_all(methods(EchoRetriever(), seeds), asked, folder / "clean")
    tried = [m for m in methods(WrongRetriever(), seeds) if robustness.is_tried(m)]
    trials = [Trial("corrupt-0.75", tried, drawn), Trial("later", tried, later())]
    answered = robustness.evaluate_conditions(trials, folder)
    return headline, pd.concat([robustness.clean_rows(headline, drawn), *answered], ignore_index=True)


def test_the_names_agree_with_the_engines() -> None:
    assert ("clean", *stage_parameters.CONDITIONS) == conditions.CONDITIONS
    assert robustness.CLEAN in conditions.CONDITIONS and robustness.LATER in conditions.CONDITIONS


def test_trained_policies_and_the_forced_base_are_tried() -> None:
    tried = [m.label for m in methods(EchoRetriever(), (0, 1)) if robustness.is_tried(m)]
    assert tried == ["forced", "zerosearch", "zerosearch"]


def test_every_condition_has_its_rows_and_clean_ones_are_those_of_the_headline(tmp_path: Path) -> None:
    headline, rows = run_all(tmp_path)
    counts = rows.groupby(["condition", "method", "seed"], sort=False).size()
    assert counts.to_dict() == {
        (name, *who): n for name, n in (("clean", 4), ("corrupt-0.75", 4), ("later", 2))
        for who in (("forced", 0), ("zerosearch", 0), ("zerosearch", 1))
    }
    assert set(rows.columns) == {*headline.columns, "condition", "past"}
    clean = rows[rows["condition"] == "clean"].drop(columns=["condition", "past"])
    same = headline[headline["question_id"].isin(clean["question_id"]) & (headline["method"] != "search")]
    pd.testing.assert_frame_equal(clean.reset_index(drop=True), same.reset_index(drop=True), check_dtype=False)
    assert set(rows.loc[rows["condition"] == "corrupt-0.75", "retriever"]) == {"wrong"}


def test_the_past_answer_is_counted_where_there_is_one(tmp_path: Path) -> None:
    _, rows = run_all(tmp_path)
    assert rows.loc[rows["condition"] == "later", "past"].tolist() == [1.0] * 6  # the engine still says Bo Ek 9
    assert rows.loc[rows["condition"] != "later", "past"].isna().all()


def test_no_answer_is_not_the_past_one(tmp_path: Path) -> None:
    bench = Bench("mute", EchoRetriever(), SETTINGS, 1, lambda: (ScriptedEngine(lambda p: "I stop"), PROMPTS), "mute")
    (rows,) = robustness.evaluate_conditions([Trial("later", make_methods(["forced"], bench, {}), later())], tmp_path)
    assert rows["past"].tolist() == [0.0, 0.0] and rows["em"].tolist() == [0.0, 0.0]


def test_scores_by_condition_by_hand(tmp_path: Path) -> None:
    _, rows = run_all(tmp_path)
    scores, averages = robustness.condition_scores(rows, 50)
    assert list(scores.columns) == robustness.SCORE_COLUMNS and list(averages.columns) == robustness.AVERAGE_COLUMNS
    value = averages.set_index(["method", "condition", "metric"])["value"]
    assert value["zerosearch", "clean", "em"] == 1.0 and value["zerosearch", "corrupt-0.75", "em"] == 0.0
    assert value["forced", "later", "em"] == 0.0 and value["forced", "later", "past"] == 1.0
    assert "average" not in set(scores["condition"])
    assert set(averages.query("metric == 'past'")["condition"]) == {"later"}
    assert averages.set_index("method")["seeds"].to_dict() == {"forced": 1, "zerosearch": 2}
    assert averages.set_index("method")["arm"].to_dict() == {"forced": "", "zerosearch": "zerosearch"}
    assert averages.set_index("condition")["n"].to_dict() == {"clean": 4, "corrupt-0.75": 4, "later": 2}
    assert len(scores) == 3 * 3 + 3  # EM of three runs under three conditions, past of three runs


def test_scores_without_a_changed_question(tmp_path: Path) -> None:
    _, rows = run_all(tmp_path)
    scores, averages = robustness.condition_scores(rows[rows["condition"] == "clean"], 20)
    assert set(scores["metric"]) == set(averages["metric"]) == {"em"}


def test_then_and_now(tmp_path: Path) -> None:
    headline, rows = run_all(tmp_path)
    _, averages = robustness.condition_scores(rows, 20)
    table = robustness.freshness_table(headline, later(), averages)
    assert table["method"].tolist() == ["forced", "zerosearch"]
    assert table[["n", "then", "now", "past"]].to_numpy().tolist() == [[2, 1.0, 0.0, 1.0]] * 2
    few = robustness.freshness_table(headline[headline["question_id"] == "nq/0"], later(), averages)
    assert few["then"].isna().all() and few["now"].tolist() == [0.0, 0.0]


def test_a_finished_condition_is_not_evaluated_again(tmp_path: Path) -> None:
    engine, asked = EchoRetriever(), questions(2)
    tried = methods(engine, names=("forced",))
    first = robustness.evaluate_conditions([Trial("random", tried, asked)], tmp_path)
    made = len(engine.seen)
    again = robustness.evaluate_conditions([Trial("random", tried, asked), Trial("empty", tried, asked)], tmp_path)
    assert len(engine.seen) == 2 * made  # only ``empty`` was run; a part belongs to its condition
    assert again[0]["prediction"].tolist() == first[0]["prediction"].tolist()
    assert (again[1]["condition"] == "empty").all()


def test_progress_counts_answers_over_all_conditions(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    tried = methods(EchoRetriever(), names=("forced",))
    trials = [Trial("random", tried, questions(2)), Trial("empty", tried, questions(1))]
    robustness.evaluate_conditions(trials, tmp_path, on_progress=lambda *a: seen.append(a))
    assert [done for _, done, _ in seen] == [4, 8, 10, 12] and {total for *_, total in seen} == {12}
    assert seen[0][0] == "random: forced, seed 0" and seen[-1][0] == "empty: zerosearch, seed 0"


def test_real_engines_of_the_conditions_are_usable_here(tmp_path: Path) -> None:
    """Each condition's own engine under the scripted searcher: rows are complete and name their engine."""
    facts = [Passage(f"p{i}", "", f"film {i} is Alda Falk {i}.") for i in range(12)]
    trials = []
    for name in conditions.CONDITIONS:
        engine = conditions.open_condition(name, facts, 1, 0, facts)
        trials.append(Trial(name, methods(engine, names=("forced",)), questions(3, ("nq",))))
    answered = robustness.evaluate_conditions(trials, tmp_path)
    assert [len(rows) for rows in answered] == [6] * 8
    assert answered[6]["n_searches"].min() == 1 and not answered[6]["gold_in_passages"].any()


def test_without_conditions_there_is_nothing_to_answer(tmp_path: Path) -> None:
    assert robustness.evaluate_conditions([], tmp_path) == []
