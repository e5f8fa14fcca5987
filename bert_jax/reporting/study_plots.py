"""Pictures of a study: differences with their intervals, curves with bands."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bert_jax.reporting import plots


@dataclasses.dataclass(frozen=True)
class ForestRow:
  """An arm's difference.

  Attributes:
    arm: its name.
    number: of its style.
    inner, outer: intervals over seeds, and over seeds and items; nan: none.
  """

  arm: str
  number: int
  mean: float
  inner: tuple[float, float]
  outer: tuple[float, float]


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
  """An arm's mean over seeds.

  Attributes:
    number: of its style.
    x: by the name of the axis, as "steps".
    deviation: over the seeds; nan: of one seed.
  """

  arm: str
  number: int
  x: Mapping[str, np.ndarray]
  mean: np.ndarray
  deviation: np.ndarray


def forest(rows: Sequence[ForestRow], title: str, measure: str,
           better: str) -> Any:
  """A figure of differences.

  Args:
    better: on which side it is, "lower" or "higher".
  """
  figure, (axis,) = plots.new_figure(
      1, size=(7.2, 1.5 + .42 * max(len(rows), 2)))
  axis.axvline(0, color="black", linewidth=1)
  for y, row in enumerate(rows):
    style = plots.line_style(row.number)
    axis.plot(row.outer, (y, y), color=style["color"], linewidth=1.2,
              marker="|", markersize=9)
    axis.plot(row.inner, (y, y), color=style["color"], linewidth=5, alpha=.45,
              solid_capstyle="butt")
    axis.plot([row.mean], [y], color=style["color"], marker=style["marker"],
              markersize=8)
  axis.set_yticks(range(len(rows)), [row.arm for row in rows])
  axis.set_ylim(len(rows) - .4, -.6)
  axis.margins(x=.08)
  axis.grid(visible=False, axis="y")
  arrow = {"lower": "← better", "higher": "better →"}[better]
  axis.set(title=title, xlabel=f"{measure}  ({arrow})")
  _key(axis)
  return figure


def _key(axis: Any) -> None:
  """Says which interval is which."""
  from matplotlib.lines import Line2D
  axis.figure.legend(
      handles=[Line2D([], [], color="gray", linewidth=5, alpha=.6,
                      label="95% over seeds (t)"),
               Line2D([], [], color="gray", linewidth=1.2, marker="|",
                      markersize=9,
                      label="95% over seeds and items (Multi-Bootstrap)")],
      loc="outside lower center", ncols=2, frameon=False, fontsize="small")


def curves(arms: Sequence[Curve], axes: Sequence[str], title: str,
           measure: str) -> Any:
  """A figure with a panel for each of the axes of `Curve.x`, two in a row."""
  rows = max(1, len(axes) // 2)
  size = (5.6, 3.6) if len(axes) > 1 else (9.0, 5.0)
  figure, panels = plots.new_figure(len(axes), rows, size)
  for panel, x in zip(panels, axes):
    for curve in arms:
      _draw(panel, curve, x)
    panel.set(xlabel=x, ylabel=measure)
    panel.set_ylim(*_limits(arms))
  figure.suptitle(title, fontsize="medium")
  handles, labels = panels[0].get_legend_handles_labels()
  figure.legend(handles, labels, loc="outside lower center", frameon=False,
                ncols=min(4, max(1, len(labels))), handlelength=3.5)
  return figure


def _draw(panel: Any, curve: Curve, x: str) -> None:
  style, points = plots.line_style(curve.number), curve.x[x]
  width = np.nan_to_num(curve.deviation)
  panel.fill_between(points, curve.mean - width, curve.mean + width,
                     color=style["color"], alpha=.15, linewidth=0)
  panel.plot(points, curve.mean, label=curve.arm, linewidth=1.6, markersize=5,
             markevery=max(1, len(points) // 8), **style)


def _limits(arms: Sequence[Curve]) -> tuple[float, float]:
  """Of all that is drawn but the first fifth, where the loss still falls
  from that of chance."""
  parts = [curve.mean[len(curve.mean) // 5:] for curve in arms]
  low = min(np.nanmin(curve.mean) for curve in arms)
  high = max(np.nanmax(part) for part in parts)
  margin = .06 * (high - low) or .01 * abs(high) or 1.0
  return low - margin, high + margin
