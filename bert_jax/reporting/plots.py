"""Pictures of curves and of tables, and the style of all pictures."""

import functools
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from bert_jax.files import replacing, writing
from bert_jax.reporting.jsonl import read_jsonl

# Okabe and Ito 2008: distinct for color-blind readers. In black and white,
# marker and line style together are.
_COLORS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00",
           "#56b4e9", "#8a6d3b")
_LINES = ("solid", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)),
          (0, (3, 2, 1.5, 2, 1.5, 2)))
_MARKERS = "osD^vPX*<>h"

# What is drawn beside the loss: everything on the scale of a share.
_SCORES = ("accuracy", "f1", "matthews", "pearson", "spearman")


def plot_curves(jsonl: str | pathlib.Path, png: str | pathlib.Path) -> None:
  """Saves `run_curves` of a metrics.jsonl, if there are any."""
  figure = run_curves(jsonl)
  if figure is not None:
    save(figure, png)


def run_curves(jsonl: str | pathlib.Path) -> Any:
  """A figure of losses, and beside them scores, of a metrics.jsonl over its
  steps; None where nothing was written."""
  curves = _curves(read_jsonl(jsonl))
  panels = {"loss": {name: curve for name, curve in curves.items()
                     if name.endswith("/loss")},
            "score": {name: curve for name, curve in curves.items()
                      if name.endswith(_SCORES)}}
  panels = {title: panel for title, panel in panels.items() if panel}
  if not panels:
    return None
  figure, axes = new_figure(len(panels))
  for axis, (title, panel) in zip(axes, panels.items()):
    for name, (steps, values) in panel.items():
      training = name.startswith("train/")
      axis.plot(steps, values, label=name.replace("/", " ").replace("_", " "),
                marker="" if training else "o", markersize=4,
                linewidth=1 if training else 2, alpha=.6 if training else 1)
    axis.set(title=title, xlabel="step", ylabel=title)
    axis.legend()
  figure.suptitle(pathlib.Path(jsonl).absolute().parent.name)
  return figure


def _curves(lines: Sequence[Mapping[str, float]]
            ) -> dict[str, tuple[list[float], list[float]]]:
  """The steps and values of each name."""
  curves: dict[str, tuple[list[float], list[float]]] = {}
  for line in lines:
    for name, value in line.items():
      if name != "step":
        steps, values = curves.setdefault(name, ([], []))
        steps.append(line["step"])
        values.append(value)
  return curves


def plot_table(results: Mapping[str, Sequence[float]],
               png: str | pathlib.Path, title: str, measure: str) -> None:
  """Draws a bar at the mean of each variant, and a point for every seed.

  Args:
    results: the values of each variant's seeds.
    png: the file.
    title: of the picture.
    measure: what the values are.
  """
  figure, (axis,) = new_figure(1)
  for i, values in enumerate(results.values()):
    mean = sum(values) / len(values)
    axis.bar(i, mean, width=.6, color=line_style(i + 1)["color"],
             alpha=.5)
    axis.plot([i] * len(values), values, "o",
              color=line_style(i + 1)["color"])
    axis.annotate(f"{mean:.3f}", (i + .32, mean), va="center")
  axis.set_xticks(range(len(results)), list(results))
  axis.set(title=title, ylabel=measure, xlim=(-.6, len(results) - .2))
  save(figure, png)


def line_style(i: int) -> dict[str, Any]:
  """Of line i, in every picture; of the first one it is black and solid."""
  return {"color": _COLORS[i % len(_COLORS)],
          "linestyle": _LINES[i % len(_LINES)],
          "marker": _MARKERS[i % len(_MARKERS)]}


def new_figure(panels: int, rows: int = 1,
               size: tuple[float, float] = (6.4, 4.4)) -> Any:
  """A figure with rows of panels, drawn without a screen, and its axes.

  Args:
    panels: in all rows together.
    size: of a panel in inches.
  """
  columns = panels // rows
  figure = _figure_class()(figsize=(size[0] * columns, size[1] * rows), dpi=110,
                  layout="constrained")
  axes = figure.subplots(rows, columns, squeeze=False).ravel()
  for axis in axes:
    axis.set_prop_cycle(color=_COLORS[1:])
    axis.grid(alpha=.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_axisbelow(True)
  return figure, axes


@functools.cache
def _figure_class() -> type:
  """Of figures that a notebook shows, whatever backend it has."""
  from matplotlib.figure import Figure  # Slow to import.

  class NotebookFigure(Figure):

    def _repr_png_(self) -> bytes:
      file = io.BytesIO()
      self.savefig(file, format="png")
      return file.getvalue()

  return NotebookFigure


def save(figure: Any, png: str | pathlib.Path) -> None:
  with writing(png), replacing(png) as file:
    figure.savefig(file, format="png")


def svg(figure: Any) -> bytes:
  """The same bytes for the same picture."""
  import matplotlib
  file = io.BytesIO()
  with matplotlib.rc_context({"svg.hashsalt": "bert_jax"}):
    figure.savefig(file, format="svg", metadata={"Date": None})
  return file.getvalue()
