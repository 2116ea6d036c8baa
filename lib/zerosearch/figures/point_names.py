"""Names beside the points of a scatter plot, placed so that none hides another name or a point.

Every name tries places on growing rings around its point and takes the cheapest: near, inside the axes,
over nothing.  One that had to move away is tied to its point by a thin line.  Called by ``behaviour``.
"""

from __future__ import annotations

from typing import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patheffects import withStroke

from zerosearch.figures.style import GREY

_RINGS = np.array([8.0, 12.0, 17.0, 24.0, 34.0, 46.0, 60.0, 78.0, 100.0, 126.0, 160.0, 200.0, 250.0, 310.0])  # pixels
_ANGLES = np.linspace(0, 2 * np.pi, 24, endpoint=False)  # the first one is to the right of the point
_OUTSIDE, _ON_NAME, _ON_POINT, _ON_BAR, _TIE_ON_NAME = 1e6, 1e4, 1e3, 25.0, 60.0
_TIED = 14.0  # from this ring on a line ties the name to its point


def name_points(
    axes: Axes, points: np.ndarray, bars: np.ndarray, names: Sequence[str], colors: Sequence[str]
) -> None:
    """Write each name beside its point.  Call it last: it needs the final limits, scale and layout.

    points: (n, 2), x and y in data units.  bars: (n, 2), lower and upper end of each vertical interval, which
    names avoid where they can; NaN where there is none.  names, colors: n each.
    """
    axes.figure.draw_without_rendering()  # settles the layout that the pixels below refer to
    pixels = axes.transData.transform(points)
    halo = [withStroke(linewidth=2.2, foreground="white")]
    texts = [axes.annotate(name, point, xytext=(0, 0), textcoords="offset points", ha="center", va="center",
                           fontsize=8.0, color=_dark(color), path_effects=halo)
             for name, point, color in zip(names, points, colors)]
    sizes = np.array([text.get_window_extent().size for text in texts]) + (4.0, 1.0)
    taken = [_boxes(pixels, np.full((len(pixels), 2), 9.0)), _bar_boxes(axes, points, bars)]
    prices = [np.full(len(pixels), _ON_POINT), np.full(len(pixels), _ON_BAR)]
    for i in np.argsort(-pixels[:, 1], kind="stable"):
        shift, ring = _cheapest(axes, pixels[i], sizes[i], np.concatenate(taken), np.concatenate(prices))
        taken.append(_boxes(pixels[i] + shift[None], sizes[i][None]))
        prices.append(np.array([_ON_NAME]))
        texts[i].set_position(tuple(shift * 72 / axes.figure.dpi))
        texts[i].set_in_layout(False)
        if ring > _TIED:
            axes.annotate("", points[i], xytext=tuple(_edge(shift, sizes[i]) * 72 / axes.figure.dpi),
                          textcoords="offset points", zorder=1,
                          arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.6, "shrinkA": 0, "shrinkB": 3})


def _cheapest(
    axes: Axes, point: np.ndarray, size: np.ndarray, taken: np.ndarray, prices: np.ndarray
) -> tuple[np.ndarray, float]:
    """Return the cheapest shift of a name's middle from its point, (2,) pixels, and its ring's radius."""
    rings = np.repeat(_RINGS, len(_ANGLES))
    ways = np.tile(np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1), (len(_RINGS), 1))
    shifts = ways * (rings[:, None] + size / 2)
    boxes, frame = _boxes(point + shifts, np.broadcast_to(size, shifts.shape)), axes.get_window_extent()
    outside = (boxes[:, :2] < frame.min).any(axis=1) | (boxes[:, 2:] > frame.max).any(axis=1)
    cost = rings + _OUTSIDE * outside + _overlaps(boxes, taken) @ prices
    names = taken[prices == _ON_NAME]
    for part in np.linspace(0.1, 0.9, 9):  # dots along the tie, which should not run through a name
        dots = point + part * shifts
        cost += _TIE_ON_NAME * _overlaps(_boxes(dots, np.zeros_like(dots)), names).any(axis=1) * (rings > _TIED)
    best = int(np.argmin(cost))
    return shifts[best], float(rings[best])


def _edge(shift: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return where the line from the point to the name's middle enters the name's box."""
    inside = np.min(size / 2 / np.maximum(np.abs(shift), 1e-9))
    return shift * (1.0 - min(inside, 1.0))


def _dark(color: str) -> tuple[float, ...]:
    """Return the colour dark enough to read small letters in it."""
    return tuple(0.65 * part for part in to_rgb(color))


def _boxes(middles: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return boxes as (n, 4): left, bottom, right, top."""
    return np.concatenate([middles - sizes / 2, middles + sizes / 2], axis=1)


def _bar_boxes(axes: Axes, points: np.ndarray, bars: np.ndarray) -> np.ndarray:
    ends = np.where(np.isfinite(bars), bars, points[:, 1:])
    low, high = (axes.transData.transform(np.stack([points[:, 0], end], axis=1)) for end in ends.T)
    return np.concatenate([low - (1.5, 0.0), high + (1.5, 0.0)], axis=1)


def _overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return whether each of (n, 4) boxes overlaps each of (m, 4) others, as (n, m)."""
    one, two = boxes[:, None], others[None]
    return (one[..., :2] < two[..., 2:]).all(axis=-1) & (two[..., :2] < one[..., 2:]).all(axis=-1)
