"""The table of the GLUE suite, from the results of its tasks as JSON."""

import math
import pathlib
import statistics
from collections.abc import Mapping
from typing import Any

from bert_jax.reporting import markdown, plots
from bert_jax.reporting.statistics import SeedStatistics


def chosen_rate(result: Mapping[str, Any]) -> float:
  """The rate of the best median of the metric that decides."""
  decides = result["metrics"][0]
  by_rate: dict[float, list[tuple[float, float]]] = {}
  for member in result["results"]:
    by_rate.setdefault(member["learning_rate"], []).append(
        value(member["scores"], decides))
  return max(by_rate, key=lambda rate: tuple(
      statistics.median(values) for values in zip(*by_rate[rate])))


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
  """In hundredths, as GLUE is reported; a line for every metric."""
  lines = [line for name, result in results.items()
           for line in _lines(name, result)]
  medians = [SeedStatistics.of(_scores(result, result["metrics"][0])).median
             for result in results.values()]
  lines.append([f"mean of {len(medians)}", "", "",
                f"{100 * statistics.fmean(medians):.1f}", *[""] * 5])
  return markdown.table(["task", "metric", "rate", "median", "mean",
                         "deviation", "95% interval of the mean", "seeds",
                         "degenerate"],
                        lines)


def _lines(name: str, result: Mapping[str, Any]) -> list[list[str]]:
  rate, hundredths = chosen_rate(result), lambda x: f"{100 * x:.1f}"
  here = [r for r in result["results"] if r["learning_rate"] == rate]
  extra = [m for m in here[0]["scores"] if m.startswith("mismatched_acc")]
  spreads = {metric: SeedStatistics.of(_scores(result, metric))
             for metric in [*result["metrics"], *extra]}
  return [[name, metric.replace("_", " "), f"{rate:g}",
           hundredths(s.median), hundredths(s.mean), hundredths(s.deviation),
           f"{hundredths(s.low)} to {hundredths(s.high)}", str(s.count),
           str(sum(r["degenerate"] for r in here))]
          for metric, s in spreads.items()]


def _scores(result: Mapping[str, Any], metric: str) -> list[float]:
  """Of the seeds with the chosen rate."""
  rate = chosen_rate(result)
  scores = [r["scores"][metric] for r in result["results"]
            if r["learning_rate"] == rate]
  return [math.nan if score is None else score for score in scores]


def draw(results: Mapping[str, Mapping[str, Any]], png: pathlib.Path) -> None:
  """Every seed of every task, and their means."""
  plots.plot_table(
    {name: _scores(result, result["metrics"][0])
     for name, result in results.items()}, png,
    "GLUE, held out: every seed, and their means", "the metric that decides")


def value(scores: Mapping[str, float | None],
          decides: str) -> tuple[float, float]:
  """What orders results: of equal scores the smaller loss is better, as a
  network of nan, too, predicts a class."""
  finite = lambda x, sign: (-math.inf if x is None or math.isnan(x)
                            else sign * x)
  return finite(scores[decides], 1), finite(scores["loss"], -1)
