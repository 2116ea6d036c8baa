"""Checks and solutions of the exercises, notebook by notebook.

``check_NN_k(answer)`` says what is wrong with an answer; None means "not tried yet" and never fails.
``solution_NN_k()`` returns an answer that passes.  Look here last.
"""

from __future__ import annotations

from typing import Any, Callable


# -- 00 micro-world -------------------------------------------------------------------------------


def check_00_1(n_people: int | None, world: Any) -> None:
    """Check how many entities can be the answer to a "who" question."""
    if n_people is None:
        print("00.1: not tried yet")
        return
    kinds = [entity.kind for entity in world.entities.values()]
    right = kinds.count("person")
    assert n_people != len(kinds), "that is every entity; films and towns are no answer to who"
    assert n_people != len(world.facts), "that counts facts; count the entities that can be named"
    assert n_people == right, f"expected the number of people, found {n_people}; look at entity.kind"
    print(f"00.1: right. Guessing answers 1 in {right} of these questions, {100 / right:.2f} %")


def solution_00_1(world: Any) -> int:
    """The number of entities of kind person."""
    return sum(entity.kind == "person" for entity in world.entities.values())


def check_00_2(query: str | None, question: Any, engine: Any) -> None:
    """Check a query for the second fact of a chain, written without having read the first passage."""
    if query is None:
        print("00.2: not tried yet")
        return
    from zerosearch.labels import gold_hops

    hops = gold_hops(question)
    if query.strip().lower() == "none":
        print("00.2: right. Nothing in the question names the entity that the second fact is about")
        return
    assert len(hops) > 1, "these questions do not say which facts they need: try it in the micro-world"
    bridge = hops[1].subject
    assert bridge not in query, f"{bridge!r} stands only in the first passage; you cannot know it yet"
    from zerosearch.schema import SearchRequest

    found = engine.search([SearchRequest(query, question)])[0].passages
    assert any(p.text == hops[1].sentence for p in found), (
        "none of the passages found states the second fact; is there a fair query at all?"
    )
    print("00.2: found, but by luck: the passage happens to share a word with your query")


def solution_00_2() -> str:
    """There is no fair query: the second search needs the first answer."""
    return "none"


# -- 01 collecting --------------------------------------------------------------------------------


def check_01_1(requests: Callable[[list[str | None], list[str]], list[tuple[str, str]] | None]) -> None:
    """Check that every query keeps its own golden answer when some trajectories do not search."""
    golden = ["Rosa Voss", "Port Amber", "1931", "Nils Holm", "Wren Foods"]
    for queries in (["q0", None, "q2", "q3", None], [None, None, "q2", None, "q4"], [None] * 5):
        found = requests(list(queries), list(golden)) if requests is not None else None
        if found is None:
            print("01.1: not tried yet")
            return
        pairs = [tuple(pair) for pair in found]
        searching = [q for q in queries if q is not None]
        assert pairs != list(zip(queries, golden)), "the trajectories that did not search (None) have no request"
        assert [pair[0] for pair in pairs] == searching, f"expected the queries {searching}, found {pairs}"
        if pairs == list(zip(searching, golden)) and searching:
            stranger = next((q, a) for q, a in pairs if golden[queries.index(q)] != a)
            raise AssertionError(
                f"{stranger[0]} got {stranger[1]!r}, another trajectory's answer: the queries were gathered into a "
                "shorter list, and its positions are not those of golden_answers; go through both lists together"
            )
        expected = [(q, a) for q, a in zip(queries, golden) if q is not None]
        assert pairs == expected, f"expected {expected}, found {pairs}"
    print("01.1: right. The library goes further: a SearchRequest carries its whole question, so no list is needed")


def solution_01_1() -> Callable[..., Any]:
    """Walk through both lists at once, and leave out only afterwards."""

    def requests(queries: list[str | None], golden_answers: list[str]) -> list[tuple[str, str]]:
        return [(query, answer) for query, answer in zip(queries, golden_answers) if query is not None]

    return requests


def check_01_2(kappa: Callable[[list[str], list[str]], float | None]) -> None:
    """Check Cohen's kappa on lists whose value is known."""
    cases = [("uumm", "uumm", 1.0), ("um", "mu", -1.0), ("uumm", "umum", 0.0), ("uummu", "uuumm", 1 / 6)]
    for first, second, expected in cases:
        found = kappa(list(first), list(second)) if kappa is not None else None
        if found is None:
            print("01.2: not tried yet")
            return
        share = sum(a == b for a, b in zip(first, second)) / len(first)
        chance = sum(first.count(label) * second.count(label) for label in "um") / len(first) ** 2
        mistakes = [
            (share, "this is the share of agreement: subtract what chance gives"),
            (share - chance, "divide by 1 - chance, so that perfect agreement is 1"),
            (2 * share - 1, "chance is not one half here: multiply how often each of the two uses a label"),
        ]
        if abs(found - expected) > 1e-9:
            known = [f"{text}; " for value, text in mistakes if abs(found - value) < 1e-9]
            raise AssertionError(f"{first} and {second}: {''.join(known[:1])}expected {expected:.3f}, found {found:.3f}")
    print("01.2: right. zerosearch.labels.agreement gives the same for the pairs above")


def solution_01_2() -> Callable[..., Any]:
    """Agreement beyond chance, over the most there could be beyond chance."""

    def kappa(first: list[str], second: list[str]) -> float:
        n = len(first)
        share = sum(a == b for a, b in zip(first, second)) / n
        chance = sum(first.count(label) * second.count(label) for label in {*first, *second}) / n**2
        return (share - chance) / (1 - chance)

    return kappa


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


# -- A2 statistics --------------------------------------------------------------------------------


def check_a2_1(n_questions: int | None) -> None:
    """Check from how many equal answers on two methods match within 2 points."""
    from scipy.stats import t

    if n_questions is None:
        print("A2.1: not tried yet")
        return
    assert n_questions > 1, "one question has no standard error"
    p = t.sf(0.02 * (n_questions + 2), n_questions - 1)
    print(f"A2.1: with {n_questions} questions the p of equivalence is {p:.3f}")
    assert n_questions < 90, "more than needed; each test is one-sided: 1.66 standard errors in the margin, not 1.96"
    assert n_questions >= 80, "too few: p is above 0.05; the margin must hold 1.66 standard errors of 1 / (n + 2)"
    print("A2.1: right, 82. That many equal answers without a single exception, only to say that they match")


def solution_a2_1() -> int:
    """0.02 (n + 2) = 1.66, the 95 % quantile of t with 81 degrees of freedom."""
    return 82


def check_a2_2(n_wins: int | None) -> None:
    """Check how many wins to none one of seven sets needs after Holm's correction."""
    if n_wins is None:
        print("A2.2: not tried yet")
        return
    print(f"A2.2: {n_wins} wins to none have p = {2 / 2**n_wins:.4f}, times 7 that is {14 / 2**n_wins:.4f}")
    assert n_wins != 6, "that is enough for one set alone; the smallest of seven p values is multiplied by 7"
    assert n_wins != 8, "close; B might have been the lucky one, so p has two sides, and 7 * 2 / 256 is above 0.05"
    assert n_wins >= 9, "too few; solve 7 * 2 / 2^k < 0.05"
    assert n_wins == 9, "more than needed; solve 7 * 2 / 2^k < 0.05 for the smallest k"
    print("A2.2: right. Three wins more than for a single set: so much for looking in seven places")


def solution_a2_2() -> int:
    """14 / 2^9 = 0.027, 14 / 2^8 = 0.055."""
    return 9


# -- A1 kernels -----------------------------------------------------------------------------------


def check_a1_1(step: Callable[..., tuple[float, float] | None]) -> None:
    """Check one step of the walk over a row: a running maximum, and a sum relative to it."""
    import numpy as np

    if step(-np.inf, 0.0, np.zeros(2)) is None:
        print("A1.1: not tried yet")
        return
    rows = [np.array([3.0, 2.0, 1.0, 0.0]), np.array([0.0, 1.0, 2.0, 3.0]), np.array([1000.0, 0.0, 1001.0, 1000.0])]
    for row in rows:
        m, s = -np.inf, 0.0
        with np.errstate(all="ignore"):
            for start in (0, 2):
                m, s = step(m, s, row[start : start + 2])
        assert m == row.max(), f"m is {m}; after the last block it must be the maximum of the whole row, {row.max()}"
        assert np.isfinite(s), "s is not finite: subtract the new maximum before exp, also from the old one"
        wanted = np.exp(row - row.max()).sum()
        assert abs(s - np.exp(row[2:] - row.max()).sum()) > 1e-9, "the sum of the earlier blocks is lost"
        assert abs(s - wanted) < 1e-9, f"s is {s:.4g}, expected {wanted:.4g}: rescale the old sum by exp(m - new m)"
    print("A1.1: right. The walk may meet its maximum anywhere")


def solution_a1_1() -> Callable[..., tuple[float, float]]:
    """The old sum is relative to the old maximum."""
    import numpy as np

    def step(m: float, s: float, block: Any) -> tuple[float, float]:
        grown = max(m, block.max())
        return grown, s * np.exp(m - grown) + np.exp(block - grown).sum()

    return step


def check_a1_2(rows: int | None) -> None:
    """Check how many rows of logits fit into a budget."""
    if rows is None:
        print("A1.2: not tried yet")
        return
    assert rows != 2**30 // (4 * 128_256), "that is float32; bfloat16 has 2 bytes"
    assert rows != 10**9 // (2 * 128_256), "that is a gigabyte; a gibibyte has 2^30 bytes"
    assert rows * 2 * 128_256 <= 2**30, f"{rows} rows take {rows * 2 * 128_256 / 2**30:.2f} GiB"
    assert rows == 2**30 // (2 * 128_256), "more fit"
    print("A1.2: right. The library makes the chunks of a batch alike, so it mostly takes fewer")


def solution_a1_2() -> int:
    """2^30 / (2 * 128,256)."""
    return 4185


def check_a1_3(gradient: Callable[..., Any]) -> None:
    """Check the second walk: in numpy first, then as a kernel in Triton's interpreter where there is one."""
    import numpy as np

    row, target, g = np.array([1.0, 3.0, 2.0, -1.0]), 2, -1.5
    total = np.log(np.exp(row).sum())
    found = gradient(np, row, np.arange(4), target, g, total)
    if found is None:
        print("A1.3: not tried yet")
        return
    p = np.exp(row - total)
    wanted = g * ((np.arange(4) == target) - p)
    assert not np.allclose(found, -wanted), "the sign is turned round: d log p / d z_j is 1 at the target, minus p_j"
    assert not np.allclose(found, wanted / g), "g is missing: log p is not the loss yet"
    assert not np.allclose(found, -g * p), "the target is missing: add g in its column"
    assert np.allclose(found, wanted), f"expected {wanted.round(3)}, found {np.round(found, 3)}"
    print("A1.3: right in numpy")
    _in_triton(gradient, row, target, g, total, wanted)


def _in_triton(gradient: Callable[..., Any], row: Any, target: int, g: float, total: float, wanted: Any) -> None:
    """Run the gradient of an exercise as a kernel; say so where there is no Triton."""
    import importlib.util
    import os

    if importlib.util.find_spec("triton") is None or not os.environ.get("TRITON_INTERPRET"):
        print("A1.3: expected Triton and TRITON_INTERPRET=1 to run it as a kernel, found none; `pip install triton`")
        return
    global tl, tried  # Triton rewrites a kernel: it sees the names of this module, not those of a function
    import numpy as np
    import torch
    import triton
    import triton.language as tl

    tried = gradient
    made, given = torch.zeros(len(row)), torch.tensor(row, dtype=torch.float32)
    triton.jit(_second_walk)[(1,)](given, made, len(row), target, g, total, BLOCK=8)
    assert np.allclose(made.numpy(), wanted, atol=1e-5), f"as a kernel it gives {made.numpy().round(3)}"
    print("A1.3: right as a Triton kernel, too")


def _second_walk(z_ptr, out_ptr, n, target, g, total, BLOCK: tl.constexpr):  # noqa: ANN001, ANN202, F821, N803
    """Write the gradient of one row of n logits; the body of a kernel."""
    columns = tl.arange(0, BLOCK)
    z = tl.load(z_ptr + columns, mask=columns < n, other=0.0)
    tl.store(out_ptr + columns, tried(tl, z, columns, target, g, total), mask=columns < n)


def solution_a1_3() -> Callable[..., Any]:
    """The softmax times -g, and g more in the target's column."""

    def gradient(tl: Any, z: Any, columns: Any, target: int, g: float, log_total: float) -> Any:
        rest = -g * tl.exp(z - log_total)
        return tl.where(columns == target, rest + g, rest)

    return gradient
