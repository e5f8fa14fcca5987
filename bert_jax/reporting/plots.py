"""Pictures of curves and of tables."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from bert_jax.files import replacing, writing
from bert_jax.reporting.jsonl import read_jsonl

# What is drawn beside the loss: everything on the scale of a share.
_SCORES = ("accuracy", "f1", "matthews", "pearson", "spearman")


def plot_curves(jsonl: str | pathlib.Path, png: str | pathlib.Path) -> None:
  """Draws losses, and beside them scores, of a metrics.jsonl over its steps.

  Nothing is drawn where nothing was written.
  """
  curves = _curves(read_jsonl(jsonl))
  panels = {"loss": {name: curve for name, curve in curves.items()
                     if name.endswith("/loss")},
            "score": {name: curve for name, curve in curves.items()
                      if name.endswith(_SCORES)}}
  panels = {title: panel for title, panel in panels.items() if panel}
  if not panels:
    return
  figure, axes = _figure(len(panels))
  for axis, (title, panel) in zip(axes, panels.items()):
    for name, (steps, values) in panel.items():
      training = name.startswith("train/")
      axis.plot(steps, values, label=name.replace("/", " ").replace("_", " "),
                marker="" if training else "o", markersize=4,
                linewidth=1 if training else 2, alpha=.6 if training else 1)
    axis.set(title=title, xlabel="step", ylabel=title)
    axis.legend()
  figure.suptitle(pathlib.Path(jsonl).absolute().parent.name)
  _save(figure, png)


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
  figure, (axis,) = _figure(1)
  for i, values in enumerate(results.values()):
    mean = sum(values) / len(values)
    axis.bar(i, mean, width=.6, color=f"C{i}", alpha=.5)
    axis.plot([i] * len(values), values, "o", color=f"C{i}")
    axis.annotate(f"{mean:.3f}", (i + .32, mean), va="center")
  axis.set_xticks(range(len(results)), list(results))
  axis.set(title=title, ylabel=measure, xlim=(-.6, len(results) - .2))
  _save(figure, png)


def _figure(panels: int) -> Any:
  """A figure with a row of panels, drawn without a screen."""
  from matplotlib.figure import Figure  # Slow to import.
  figure = Figure(figsize=(6.4 * panels, 4.4), dpi=110, layout="constrained")
  axes = figure.subplots(1, panels, squeeze=False)[0]
  for axis in axes:
    axis.grid(alpha=.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_axisbelow(True)
  return figure, axes


def _save(figure: Any, png: str | pathlib.Path) -> None:
  with writing(png), replacing(png) as file:
    figure.savefig(file, format="png")
