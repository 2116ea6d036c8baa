"""EM, cover EM and F1 for question answering, as a local module of the ``evaluate`` library.

    import evaluate
    from zerosearch.evaluation import QA_METRIC
    metric = evaluate.load(str(QA_METRIC))
    metric.compute(predictions=["Paris"], references=[["Paris", "Paris, France"]])

It calls ``zerosearch.scoring`` and adds nothing of its own: one import per line, since the loader of
``evaluate`` reads them line by line.
"""

import datasets
import evaluate
import zerosearch.scoring

_DESCRIPTION = """\
Exact match, cover exact match and F1 over words, each the best over the golden answers, after one
shared normalisation (lower case, no ASCII punctuation, no articles, single blanks).
"""
_INPUTS = """\
predictions: list of strings; None or "" for no answer, which scores 0.
references: list of lists of strings, the golden answers of each question.
per_question: False returns three means; True returns three lists in the order of the predictions.
"""


class QAMetric(evaluate.Metric):
    """The three metrics over a list of predictions; see the inputs description."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features(
            {"predictions": datasets.Value("string"), "references": datasets.Sequence(datasets.Value("string"))}
        )
        return evaluate.MetricInfo(
            description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features
        )

    def _compute(self, predictions, references, per_question=False):
        if not predictions:
            raise ValueError("qa_metric: expected at least one prediction, found none; a mean needs questions")
        scores = [zerosearch.scoring.score(p, r) for p, r in zip(predictions, references, strict=True)]
        columns = {name: [getattr(s, name) for s in scores] for name in ("em", "cover_em", "f1")}
        if per_question:
            return columns
        return {name: sum(values) / len(values) for name, values in columns.items()}
