"""Records made by hand for the tests of the explorer's page."""

from __future__ import annotations

from zerosearch import explorer_records as records
from zerosearch.explorer_records import Origin, Record, Speller
from zerosearch.schema import Passage, Question, Retrieval, SearchRequest, StopReason, Trajectory, Turn

HOSTILE = (
    "</script><script>window.__pwned=1;alert(1)</script><img src=x onerror=window.__pwned=2> <!--<script> "
    "\x1b[31mred\x1b[0m \x00 \u202egnp.exe \u2066x\u2028y\u2029z $\\alpha$ $$x^2$$ \\(y\\) &amp; &lt;b&gt; "
    "javascript:alert(2) \"' onload=alert(3) {{ 7*7 }} " + "w" * 3000
)
LONG = "what is " + "very " * 9998 + "long?"  # 50,003 characters


class Characters:
    """A tokenizer whose ids are code points."""

    def decode(self, ids) -> str:
        return "".join(map(chr, ids))


SPELLER = Speller(Characters())


def record(
    number: int = 0, method: str = "zerosearch", stage: str = "03", answer: str | None = "Ada", policy: str = "I say Ada",
    question: str = "who wrote it", dataset: str = "nq", noisy: tuple[bool | None, ...] = (), step: int = 1,
    stop: StopReason = "answer", reward: float | None = None, advantage: float | None = None,
    passage: str = "It was written by Ada.", golden: str = "Ada", id: str = "1", seed: int = 0,
) -> Record:
    """Return a record: a prompt, what the policy wrote, and one inserted passage per search."""
    asked = Question(f"{dataset}/{id}", dataset, question, (golden,))
    found = [Retrieval(SearchRequest(f"query {n}", asked), (Passage("p", "", passage, {"kind": "fact"}),), "bm25", draw)
             for n, draw in enumerate(noisy)]
    turns = tuple(Turn("", "search", "", retrieval, passage) for retrieval in found)
    inserted = passage * len(found)
    ids, mask = map(ord, policy + inserted), [True] * len(policy) + [False] * len(inserted)
    logprobs = tuple(-0.5 if trained else 0.0 for trained in mask)
    made = Trajectory(asked, tuple(map(ord, f"Q: {question}")), tuple(ids), tuple(mask), logprobs, turns, stop, answer,
                      step, number)
    return records.of_trajectory(made, SPELLER, Origin(stage, method, seed), reward, advantage)


def mixed() -> list[Record]:
    """Return two groups of a training, and one question of an evaluation by two methods."""
    return [
        record(0, noisy=(True, False), reward=1.0, advantage=1.5),
        record(1, answer="Bob", policy="I say Bob", noisy=(False,), reward=0.0, advantage=-0.5),
        record(2, answer=None, policy="hm", stop="length", reward=0.0, advantage=-1.0),
        record(0, id="2", question="when was it", dataset="musique", step=2, golden="1935", answer="1935",
               policy="in 1935", noisy=(False, False, False), reward=0.5, advantage=0.0),
        record(stage="04", method="direct", answer="Cy", policy="Cy", id="9", question="Where is it?"),
        record(stage="04", method="rag", noisy=(None,), id="9", question="Where is it?", seed=1),
    ]
