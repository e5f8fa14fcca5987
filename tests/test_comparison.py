"""Runs beside each other: pairing, tables, reports, calibration."""

import dataclasses
import pathlib
import re
import shutil
import types

import numpy as np
import pytest

import bert_jax as bj
from bert_jax import files
from bert_jax.cli.main import main
from bert_jax.config import UserError
from bert_jax.data.sources import TextData
from bert_jax.experiment import Experiment
from bert_jax.runs import record
from bert_jax.studies import definition
from bert_jax.studies.protocols import scores
from bert_jax.studies.protocols.scores import Score
from bert_jax.studies.reports import (
    calibration, comparison, curves, missing_scores, report, run_names,
    score_tables)
from tests.compared_runs import (
    RULER, STEPS, score_of, write_run, write_study)


@pytest.fixture
def study(tmp_path) -> pathlib.Path:
  """Of three seeds: `better` is, `same` is not."""
  write_study(tmp_path / "abl", {"better": -.08, "same": 0.0}, 3)
  return tmp_path / "abl"


def change(study: pathlib.Path, arm: str, seed: int, **about: object) -> None:
  """What a run's record says."""
  folder = definition.run_folder(study, arm, seed)
  record.write(folder, dataclasses.replace(record.read(folder), **about))


def rewrite(study: pathlib.Path, arm: str, seed: int, **about: object) -> None:
  """What a run's score says."""
  folder = definition.run_folder(study, arm, seed)
  scores.write(folder, dataclasses.replace(scores.read(folder)[RULER], **about))


def row(text: str, header: str, arm: str) -> dict[str, str]:
  """The cells of an arm in the table that has a column of this name."""
  lines = [[cell.strip() for cell in re.split(r" \| ", line.strip("| "))]
           for line in text.splitlines() if line.startswith("|")]
  start = next(i for i, cells in enumerate(lines) if header in cells)
  cells = next(cells for cells in lines[start:] if cells[0] == arm)
  return dict(zip(lines[start], cells))


def test_study_says_which_arm_helps_and_which_it_cannot_tell(study):
  text = report.markdown_of(comparison.read_study(study))
  better, same = (row(text, "verdict", arm) for arm in ("better", "same"))
  assert better["verdict"] == "better"
  assert re.fullmatch(r"3 seeds cannot tell; \d+ would", same["verdict"])
  low, high = map(float, better["over seeds"].split(" to "))
  # The arms of a seed share what varies most: unpaired, it is ten times wider.
  assert low < -.08 < high and high - low < .05
  assert "| other masks" in text and "`model.x=better`" in text
  assert "one learning rate served all arms" in text
  assert "nats a token, lower is better" in text


def test_report_is_shown_and_drawn_in_a_notebook(study):
  compared = bj.compare(study)
  assert row(compared._repr_markdown_(), "verdict", "better")["verdict"] == (
      "better")
  axis, = compared.forest().axes
  assert [label.get_text() for label in axis.get_yticklabels()] == [
      "better", "same"]
  shutil.rmtree(study / "base")
  with pytest.raises(UserError, match="nothing to draw"):
    bj.compare(study).forest()


def test_cumulative_study_compares_each_arm_with_the_one_before(tmp_path):
  plan = write_study(tmp_path, {"first": -.08, "second": -.08}, 3)
  arms = [*plan.arms[:2], dataclasses.replace(
      plan.arms[2], changes=["model.x=first", "model.y=1"])]
  definition.write(tmp_path, dataclasses.replace(
      plan, arms=arms, cumulative=True))
  read = comparison.read_study(tmp_path)
  text = report.markdown_of(read)
  verdicts = [row(text, f"{RULER}, minus {other}", "second")["verdict"]
              for other in ("the base", "the arm before")]
  assert verdicts[0] == "better" and "cannot tell" in verdicts[1]
  assert row(text, "adds to the arm before", "second")[
      "adds to the arm before"] == "`model.y=1`"
  report.write(tmp_path, read)
  assert (tmp_path / "study_mlm@1_increments.png").exists()


def test_report_is_the_same_bytes_and_needs_no_network(study):
  files_of = lambda: {path.name: path.read_bytes()
                      for path in study.glob("study*") if path.is_file()}
  report.write(study, comparison.read_study(study))
  first = files_of()
  assert set(first) == {"study.json", "study.md", "study.html",
                        "study_curves.png", "study_mlm@1.png"}
  assert main(["compare", str(study), "--output", str(study)]) == 0
  assert files_of() == first
  page = first["study.html"].decode()
  assert not re.findall(r'(?:src|href)="(?!data:)', page)
  # The forest, and the curves over four axes and beside the base.
  assert page.count("data:image/svg+xml") == 6
  assert page.count('type="radio"') == 5 and page.count(" checked>") == 1


def test_report_names_what_is_not_finished_and_not_paired(study):
  change(study, "same", 2, state="failed", step=40,
         message="The loss is nan | at *step* 40.")
  write_run(definition.run_folder(study, "better", 3), 3, [score_of(0, 3)])
  write_run(definition.run_folder(study, "same", 3), 3, [])
  plan = definition.read(study)
  definition.write(study, dataclasses.replace(plan, seeds=[0, 1, 2, 3]))
  text = report.markdown_of(comparison.read_study(study))
  for line in (
      r"same, seed 2: failed at step 40 of 100: The loss is nan \| at \*step\*"
      " 40.", "base, seed 3: not begun.",
      "same, seed 3: not scored by mlm@1.",
      "better: seed 3 left out of the difference from base, as only one of "
      "both has a score of it.",
      "same: seed 2 left out of the difference from base, as only one of both "
      "has a score of it."):
    assert f"* {line}\n" in text
  assert row(text, "verdict", "same")["verdict"].startswith("2 seeds")


@pytest.mark.parametrize("about, reason", [
    ({"data": "d2"}, "same: no difference from base, as the scores are of "
     "different data (fingerprints d1, d2)."),
    ({"unscorable": "it has no MLM head"},
     "same: mlm@1 cannot score it: it has no MLM head."),
    ({"values_R": np.array([np.nan])}, "same, seed 0: the score is nan; "
     "without this seed the mean looks better than the arm is."),
])
def test_scores_that_cannot_be_compared_say_why(study, about, reason):
  for seed in range(3):
    rewrite(study, "same", seed, **about)
  text = report.markdown_of(comparison.read_study(study))
  assert f"* {reason}\n" in text
  assert row(text, "verdict", "same")["verdict"] == "not compared"
  assert row(text, "verdict", "better")["verdict"] == "better"


def test_arm_that_changes_nothing_is_equal_in_every_seed(study):
  for seed in range(3):
    folders = [definition.run_folder(study, arm, seed)
               for arm in ("base", "same")]
    scores.write(folders[1], scores.read(folders[0])[RULER])
  text = report.markdown_of(comparison.read_study(study))
  assert row(text, "verdict", "same")["verdict"] == "equal in every seed"


def test_budgets_that_differ_are_warned_of(study):
  for seed in range(3):
    change(study, "better", seed, flops=3.6e12, tokens=2.01e5, seconds=80.0)
    change(study, "same", seed, step=90)
  text = report.markdown_of(comparison.read_study(study))
  timeless, _, times = text.partition("## Budgets and times")
  warnings = [line for line in timeless.splitlines() if "times the" in line]
  assert warnings == [
      "* better has 1.2 times the base's flops.",
      "* same has 0.9 times the base's steps, which were to be equal."]
  assert "better has 1.95 times the base's seconds." in times
  assert row(text, "flops", "better")["flops"] == "3.6e+12"


def test_one_seed_has_a_difference_without_interval(tmp_path):
  write_study(tmp_path / "abl", {"better": -.08}, 1)
  text = report.markdown_of(comparison.read_study(tmp_path / "abl"))
  better = row(text, "verdict", "better")
  assert float(better["difference"]) < -.05
  assert [better[name] for name in ("over seeds", "over seeds and items", "p",
                                    "verdict")] == [
      "-", "-", "-", "one seed cannot tell"]
  assert "* better: one seed, so there is no interval." in text


def test_fine_tuning_seeds_are_a_component_of_their_own(study):
  for arm in ("base", "better", "same"):
    for seed in range(3):
      rewrite(study, arm, seed, values_R=seed + np.array([.7, .8, .9]),
              measure="accuracy", lower_is_better=False,
              totals_RI=np.zeros((0, 0)), weights_RI=np.zeros((0, 0)))
  table, = score_tables.tables(comparison.read_study(study))
  np.testing.assert_allclose(
      dataclasses.astuple(table.arms[0].components),
      [1, .1])
  # Of 3 pairs, not of 9.
  assert [part.difference.seeds for part in table.differences] == [3, 3]
  text = report.markdown_of(comparison.read_study(study))
  assert row(text, "of fine-tuning seeds", "base")[
      "of fine-tuning seeds"] == "0.1000"
  assert "accuracy, higher is better" in text


def test_runs_of_equal_options_are_the_seeds_of_an_arm(tmp_path, capsys):
  for name, shift, options in (("post", 0, ["steps=9", "model.norm=rms"]),
                               ("pre", -.08, ["model.norm_placement=pre",
                                              "steps=9"])):
    for seed in (1, 2, 3):
      write_run(tmp_path / f"{name}_{seed}", seed,
                [score_of(shift, seed, name)], options)
  folders = [f"{tmp_path}/{name}_{seed}" for name in ("post", "pre")
             for seed in (3, 1, 2)]
  assert main(["compare", *folders]) == 0
  text = capsys.readouterr().out
  assert row(text, "verdict", "pre")["verdict"] == "better"
  assert "`model.norm_placement=pre` `model.norm as by default`" in text
  assert f"bert-jax compare {folders[0]}" in text
  assert "bert-jax pretrain tiny --workdir pre_2" in text
  assert "other data" not in text
  about = record.read(tmp_path / "pre_2")
  record.write(tmp_path / "pre_2", dataclasses.replace(about, data="other"))
  assert main(["compare", *folders]) == 0
  assert "* pre reads other data than the base" in capsys.readouterr().out


def test_runs_that_are_no_arms_are_refused(tmp_path, capsys):
  for i, seed in enumerate((1, 2, 1)):
    write_run(tmp_path / f"a{i}", seed, [score_of(0, seed)])
  of = lambda *names: [tmp_path / name for name in names]
  with pytest.raises(UserError, match="there is one arm"):
    comparison.read_runs(of("a0", "a1"))
  with pytest.raises(UserError, match=r"a2 and .*a0 are the same run: seed 1"):
    comparison.read_runs(of("a0", "a1", "a2"))
  assert main(["compare", str(tmp_path / "missing")]) == 1
  assert "missing is no run: there is no such" in capsys.readouterr().err


def test_study_of_another_version_is_refused(study):
  text = (study / "study.json").read_text()
  (study / "study.json").write_text(text.replace('"cumulative"', '"other"'))
  with pytest.raises(UserError, match="another version of bert_jax"):
    comparison.read_study(study)


def test_arms_are_named_after_what_their_folders_share():
  of = lambda *groups: run_names.of_groups(
      [[pathlib.Path("/runs") / name for name in group.split()]
       for group in groups])
  assert of("a_1 a_2", "b_1") == ["a", "b_1"]
  assert of("x/pre/seed0 x/pre/seed1", "x/post/seed0") == ["pre", "post"]
  assert of("x/base/seed0", "y/base/seed0") == ["x/base", "y/base"]
  assert of("bert2018 bert2019", "c") == ["bert", "c"]


def test_curves_are_of_the_own_losses_where_one_ruler_is_missing(study):
  result = comparison.read_study(study)
  assert curves.key_of(result) == f"held_out/{RULER}"
  change(study, "better", 0, tokens=2.9e5)
  better = curves.minus_base(comparison.read_study(study),
                             f"held_out/{RULER}")[0]
  np.testing.assert_allclose(better.x["steps"], STEPS)
  np.testing.assert_allclose(better.x["tokens"][-1], 2.3e5)  # the mean
  assert np.ptp(better.mean) < 1e-9 and better.mean[0] < -.05
  folder = definition.run_folder(study, "same", 0)
  files.write_text(
      folder / "metrics.jsonl",
      f'{{"step": 50, "held_out/loss": 3.0, "held_out/{RULER}": null}}\n')
  assert curves.key_of(result) == curves.OWN
  same = curves.of_arms(result, curves.OWN)[2]
  assert same.arm == "same" and list(same.x["steps"]) == [50]


def arm_of(of_seeds: float, of_items: float, seeds: int
           ) -> score_tables.ArmScores:
  """Scores of 30 items, without any true difference."""
  generator = np.random.default_rng(1)
  by_seed = {}
  for seed in range(seeds):
    totals = (4 + of_seeds * generator.normal()
              + of_items * generator.normal(size=(1, 30)))
    by_seed[seed] = Score(RULER, values_R=totals.mean(1), totals_RI=totals,
                          weights_RI=np.ones((1, 30)))
  return score_tables.ArmScores("base", by_seed, [])


def test_calibration_sees_which_intervals_hold(monkeypatch):
  monkeypatch.setattr(calibration, "MOST_PAIRINGS", 200)
  rows = {(share.interval, share.seeds): share
          for share in calibration.shares(arm_of(1, .1, 24))}
  assert {size for _, size in rows} == {3, 5, 8}
  for size in (3, 5, 8):
    share = rows["t over seeds", size]
    assert share.low <= share.share <= share.high
    assert share.low < .05 < share.high
  published = rows["Multi-Bootstrap, percentiles as published", 3]
  assert published.share > published.high
  assert rows["Multi-Bootstrap", 3].share <= rows["t over seeds", 3].high


def test_pairings_are_disjoint_and_different():
  pairs = calibration.pairings(6, 3)
  assert len(pairs) == 10  # all
  assert all(len(set(pair.ravel())) == 6 for pair in pairs)


def test_study_of_a_base_alone_is_a_calibration(tmp_path, monkeypatch):
  monkeypatch.setattr(calibration, "MOST_PAIRINGS", 20)
  write_study(tmp_path / "aa", {}, 12)
  text = report.markdown_of(comparison.read_study(tmp_path / "aa"))
  assert "allowed by the seeds" in text and "verdict" not in text


def test_runs_are_scored_first_by_what_not_all_were_scored_by(
    tmp_path, monkeypatch):
  title, scored = "mlm@1 length=8", []
  for seed, (name, checkpoint) in enumerate(
      (("a", "step 100, f0"), ("old", "step 50, f0"), ("none", ""))):
    score = dataclasses.replace(score_of(0, seed, title=title),
                                checkpoint=checkpoint)
    write_run(tmp_path / name, seed, [score] if checkpoint else [])
  monkeypatch.setattr(missing_scores, "score_run",
                      lambda folder, _: scored.append(folder.name))
  experiment = Experiment(data=TextData(length=8))
  monkeypatch.setattr(missing_scores, "latest_manifest",
                      lambda _: types.SimpleNamespace(experiment=experiment))
  complete = lambda *names, titles=(): missing_scores.score_missing(
      [tmp_path / name for name in names], titles)
  assert complete("a") == [title] and not scored
  assert complete("a", "old", "none") == [title]
  assert scored == ["old", "none"]
  assert complete("a", titles=["mlm"]) == [title]
  assert complete("a", titles=["mlm length=4"]) == ["mlm@1 length=4"]
  assert scored[2:] == ["a"]
