"""The config pages: each builds, and the ablations do what they say."""

import dataclasses
import functools
import itertools
import json
import re
import shutil
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from bert_jax import config
from bert_jax.analysis import describe
from bert_jax.checkpoints.manifest import Manifest, check_same_run
from bert_jax.config import Page, UserError, pages
from bert_jax.experiment import Experiment
from bert_jax.metrics import weighted
from bert_jax.objectives.embedding import Contrastive
from bert_jax.studies.arms import Arm, make_arms
from bert_jax.studies.study import Study
from bert_jax.training.finetuning import Finetuning
from bert_jax.training.optimizers import Sgd
from bert_jax.training.param_paths import leaves
from bert_jax.training.param_rates import Rates
from bert_jax.training.step import train_step
from tests import tiny
from tests.test_kinds import MADE, batches_of

PAGES = sorted(str(p.relative_to(config.PAGES).with_suffix(""))
               for p in config.PAGES.rglob("*.py"))


@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_documented_and_round_trips(name):
  page = config.load_page(name)
  assert re.search("^  bert-jax ", page.docstring, re.MULTILINE)
  # An installation has none of these.
  assert not re.search(r"tools/|docs/|configs/|README|LOG\.md", page.docstring)
  changes = config.changes(Experiment(), page.experiment)
  assert config.override(Experiment(), changes) == page.experiment
  assert sum(describe.parameter_counts(page.experiment).values()) > 0


@pytest.mark.parametrize("name, millions", [
    ("tiny", 4.4), ("mini", 11.3), ("small", 29.1), ("medium", 41.7),
    ("base", 110.1), ("large", 335)])
def test_sizes_are_the_published_ones(name, millions):
  """google-research/bert's README and 1908.08962, table 1."""
  counts = describe.parameter_counts(config.load_page(name).experiment)
  published = sum(n for part, n in counts.items() if "mlm" not in part)
  assert published / 1e6 == pytest.approx(millions, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("page", ["electra", "distillation"])
def test_pages_of_two_networks_train(page):
  experiment = config.load_page(f"ablations/{page}").experiment
  plain = tiny.recipe(experiment.objective, Sgd())
  recipe = dataclasses.replace(
      plain, schedule=lambda step: 0.1, rates=Rates(
          Finetuning().tables({}, experiment.objective.frozen)))
  state = jax.jit(recipe.init)(np.int32(0), tiny.batch())
  first, losses = leaves(state.params), []
  step = jax.jit(functools.partial(train_step, recipe))
  for _ in range(8):
    state, means = step(state, tiny.batch())
    losses.append(weighted.summarize(means)["loss"])
  assert losses[-1] < losses[0], losses
  for path, after in leaves(state.params).items():
    moves = not re.match("teacher|.*/pooler/", path)
    assert (after != first[path]).any() == moves, path


FACTOR = """
import dataclasses
from bert_jax import config
from bert_jax.objectives.embedding import Contrastive
from bert_jax.objectives.mlm import Mlm
from bert_jax.experiment import Experiment

@dataclasses.dataclass(frozen=True)
class Scaled(Mlm):
  factor = {factor}

experiment = {experiment}
"""
SCALED = "dataclasses.replace(Experiment(), objective=Scaled())"


def saved_and_read(experiment: Experiment, page: Page | None) -> Manifest:
  manifest = Manifest.create(
      experiment, page, SimpleNamespace(serialize=dict), "data")
  return Manifest.from_json(json.loads(json.dumps(manifest.to_json())))


@pytest.fixture
def next_process(monkeypatch):
  """Forgets all pages that were loaded."""
  return lambda: monkeypatch.setattr(pages, "_LOADED", {})


def test_choices_of_one_name_stay_with_their_pages(next_process):
  """However many pages are loaded, in any order."""
  texts = {i: FACTOR.format(factor=i, experiment=SCALED) for i in range(3)}
  manifests = {}
  for factor, text in texts.items():
    page = config.run_page(text, "page")
    manifests[factor] = saved_and_read(page.experiment, page)
  next_process()
  for order in itertools.permutations(manifests):
    read = {i: dataclasses.replace(manifests[i]) for i in order}
    assert {i: m.experiment.objective.factor for i, m in read.items()} == {
        0: 0, 1: 1, 2: 2}
    for i, manifest in read.items():
      for experiment in (
          manifest.overridden(["objective=mlm", "objective=scaled", "steps=3"]),
          config.override(manifest.experiment,
                          ["objective=mlm", "objective=scaled"])):
        assert experiment.objective.factor == i
    # A page that is loaded again is the last.
    again = config.run_page(texts[order[0]], "page")
    assert again.experiment.objective == read[order[0]].experiment.objective
    assert config.override(
        Experiment(), ["objective=scaled"]).objective.factor == order[0]


def test_page_travels_with_the_pages_it_builds_on(
    next_process, tmp_path, monkeypatch):
  """Their paths are relative to the page that names them."""
  below = "config.override(config.load_page({}).experiment, [{}])".format
  files = {
      "lib/deep/root.py": FACTOR.format(factor=7, experiment=SCALED),
      "lib/base.py": "from bert_jax import config\nexperiment = "
      + below("'deep/root.py'", "'steps=5'"),
      "mine/page.py": FACTOR.format(factor=8, experiment=below(
          "'../lib/base.py'", "'seed=3', 'objective.masking.rate=0.5'")),
      "mine/own.py": FACTOR.format(factor=9, experiment=below(
          "'../lib/base.py'", "'objective=mlm', 'objective=scaled'"))}
  for name, text in files.items():
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(text)
  monkeypatch.chdir(tmp_path)
  page, own = (config.load_page(f"mine/{name}.py") for name in ("page", "own"))
  source = saved_and_read(own.experiment, own)
  manifests = {
      7: saved_and_read(page.experiment, page), 9: source,
      # What starts from a run may have choices of its page, and none itself.
      None: saved_and_read(dataclasses.replace(
          Experiment(), objective=source.experiment.objective), None)}
  shutil.rmtree(tmp_path / "lib")
  for factor, manifest in manifests.items():
    next_process()
    experiment = dataclasses.replace(manifest).experiment
    assert experiment.objective.factor == (factor or 9)
    if factor == 7:
      assert (experiment.steps, experiment.seed) == (5, 3)
      assert experiment.objective.masking.rate == 0.5
  assert check_same_run(source, source) is None
  changed = json.loads(json.dumps(source.to_json()).replace(
      "factor = 7", "factor = 77"))
  with pytest.raises(UserError, match="(?s)-  factor = 77.*[+]  factor = 7"):
    check_same_run(Manifest.from_json(changed), source)
  longer, other = (dataclasses.replace(source, changes=[
      *source.changes, "steps=77", *more]) for more in ([], ["batch_size=3"]))
  with pytest.raises(UserError, match="(?s)steps=.*init_from=THIS ONE"):
    check_same_run(longer, source)
  with pytest.raises(UserError, match="(?s)steps=.*Leave these as they were"):
    check_same_run(other, source)
  with pytest.raises(UserError, match="No config page 'lib/nothing.py'"):
    config.load_page("lib/nothing.py")
  (tmp_path / "loop.py").write_text("from bert_jax import config\n"
                                    "config.load_page('loop.py')")
  with pytest.raises(UserError, match="loop.py builds on itself"):
    config.load_page("loop.py")


@pytest.mark.parametrize("name", sorted(
    path.stem for path in (config.PAGES / "studies").glob("*.py")))
def test_arms_of_every_study_page_differ(name):
  page = config.load_page(f"studies/{name}")
  study = getattr(sys.modules[page.module], "study", Study())
  arms = make_arms(page, study.overrides, study.arms, study.cumulative)
  assert [arm.name for arm in arms[1:]] == list(study.arms)


def test_switches_of_the_walk_come_one_at_a_time():
  """And taken back one by one, all arms have all others."""
  walk, last = (config.load_page(f"studies/{name}") for name in (
      "from_2018_to_today", "leave_one_out"))
  switches = sys.modules[walk.module].study.arms
  arms = make_arms(walk, [], switches, cumulative=True)
  for arm, before in zip(arms[1:], arms):
    expected = switches[arm.name].split()
    changes = arm.changes(before)
    assert {change.partition("=")[0] for change in changes} - {
        "schedule.learning_rate", "schedule.warmup_fraction",
        "optimizer.b2"} <= {word.partition("=")[0] for word in expected}
  assert {change.partition("=")[0] for change in arms[-1].changes(
      Arm("", "", last.experiment))} == {
          "budget", "evaluate_every", "save_every"}


def test_two_encoders_are_one_where_they_are_equal():
  """The page's loss is that of one encoder, and both of its encoders learn."""
  page = config.load_page("ablations/two_encoders").experiment.objective
  labeled = MADE["embedding"]()
  _, batch = batches_of(labeled)
  options = dict(num_hidden_layers=1, max_position_embeddings=72)
  one, two = (tiny.recipe(objective, **options)
              for objective in (Contrastive(), page))
  params = jax.jit(one.init)(np.int32(0), batch).params
  both = {"encoder": params["encoder"], "passages": params["encoder"]}
  loss = lambda recipe, params: recipe.objective.losses(
      recipe.network.apply(params, batch), batch)["contrastive"]
  values = [jax.jit(jax.value_and_grad(functools.partial(loss, recipe)))(
      params) for recipe, params in ((one, params), (two, both))]
  assert values[0][0] == pytest.approx(float(values[1][0]), rel=1e-5)
  together = jax.tree.map(lambda a, b: a + b, *(
      values[1][1][name] for name in ("encoder", "passages")))
  for path, gradient in leaves(values[0][1]["encoder"]).items():
    np.testing.assert_allclose(leaves(together)[path], gradient, rtol=1e-4,
                               atol=1e-4, err_msg=path)
  assert page.origin("passages/layers/output/kernel") == (
      "encoder/layers/output/kernel")
