"""A run that takes seconds, and the text and tables it reads."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator

import jax
import jax.experimental
import numpy as np

from bert_jax import config
from bert_jax.checkpoints.manifest import Manifest
from bert_jax.checkpoints.reading import read_manifests, read_state
from bert_jax.data.sources import TextData
from bert_jax.data.tokenizers.choices import WordPieceTokenizer
from bert_jax.experiment import Experiment, Run
from bert_jax.model.bert import BertConfig
from bert_jax.objectives.mlm import MlmNsp
from bert_jax.parallel.layouts import MeshLayout
from bert_jax.reporting import jsonl
from bert_jax.runs import train
from bert_jax.runs.observers import Observers
from bert_jax.training.optimizers import BertAdam
from bert_jax.training.schedules import ConstantSchedule
from bert_jax.training.step import TrainState

WORDS = "red green blue tall short old new warm cold dark light soft".split()


def sentence(rng: np.random.Generator) -> str:
  return " ".join(rng.choice(WORDS, rng.integers(3, 8))) + "."


def write(folder: pathlib.Path) -> None:
  """Writes text.txt, and train.tsv and dev.tsv with a label and a score."""
  rng = np.random.default_rng(0)
  (folder / "text.txt").write_text("\n\n".join(
      "\n".join(sentence(rng) for _ in range(8)) for _ in range(120)) + "\n")
  for name, count in (("train", 200), ("dev", 37)):
    lines = ["sentence\tlabel\tscore"]
    for _ in range(count):
      text = sentence(rng)
      lines.append(f"{text}\t{'warm' if 'warm' in text else 'other'}\t"
                   f"{text.count('o') / 4}")
    (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")


@dataclasses.dataclass(frozen=True)
class FirstDevices(MeshLayout):
  """A mesh of the first `count` devices."""

  count: int = 1

  def devices(self):
    return jax.devices()[:self.count]


def pretraining(folder: pathlib.Path, **options) -> Experiment:
  """On one device; compiled once for any number of steps."""
  return dataclasses.replace(
      Experiment(
          model=BertConfig(hidden_size=16, num_hidden_layers=1,
                           num_attention_heads=2, intermediate_size=32,
                           max_position_embeddings=32), objective=MlmNsp(),
          data=TextData(length=32, text=str(folder / "text.txt"),
                        tokenizer=WordPieceTokenizer(vocab_size=60),
                        held_out_percent=24.0), optimizer=BertAdam(),
          schedule=ConstantSchedule(1e-2, 0.0), layout=FirstDevices(),
          steps=4, batch_size=8,
          evaluate_every=2, save_every=2, log_every=1), **options)


def equal(a, b) -> None:
  """Asserts that two trees are equal bit for bit."""
  jax.tree.map(np.testing.assert_array_equal, *map(jax.device_get, (a, b)))


@contextlib.contextmanager
def other_settings() -> Iterator[None]:
  """Settings of jax that change types and random bits elsewhere."""
  # Older versions of jax have it there.
  x64 = (jax if hasattr(jax, "enable_x64") else jax.experimental).enable_x64
  with (x64(True), jax.default_prng_impl("rbg"),
        jax.threefry_partitionable(False)):
    yield


class Pulled(Exception):
  """The plug."""


def pull_the_plug(experiment: Experiment, workdir: pathlib.Path, at: int,
                  page: config.Page | None = None) -> None:
  """Runs, and dies without saving once step `at` was dispatched."""

  def on_step(step: int) -> None:
    if step == at:
      raise Pulled

  with contextlib.suppress(Pulled):
    train.train(experiment, workdir, page, Observers(on_step))
    raise AssertionError(f"The run ended before step {at}.")


def curve(workdir: pathlib.Path) -> list[dict[str, float]]:
  """Lines of metrics.jsonl without the measured times."""
  return [{k: v for k, v in line.items() if "second" not in k}
          for line in jsonl.read_jsonl(workdir / "metrics.jsonl")]


def stored(workdir: pathlib.Path, run: Run,
           step: int | None = None) -> TrainState:
  """The state saved by a run without a page, at a step or the latest."""
  shape = run.shape()
  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return read_state(
      workdir, max(read_manifests(workdir)) if step is None else step,
      shape, jax.tree.map(lambda _: here, shape),
      Manifest.of_run(run))
