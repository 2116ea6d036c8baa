"""Checks and solutions of the exercises, notebook by notebook.

``check_NN_k(answer)`` says what is wrong with an answer; None means "not tried yet" and never fails.
``solution_NN_k()`` returns an answer that passes.  Look here last.
"""

from __future__ import annotations

from typing import Any, Callable


# -- 02 simulator, 03 policy RL -------------------------------------------------------------------


def _tried(name: str, function: Callable[..., Any] | None, *arguments: Any) -> Any:
    """Return what the student's function returns for the arguments; None is reported as not tried."""
    found = function(*arguments) if function is not None else None
    if found is None:
        print(f"{name}: not tried yet")
    return found


def check_02_1(leak_share: Callable[[list[list[str]], list[str]], float | None]) -> None:
    """Check the share of passage lists in which their golden answer stands."""
    lists = [["Nora Falk lives here.", "It rains."], ["It rains."], ["Ask NORA FALK!"], ["Nora Falkner won."]]
    found = _tried("02.1", leak_share, lists, ["Nora Falk"] * 4)
    if found is None:
        return
    mistakes = {
        0.25: "one leak is missed: 'Ask NORA FALK!' names the answer too; compare as zerosearch.scoring does",
        0.75: "one leak too many: 'Nora Falkner' is somebody else; compare whole words",
        2.0: "that is a number of lists: divide by how many there are",
        0.4: "that is a share of passages: one leaking passage spoils its whole list, so count lists",
    }
    assert abs(found - 0.5) < 1e-9, mistakes.get(round(float(found), 3), f"expected 0.5, found {found!r}")
    print("02.1: right. The same count, over real requests, is answer_present of the misleading passages")


def solution_02_1() -> Callable[..., Any]:
    """A list leaks when one of its passages contains the answer by the rules of the scores."""

    from zerosearch.scoring import contains_answer

    def leak_share(lists: list[list[str]], answers: list[str]) -> float:
        leaks = [any(contains_answer(text, [answer]) for text in texts) for texts, answer in zip(lists, answers)]
        return sum(leaks) / len(leaks)

    return leak_share


def check_02_2(rename_all: Callable[[str, dict[str, str]], str | None]) -> None:
    """Check the replacement of several names at once."""
    cases = [
        ("Anka Falk met Bruno Holm.", {"Anka Falk": "Rosa Voss"}, "Rosa Voss met Bruno Holm.",
         "a single name is not replaced"),
        ("Anka Falk met Bruno Holm.", {"Anka Falk": "Bruno Holm", "Bruno Holm": "Anka Falk"}, "Bruno Holm met Anka Falk.",
         "two names that swap end up equal: a replaced name was replaced again; go through the text once"),
        ("Port Amber Bay is not Port Amber.", {"Port Amber": "Lake Wren", "Port Amber Bay": "Old Fallow"},
         "Old Fallow is not Lake Wren.", "the longer name must win: put longer names first in the pattern"),
        ("Falkner met Falk.", {"Falk": "Voss"}, "Falkner met Voss.",
         "a part of a longer word was replaced: ask for word borders around a name"),
    ]
    for text, mapping, expected, mistake in cases:
        found = _tried("02.2", rename_all, text, dict(mapping))
        if found is None:
            return
        assert found == expected, f"{mistake}; expected {expected!r}, found {found!r}"
    print("02.2: right. zerosearch.training.renaming does the same to whole examples")


def solution_02_2() -> Callable[..., Any]:
    """One pass, longest names first, whole words only."""

    import re

    def rename_all(text: str, mapping: dict[str, str]) -> str:
        longest_first = sorted(mapping, key=len, reverse=True)
        pattern = r"\b(" + "|".join(re.escape(name) for name in longest_first) + r")\b"
        return re.sub(pattern, lambda found: mapping[found.group(0)], text)

    return rename_all


def check_03_1(advantages: Callable[[list[float]], list[float] | None]) -> None:
    """Check leave-one-out advantages of one group."""
    for rewards, expected in (([1.0, 0.0, 0.5], [0.75, -0.75, 0.0]), ([0.0] * 4, [0.0] * 4), ([1.0, 1.0], [0.0] * 2)):
        found = _tried("03.1", advantages, list(rewards))
        if found is None:
            return
        near = [abs(f - e) < 1e-6 for f, e in zip(found, expected, strict=True)]
        assert all(near), f"rewards {rewards}: {_advantage_mistake(rewards, [float(f) for f in found])}"
    print("03.1: right. On average over a group it is zero, whatever the rewards were")


def _advantage_mistake(rewards: list[float], found: list[float]) -> str:
    mean = sum(rewards) / len(rewards)
    others = [(sum(rewards) - r) / (len(rewards) - 1) for r in rewards]
    known = [
        ([r - mean for r in rewards], "this is the mean of the whole group: leave the trajectory itself out of it"),
        (rewards, "there is no baseline: good and bad trajectories would all become more likely"),
        ([o - r for r, o in zip(rewards, others)], "the sign is turned round: reward minus baseline"),
        ([mean - r for r in rewards], "the sign is turned round, and the baseline holds the trajectory itself"),
    ]
    for values, mistake in known:
        if all(abs(f - v) < 1e-6 for f, v in zip(found, values)):
            return mistake
    return f"expected each reward minus the mean of the others, found {found}"


def solution_03_1() -> Callable[..., Any]:
    """Reward minus the mean of the others."""

    def advantages(rewards: list[float]) -> list[float]:
        return [reward - (sum(rewards) - reward) / (len(rewards) - 1) for reward in rewards]

    return advantages


def check_03_2(loss_mask: Callable[[list[tuple[str, int]]], list[bool] | None]) -> None:
    """Check the loss mask of a trajectory given as (who wrote it, number of tokens) parts."""
    found = _tried("03.2", loss_mask, [("policy", 3), ("information", 4), ("policy", 2)])
    if found is None:
        return
    mask, right = [bool(entry) for entry in found], [True] * 3 + [False] * 4 + [True] * 2
    assert len(mask) == 9, f"one entry per token, 9 in all, found {len(mask)}: a part is as long as its token count"
    assert not all(mask), "retrieved tokens are trained too: the policy would learn to write passages itself"
    assert mask != [not entry for entry in right], "turned round: True marks what the policy wrote, its own choice"
    assert mask == right, f"wrong at token {[m is r for m, r in zip(mask, right)].index(False)}, found {mask}"
    print("03.2: right. Lengths decide, never the text: a tag inside a passage cannot move the mask")


def solution_03_2() -> Callable[..., Any]:
    """True for every token of a policy part, False for every other."""

    def loss_mask(turns: list[tuple[str, int]]) -> list[bool]:
        return [who == "policy" for who, n_tokens in turns for _ in range(n_tokens)]

    return loss_mask


# -- 04 evaluation --------------------------------------------------------------------------------


def check_04_1(prediction: str | None) -> None:
    """Check a prediction that has cover EM 1, EM 0 and F1 below 0.2 for the golden answer Paris."""
    from zerosearch import scoring

    if prediction is None:
        print("04.1: not tried yet")
        return
    found = scoring.score(prediction, ["Paris"])
    print(f"04.1: {found}")
    assert found.cover_em == 1.0, "cover EM is 0: the prediction must contain the word Paris"
    assert found.em == 0.0, "EM is 1: after normalisation nothing but Paris is left, add words"
    assert found.f1 < 0.2, f"F1 is {found.f1:.2f}, not below 0.2: one word of n is right, so F1 = 2 / (n + 1)"
    print("04.1: right. A policy paid by cover EM learns to write such answers; F1 charges for every word")


def solution_04_1() -> str:
    """Nine wrong words beside the right one: F1 = 2 / 11."""
    return "London Rome Madrid Berlin Vienna Lisbon Athens Dublin Oslo Paris"


def check_04_2(n_questions: int | None) -> None:
    """Check the number of questions from which a paired difference of 5 in 150 has an interval above 0."""
    if n_questions is None:
        print("04.2: not tried yet")
        return
    mean, variance = 5 / 150, 55 / 150 - (5 / 150) ** 2
    needed = 1.96**2 * variance / mean**2
    half = 1.96 * (variance / n_questions) ** 0.5
    print(f"04.2: with {n_questions} questions the interval is {mean:.3f} plus or minus {half:.3f}")
    assert n_questions > 0.8 * needed, (
        "too few, 0 is still inside; the difference per question is +1, -1 or 0: its variance is the mean "
        "of its squares, 55/150, minus the square of its mean"
    )
    assert n_questions < 1.2 * needed, "more than needed; solve 1.96 * root(variance / n) = 0.033 for n"
    print(f"04.2: right, about {needed:.0f}; a single set of 150 cannot show a difference of this size")


def solution_04_2() -> int:
    """1.96 squared times the variance (0.366) over the squared difference (0.0333 squared)."""
    return 1264


# -- 05 costs -------------------------------------------------------------------------------------


def check_05_1(n_queries: float | None) -> None:
    """Check the break-even of SFT-14B (70.80 dollars) at one dollar for a thousand searches."""
    if n_queries is None:
        print("05.1: not tried yet")
        return
    print(f"05.1: {n_queries:,.0f} searches cost {n_queries / 1000:,.2f} dollars, the simulator 70.80")
    assert abs(n_queries - 7_724) > 100, "that is SerpAPI's price; at one dollar a thousand a search costs 0.001"
    assert abs(n_queries - 70_800) < 100, "the two bills differ; solve 0.001 x queries = 70.80"
    print("05.1: right, more than the 64,000 of the published run: at that price the simulator saved nothing")


def solution_05_1() -> float:
    """Fixed cost over the price of a search: 70.80 / 0.001."""
    return 70_800.0


def check_05_2(bill: float | None) -> None:
    """Check the bill for 128,000 searches when plans of 30,000 for 275 dollars are sold whole."""
    if bill is None:
        print("05.2: not tried yet")
        return
    print(f"05.2: {bill:,.2f} dollars are {bill / 275:.2f} plans")
    assert abs(bill - 825) > 1, "that pays one search a trajectory, 64,000; the question has two"
    assert abs(bill - 1173.33) > 1, "that is the price in proportion; the fifth plan has to be bought whole"
    assert abs(bill - 1375) < 1, "128,000 searches / 30,000 = 4.27 plans; round up, times 275"
    print("05.2: right. The published bill is a lower bound twice over: one search each, and plans in proportion")


def solution_05_2() -> float:
    """Five plans at 275 dollars."""
    return 1375.0
