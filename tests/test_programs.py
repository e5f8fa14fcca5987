"""What runs of a process share, and what a run compiles."""

import collections
import contextvars
import logging
import re

import jax
import pytest

from bert_jax.config import override
from bert_jax.experiment import recipe
from bert_jax.runs import train
from bert_jax.training import programs
from bert_jax.training.schedules import ConstantSchedule
from tests import small_run, tiny
from tests.small_run import pretraining


def test_program_is_made_once_inside_shared(monkeypatch):
  monkeypatch.setattr(programs, "_MOST", 2)
  make = programs.once(lambda key: key)(lambda key: object())

  def check():
    assert make(1) is not make(1)
    with programs.shared():
      one, two = make(1), make(2)
      with programs.shared():
        assert make(1) is one
      make(3)  # What was used last is kept.
      assert make(1) is one and make(2) is not two
      assert make([]) is not make([])  # A key without a hash.
    assert make(1) is not one

  contextvars.Context().run(check)


def test_seeds_share_a_recipe_and_options_do_not(tmp_path):
  (tmp_path / "text.txt").write_text("")
  base = pretraining(tmp_path)
  of = lambda *words: recipe(override(base, words), tiny.VOCABULARY)
  with programs.shared():
    assert of("seed=1", "log_every=3") is of()
    for word in ("objective.masking.rate=.3", "model.use_bias=false",
                 "optimizer.b2=.9", "schedule.learning_rate=1", "steps=9",
                 "microbatches=2", "adapter=lora", "finetuning.frozen=x"):
      assert of(word) is not of()


@pytest.fixture
def compiled():
  """What jax compiles, by function and shapes."""
  counts = collections.Counter()

  class Counting(logging.Handler):

    def emit(self, record):
      if match := re.match(r"Compiling (?:jit\()?([\w<>]+)\)? with .*",
                           record.getMessage(), re.DOTALL):
        counts[match[1], match[0]] += 1

  handler, logger = Counting(), logging.getLogger("jax")
  logger.addHandler(handler)
  with jax.log_compiles():
    yield counts
  logger.removeHandler(handler)


def test_run_compiles_nothing_twice(tmp_path, compiled):
  small_run.write(tmp_path)
  # 3 evaluations and 3 saves of what no other test has compiled.
  experiment = pretraining(tmp_path, steps=6, batch_size=4,
                           schedule=ConstantSchedule(3e-3, 0.0))
  with programs.shared():
    small_run.pull_the_plug(experiment, tmp_path / "run", at=5)
    assert {"train_step", "predict_batch", "_first_state"} <= {
        name for name, _ in compiled}
    assert set(compiled.values()) == {1}
    compiled.clear()
    train.train(experiment, tmp_path / "run")
  assert not compiled
