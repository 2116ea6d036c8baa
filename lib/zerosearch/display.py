"""Views for notebooks and the report: tables, and a trajectory with every token coloured by its source.

Whatever a model, an engine or a data set wrote is hostile until escaped: every text passes through
``clean`` (control characters and ANSI sequences become visible signs) and ``html.escape``.  Colours
are translucent, so that the views read on a light and on a dark page.  Called by the notebooks and
by ``report``.
"""

from __future__ import annotations

import html
import math
import numbers
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Iterable, Mapping, Sequence

import pandas as pd

from zerosearch.errors import WorkbookError
from zerosearch.plain_text import clean
from zerosearch.schema import ScoredTrajectory, Trajectory, Turn

if TYPE_CHECKING:  # tokenizers are passed in
    from transformers import PreTrainedTokenizerBase

_SOURCES = {  # source -> (name, style of its tokens)
    "prompt": ("prompt", "color:#7a8594"),
    "policy": ("written by the policy (trained)",
               "background:rgba(213,94,0,.20);border-bottom:2px solid #D55E00"),
    "inserted": ("inserted: passages, forced beginnings (not trained)",
                 "background:rgba(0,114,178,.16);font-style:italic"),
}
_BOX = ("font-family:ui-monospace,Menlo,Consolas,monospace;font-size:12.5px;line-height:1.65;"
        "white-space:pre-wrap;overflow-wrap:anywhere;border:1px solid rgba(127,127,127,.35);"
        "border-radius:6px;padding:.6em .8em;margin:.4em 0")
_NO_MATH = "mathjax_ignore tex2jax_ignore"  # a dollar sign in a table is a dollar
_CELL = "padding:.25em .7em;border-bottom:1px solid rgba(127,127,127,.25);text-align:{};vertical-align:top"


@dataclass(frozen=True, slots=True)
class Html:
    """A finished view: safe HTML for a notebook, plain text where there is no browser."""

    html: str
    text: str = ""

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text

    def __add__(self, other: Html) -> Html:
        return Html(self.html + other.html, f"{self.text}\n{other.text}")


def escape(text: object) -> str:
    """Return the text cleaned and escaped, safe inside HTML text and attributes."""
    return html.escape(clean(text), quote=True)


def table(
    frame: pd.DataFrame, caption: str = "", digits: int = 3, max_rows: int = 60,
    formats: Mapping[str, str] | None = None,
) -> Html:
    """Return a table view: numbers right-aligned and rounded, every cell escaped.

    digits: decimals of floats.  formats: format per column, e.g. {"usd": "${:,.2f}", "share": "{:.1%}"}.
    max_rows: rows shown; the caption says how many there are.
    """
    shown = frame.head(max_rows).apply(_whole)
    formats = formats or {}
    texts = {str(name): [_cell(v, digits, formats.get(str(name))) for v in shown[name]] for name in shown}
    numeric = {str(name): _is_number(frame[name]) for name in frame}
    if len(frame) > max_rows:
        caption = f"{caption} (first {max_rows} of {len(frame):,} rows)".strip()
    styles = [_CELL.format("right" if numeric[name] else "left") for name in texts]
    head = _row("th", texts, styles)
    body = "".join(_row("td", row, styles) for row in zip(*texts.values()))
    title = f'<caption style="text-align:left;font-weight:600">{escape(caption)}</caption>'
    title = title if caption else ""
    markup = (f'<div class="{_NO_MATH}" style="overflow-x:auto"><table style="border-collapse:collapse">'
              f"{title}<thead>{head}</thead><tbody>{body}</tbody></table></div>")
    return Html(markup, clean(f"{caption}\n{pd.DataFrame(texts).to_string(index=False)}".strip()))


def _is_number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _whole(column: pd.Series) -> pd.Series:
    """Return whole numbers as such where missing values had made them floats (seeds, counts)."""
    broken = pd.api.types.is_float_dtype(column) and column.isna().any()
    return column.astype("Int64") if broken and (column.dropna() % 1 == 0).all() else column


def _row(tag: str, cells: Iterable[str], styles: Sequence[str]) -> str:
    inner = "".join(f'<{tag} style="{style}">{escape(cell)}</{tag}>' for cell, style in zip(cells, styles))
    return f"<tr>{inner}</tr>"


def _cell(value: Any, digits: int, form: str | None) -> str:
    """Return one cell as text; missing values are a dash."""
    if value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA:
        return "–"
    if form is not None:
        return form.format(value)
    if isinstance(value, float):
        return f"{value:,.{digits}f}"
    return f"{value:,}" if isinstance(value, numbers.Integral) and not isinstance(value, bool) else str(value)


def scores_wide(scores: pd.DataFrame, metric: str = "em", digits: int = 2) -> pd.DataFrame:
    """Return scores as text, one row a method (and seed, if several), one column a data set.

    scores: method, dataset, metric, value, low, high, and seed unless they are over all seeds.  Cells
    read "0.71 [0.64, 0.77]".
    """
    chosen = scores[scores["metric"] == metric]
    if chosen.empty:
        found = sorted(set(scores["metric"]))
        raise WorkbookError(f"scores: expected rows of metric {metric!r}, found {found}; "
                            "run stage 04 (notebooks/04_evaluate.ipynb) first")
    text = [_with_interval(row, digits) for row in chosen.itertuples()]
    keys = ["method", "seed"] if "seed" in chosen and chosen["seed"].nunique() > 1 else ["method"]
    long = chosen.assign(text=text)
    wide = long.pivot_table(index=keys, columns="dataset", values="text", aggfunc="first", sort=False)
    ordered = [name for name in wide.columns if name != "average"]
    ordered += ["average"] if "average" in wide.columns else []
    return wide[ordered].fillna("–").reset_index().rename_axis(columns=None)


def _with_interval(row: Any, digits: int) -> str:
    interval = "" if pd.isna(row.low) else f" [{row.low:.{digits}f}, {row.high:.{digits}f}]"
    return f"{row.value:.{digits}f}{interval}"


def trajectory(item: Trajectory | ScoredTrajectory, tokenizer: PreTrainedTokenizerBase) -> Html:
    """Return one trajectory as it was trained: tokens coloured by source, then what each search found.

    A token of the policy shows its id and log-probability (nats) under the mouse.  Nothing is encoded
    again: the ids of the trajectory are decoded, and the loss mask decides the colour (rule 2).
    """
    record = item.trajectory if isinstance(item, ScoredTrajectory) else item
    spans = _span("prompt", record.prompt_ids, (), tokenizer)
    for trained, start, end in _stretches(record.loss_mask):
        source, logprobs = ("policy", record.logprobs[start:end]) if trained else ("inserted", ())
        spans += _span(source, record.token_ids[start:end], logprobs, tokenizer)
    markup = (f'<div class="{_NO_MATH}">{_heading(item, record)}{_legend()}<div style="{_BOX}">{spans}</div>'
              f"{_searches(record.turns)}</div>")
    text = tokenizer.decode(list(record.prompt_ids) + list(record.token_ids))
    return Html(markup, clean(f"{text}\n[{record.stop_reason}] answer: {record.answer!r}"))


def transcript(text: str, question: str = "", outcome: str = "") -> Html:
    """Return a finished text (all that is kept of a prediction) in a box, escaped, with its heading."""
    head = f"<div><b>{escape(question)}</b> {escape(outcome)}</div>"
    markup = f'<div class="{_NO_MATH}">{head}<div style="{_BOX}">{escape(text)}</div></div>'
    return Html(markup, clean(f"{question} {outcome}\n{text}"))


def _stretches(mask: Sequence[bool]) -> Iterable[tuple[bool, int, int]]:
    """Yield (value, start, end) for every longest run of equal values."""
    start = 0
    for end in range(1, len(mask) + 1):
        if end == len(mask) or mask[end] != mask[start]:
            yield mask[start], start, end
            start = end


def _span(
    source: str, ids: Sequence[int], logprobs: Sequence[float], tokenizer: PreTrainedTokenizerBase
) -> str:
    """Return the tokens of one source as spans; bytes of one character stay in one span."""
    style, parts, done, first = _SOURCES[source][1], [], "", 0
    for end in range(1, len(ids) + 1):
        whole = tokenizer.decode(list(ids[:end]))
        if whole.endswith("\ufffd") and end < len(ids):
            continue
        tip = f"id {', '.join(str(i) for i in ids[first:end])}"
        tip += f" · log-prob {sum(logprobs[first:end]):.3f}" if logprobs else ""
        parts.append(f'<span style="{style}" title="{escape(tip)}">{escape(whole[len(done):])}</span>')
        done, first = whole, end
    return "".join(parts)


def _heading(item: Trajectory | ScoredTrajectory, record: Trajectory) -> str:
    facts = [f"stop reason {record.stop_reason}", f"answer {record.answer!r}",
             f"golden {'; '.join(record.question.golden_answers)}"]
    if isinstance(item, ScoredTrajectory):
        facts += [f"reward {item.reward:.2f}", f"EM {item.em:.0f}"]
    if record.error:
        facts.append(f"error {record.error}")
    return f"<div><b>{escape(record.question.question)}</b><br>{escape(' · '.join(facts))}</div>"


def _legend() -> str:
    keys = "&ensp;".join(f'<span style="{style}">{escape(name)}</span>' for name, style in _SOURCES.values())
    return f'<div style="font-size:12px;margin:.3em 0">{keys}</div>'


def _searches(turns: Sequence[Turn]) -> str:
    """Return the table of searches: query, who answered, the noise draw, the passages."""
    rows = [
        {"turn": number, "query": turn.content,
         "answered by": turn.retrieval.source + _noise(turn.retrieval.noisy),
         "passages": turn.retrieval.error or " | ".join(p.text for p in turn.retrieval.passages) or "none"}
        for number, turn in enumerate(turns) if turn.retrieval is not None
    ]
    return table(pd.DataFrame(rows)).html if rows else ""


def _noise(noisy: bool | None) -> str:
    return "" if noisy is None else " (misleading)" if noisy else " (useful)"
