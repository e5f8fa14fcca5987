"""What `show` says of the time that a run takes here."""

import dataclasses

import pytest

from bert_jax import config
from bert_jax.analysis import step_time
from bert_jax.analysis.step_time import StepTime
from bert_jax.experiment import Experiment, workload

SMALL = config.override(Experiment(), [
    "model.vocab_size=64", "model.hidden_size=32", "data.length=16",
    "model.num_hidden_layers=1", "model.num_attention_heads=2",
    "model.intermediate_size=64", "batch_size=8", "steps=1000"])


def a_second(experiment: Experiment) -> StepTime:
  return StepTime(1.0, "as the test says", True)


def test_estimate_is_flops_over_a_speed_measured_here(monkeypatch):
  monkeypatch.setattr(step_time, "_speed_of", lambda *shape: (1e6, str(shape)))
  step = step_time.estimate(SMALL)
  assert step.seconds == workload(SMALL).flops / 1e6
  assert "(128, 32, 64, 'float32')" in step.how


def test_speed_is_of_a_product_that_takes_a_moment():
  speed, product = step_time._speed_of(64, 32, 128, "float32")
  assert 1e5 < speed < 1e15 and product == "a product of 64 x 32 by 32 x 128"


def test_measured_step_is_one_of_the_experiment(monkeypatch):
  monkeypatch.setattr(step_time, "_MEASURED_SECONDS", 0.0)
  text = step_time.text(SMALL, measured=True)
  assert "the median of 3 steps here" in text and "1,000 steps take" in text
  assert "t least" not in text and "--measure" not in text


@pytest.mark.parametrize("change, words", [
    ("steps=80000", "80,000 steps take at least 22.2 h"),
    ("budget=2e6tokens", "15,625 steps take"),
    ("budget=20min", "follows from the budget"),
    ("epochs=3", "follows from the data")])
def test_time_of_all_steps(monkeypatch, change, words):
  monkeypatch.setattr(step_time, "estimate", a_second)
  text = step_time.text(config.override(SMALL, [change]), measured=False)
  assert words in text and "cannot finish" not in text


def test_page_of_more_than_a_day_names_one_of_less(monkeypatch):
  monkeypatch.setattr(step_time, "estimate", a_second)
  text = step_time.text(config.load_page("base").experiment, measured=False)
  assert "1,000,000 steps take at least 11.6 days" in text
  assert "cannot finish it in a day" in text and "can: cpu_hour" in text
  task = dataclasses.replace(
      config.load_page("task").experiment, epochs=None, steps=10**6)
  assert "None of the program's pages" in step_time.text(task, measured=False)


@pytest.mark.parametrize("seconds, words", [
    (0.0123, "12.3 ms"), (75, "75 s"), (600, "10 min"), (9e3, "2.5 h"),
    (3e5, "3.47 days"), (1e9, "31.7 years")])
def test_duration_is_in_readable_units(seconds, words):
  assert step_time.duration(seconds) == words
