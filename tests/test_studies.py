"""Arms from words, and the work of a study shared in a folder."""

import dataclasses
import io
import pathlib
import re
from collections.abc import Sequence

import numpy as np
import pytest
import rich.console

from bert_jax import config
from bert_jax.checkpoints.owner import Owner
from bert_jax.config import UserError
from bert_jax.experiment import Experiment
from bert_jax.objectives.mlm import Mlm
from bert_jax.reporting import study_progress
from bert_jax.reporting.study_progress import StudyProgress
from bert_jax.runs import record, train
from bert_jax.runs.loop import Stopped
from bert_jax.studies import arms, plan, tuning, work
from bert_jax.studies.members import together
from bert_jax.studies.protocols import scored_runs, scores
from bert_jax.studies.protocols.base import Protocol
from bert_jax.studies.protocols.scores import Score
from bert_jax.studies.study import Study
from bert_jax.studies.work import Unit
from tests import small_run


def test_words_are_options_of_all_arms_or_arms():
  overrides, named = arms.sort_words([
      "steps=20", "pre=model.norm_placement=pre", "model.norm=rms",
      "mine=my_page.py objective.masking.rate=.3"])
  assert overrides == ["steps=20", "model.norm=rms"]
  assert named == {"pre": "model.norm_placement=pre",
                   "mine": "my_page.py objective.masking.rate=.3"}
  with pytest.raises(UserError, match="Two arms are called pre"):
    arms.sort_words(["pre=a=1", "pre=a=2"])


def test_arms_differ_from_the_base_as_their_words_say():
  page = config.load_page("quickstart")
  base, pre, electra = arms.make_arms(
      page, ["steps=20"], {"pre": "model.norm_placement=pre batch_size=8",
                           "electra": "ablations/electra seed=0"})
  assert base.experiment.steps == pre.experiment.steps == 20
  assert electra.changes(base) == ["objective=replaced_tokens"]
  assert set(pre.changes(base)) == {"model.norm_placement=pre", "batch_size=8"}
  assert electra.page is not page and pre.page is page


def test_cumulative_arms_have_the_options_of_all_before():
  """An option stays when a later arm makes the choice that it belongs to."""
  page = config.load_page("quickstart")
  base, more, nsp, small = arms.make_arms(page, [], {
      "more": "objective.masking.rate=.3",
      "nsp": "objective=mlm_nsp data.format=pairs", "small": "batch_size=8"},
      cumulative=True)
  assert more.changes(base) == ["objective.masking.rate=0.3"]
  assert nsp.experiment.objective.masking.rate == 0.3
  assert small.changes(nsp) == ["batch_size=8"]
  with pytest.raises(UserError, match="mine, other cannot be a page"):
    arms.make_arms(page, [], {"mine": "my.py steps=3", "other":
                              base.experiment}, cumulative=True)


def test_study_says_what_it_would_run():
  """Before anything does; in lines of a terminal."""
  study = Study(base="quickstart", seeds=3, budget="tokens", cumulative=True,
                arms={"pre": "model.norm_placement=pre",
                      "few": "objective.masking.rate=.1 data.length=16 "
                      "model.use_bias=false"}, protocols=("mlm percent=20",))
  text = study.describe(columns=60)
  assert max(map(len, text.splitlines())) <= 60
  head, *listed = re.split(r"\n  (?=\S)", text)
  assert "A study of 9 runs" in head and "tokens, scored by mlm@1 perc" in (
      " ".join(head.split()))
  assert [line.split() for line in listed] == [
      ["base", "the", "page", "itself"], ["pre", "model.norm_placement=pre"],
      ["few", "model.norm_placement=pre", "data.length=16",
       "model.use_bias=false", "objective.masking.rate=.1"]]
  assert "\n        " in text and "\nobjective" not in text
  with pytest.raises(UserError, match="nothing differs"):
    dataclasses.replace(study, arms={"same": "steps=150"},
                        overrides=["steps=150"]).describe()
  with pytest.raises(UserError, match="seeds=0"):
    dataclasses.replace(study, seeds=0).describe()


def test_all_faults_of_all_arms_are_named_before_anything_runs():
  with pytest.raises(UserError) as error:
    arms.make_arms(config.load_page("quickstart"), [], {
        "stps": "20", "typo": "objective.masking.rat=.3", "steps": "seed=1",
        "empty": "", "nothing": "model.norm_placement=post",
        "a/b": "batch_size=8", "seeded": "seed=7", "one": "batch_size=8",
        "two": "batch_size=8"})
  faults = str(error.value).splitlines()[1:]
  assert [fault.split(":")[0].strip() for fault in faults] == [
      "stps", "typo", "steps", "empty", "a/b", "nothing", "seeded", "two"]
  assert "the option steps=20?" in faults[0]
  assert "did you mean 'rate'?" in faults[1]
  assert "an option" in faults[2] and "the same as one" in faults[-1]
  with pytest.raises(UserError, match="if it was to be an arm"):
    arms.make_arms(config.load_page("quickstart"),
                   ["optimizer=model.norm=rms"], {})


@dataclasses.dataclass(frozen=True)
class SeedProtocol(Protocol):
  """Gives the seed of a run as its score."""

  part: str = "score"
  version = 1

  def score(self, run, params, workdir):
    return Score(self.title, values_R=np.array([float(run)]))


def units(folder: pathlib.Path, count: int,
          protocols: Sequence[Protocol] = (SeedProtocol(),)) -> list[Unit]:
  return [Unit("base", f"seed {i}", folder / str(i), Experiment(seed=i), None,
               protocols) for i in range(count)]


@pytest.fixture
def trained(monkeypatch):
  """The seeds that a stand-in for `train` was called with; seed 2 fails once,
  and seed 3 is asked to end once."""
  calls = []

  def stand_in(experiment, workdir, page, observers):
    seed = experiment.seed
    calls.append(seed)
    workdir.mkdir(exist_ok=True)
    if seed == 2 and calls.count(2) == 1:
      raise UserError("It failed.")
    if seed == 3 and calls.count(3) == 1:
      raise Stopped("Asked to end.")
    record.write(workdir, record.Record(state="finished", step=4))
    return train.Result({}, None, seed)

  monkeypatch.setattr(train, "train", stand_in)
  monkeypatch.setattr(
      scored_runs, "score_run", lambda workdir, protocols, run: [
          scores.write(workdir, protocol.score(run, None, workdir))
          for protocol in protocols])
  return calls


def board(all_units) -> StudyProgress:
  return StudyProgress([(u.arm, u.name, 4) for u in all_units],
                       console=rich.console.Console(file=io.StringIO()))


def run(folder, count, first=0, protocols=(SeedProtocol(),)) -> list[str]:
  """Works; the states of all units after it."""
  all_units = units(folder, count, protocols)
  work.work([[unit] for unit in all_units], folder / "claims",
            board(all_units), first)
  return [unit.state() for unit in all_units]


def test_missing_runs_are_run_and_a_failure_ends_nothing_else(
    tmp_path, trained):
  run(tmp_path, 3)
  assert trained == [0, 1, 2]
  failed = record.read(tmp_path / "2")
  assert (failed.state, failed.message) == ("failed", "It failed.")
  assert "UserError" in (tmp_path / "2" / "error.txt").read_text()
  with pytest.raises(Stopped):
    run(tmp_path, 4)
  assert run(tmp_path, 4) == ["finished"] * 4
  assert trained == [0, 1, 2, 2, 3, 3]
  assert [scores.read(tmp_path / str(i))["seed@1"].value
          for i in range(4)] == [0, 1, 2, 3]
  # A protocol that is added later scores what is finished.
  further = SeedProtocol(part="further")
  assert run(tmp_path, 4, protocols=(SeedProtocol(), further)) == (
      ["finished"] * 4)
  assert all(further.title in scores.read(tmp_path / str(i)) for i in range(4))


def test_claimed_runs_are_left_to_their_owner(tmp_path, trained, monkeypatch):
  with Owner(tmp_path / "claims" / "base_seed_1") as other:
    assert other.try_take()
    monkeypatch.setattr("bert_jax.checkpoints.owner._AT_ONCE", 0.01)

    def finish_elsewhere(seconds):
      one = units(tmp_path, 2)[1]
      record.write(one.folder, record.Record(state="finished"))
      scores.write(one.folder, Score("seed@1"))

    (tmp_path / "1").mkdir()
    monkeypatch.setattr(work.time, "sleep", finish_elsewhere)
    # There they may be divided into other programs.
    both = units(tmp_path, 2)
    monkeypatch.delattr(work.together, "train_together")
    work.work([both], tmp_path / "claims", board(both))
    assert [unit.state() for unit in both] == ["finished"] * 2
  assert trained == [0]


def test_runs_that_fail_together_are_run_one_by_one(
    tmp_path, trained, monkeypatch):
  def out_of_memory(*_):
    raise RuntimeError("RESOURCE_EXHAUSTED")

  monkeypatch.setattr(work.together, "train_together", out_of_memory)
  of_one_program = units(tmp_path, 3)
  work.work([of_one_program], tmp_path / "claims", board(of_one_program))
  assert trained == [0, 1, 2]
  assert [unit.state() for unit in of_one_program] == [
      "finished", "finished", "failed"]


def test_every_arm_has_the_same_trials_and_keeps_the_best(tmp_path):
  base, pre = arms.make_arms(config.load_page("quickstart"), [],
                             {"pre": "model.norm_placement=pre"})
  made = tuning.trials([base, pre], ["schedule.learning_rate=1e-3,1e-2",
                                     "batch_size=8,16"])
  assert [t.words for t in made[:4]] == [t.words for t in made[4:]]
  assert made[5].arm.experiment.schedule.learning_rate == 1e-3
  assert made[5].arm.experiment.batch_size == 16
  all_units = [tuning.unit(tmp_path, t, SeedProtocol(part="tune"))
               for t in made]
  assert len({u.folder for u in all_units}) == 8
  for value, unit in zip((3, 2, np.nan, 4, 5, 6, 1, 7), all_units):
    unit.folder.mkdir(parents=True)
    scores.write(unit.folder, Score(unit.protocols[0].title,
                                    values_R=np.array([float(value)])))
  best = tuning.choose(list(zip(made, all_units)))
  assert best["base"].words == made[1].words
  assert best["pre"].words == made[6].words
  assert not tuning.choose(list(zip(made[2:3], all_units[2:3])))
  with pytest.raises(UserError, match="base: .*no option 'rat'"):
    tuning.trials([base], ["schedule.rat=1,2"])


def test_study_runs_what_is_missing_and_gives_the_same_report(
    folder, tmp_path, monkeypatch):
  trained = []
  program = together.train_together
  monkeypatch.setattr(together, "train_together", lambda experiments, *rest: (
      trained.append(len(experiments)), program(experiments, *rest))[1])
  study = Study(
      small_run.pretraining(folder, steps=2, objective=Mlm()),
      {"more": "objective.masking.rate=.3"}, seeds=1, budget="tokens",
      workdir=str(tmp_path))
  study.run(members=2)
  text = study.table()
  assert trained == [2]  # The arms differ in a number: one program.
  assert "other masks (objective.masking.rate=0.3)" in text
  assert "| mlm@1 length=32, minus the base |" in text
  assert repr(study.run(members=2)) == text and trained == [2]
  assert (tmp_path / "study.md").exists()
  assert "data:image" in (tmp_path / "study.html").read_text()


def test_progress_without_a_terminal_is_a_line_at_times():
  out = io.StringIO()
  progress = StudyProgress(
      [("base", "seed 0", 10), ("base", "seed 1", 10),
       ("rotary", "seed 0", 20)],
      console=rich.console.Console(file=out, width=200), every=0)
  line = progress.terminal("base", "seed 0")(10, 0)
  line.write(1, {"train/loss": 6.25})
  for step in range(1, 5):
    line.advance(step)
  assert "0 of 3 runs done, base seed 0 4/10 loss 6.250, 0:00:00 left" in (
      out.getvalue().splitlines()[-1])
  line.note("Resumed.")
  assert out.getvalue().splitlines()[-1] == "base seed 0: Resumed."
  second = progress.terminal("base", "seed 1")(10, 0)
  second.write(1, {"train/loss": 6.0})
  progress.set("rotary", "seed 0", "running", 3)  # By another process.
  assert progress.line().startswith(
      "0 of 3 runs done, base 2 runs 0/10 loss 6.000 to 6.250, 1 in other "
      "processes, ")
  progress.set("base", "seed 0", "finished", 10)
  assert progress.line().startswith("1 of 3 runs done")


def test_time_left_counts_the_seconds_of_a_program_once(monkeypatch):
  """Two seeds that take a second a step together, and one that waits."""
  now = 0.0
  monkeypatch.setattr(study_progress.time, "monotonic", lambda: now)
  progress = StudyProgress([("base", f"seed {i}", 10) for i in range(3)],
                           console=rich.console.Console(file=io.StringIO()))
  lines = [progress.terminal("base", f"seed {i}", together=2)(10, 0)
           for i in range(2)]
  for step in (1, 2, 3, 4):
    now += 1.0
    for line in lines:
      line.advance(step)
  assert progress.seconds_left() == pytest.approx(6 + 5)


PAGE = """
import dataclasses
from bert_jax.model.norms import LayerNorm

@dataclasses.dataclass(frozen=True)
class OwnNorm(LayerNorm):
  gain: float = 1.0

experiment = None
"""


def test_runs_that_were_begun_otherwise_are_named_before_anything_runs(
    tmp_path):
  page = config.run_page(PAGE, "mine.py")
  all_units = [dataclasses.replace(unit, page=page)
               for unit in units(tmp_path, 4)]
  for unit, options, text in zip(
      all_units,
      (["log_every=7"], ["seed=1"], [], ["seed=3", "steps=9"]),
      (PAGE, PAGE + "arms = 3\n", PAGE.replace("1.0", "2.0"), PAGE)):
    unit.folder.mkdir(parents=True)
    record.write(unit.folder, record.Record(
        started=record.now(), options=options, page=text))
  with pytest.raises(UserError) as error:
    plan.check_same(all_units)
  assert [line.strip() for line in str(error.value).splitlines()[1:]] == [
      "base seed 2: its page defines other classes",
      "base seed 2: seed=2 (was the defaults)",
      "base seed 3: the defaults (was steps=9)"]
