"""Does dropout by the counter hash train like dropout by threefry?

  python tools/dropout_study.py --seeds 16 steps=300

trains the quickstart's network with the paper's dropout twice for each seed,
once with the words of model/random_bits.py and once with those of jax's own
generator in their place, and prints the paired difference of the held-out loss
with its 95% interval. Initial values, data and masks of a pair are the same.
"""

import argparse
import pathlib
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from bert_jax import config
from bert_jax.metrics.differences import paired
from bert_jax.model import dropout
from bert_jax.model.random_bits import Key
from bert_jax.runs.train import train
from bert_jax.training import programs

OPTIONS = ("model.hidden_dropout_prob=.1",
           "model.attention_probs_dropout_prob=.1", "model.attention=plain",
           "evaluate_every=1000000", "save_every=1000000")


def threefry_words(key: Key, shape: tuple[int, ...]) -> jax.Array:
  """What `dropout._words` returns, by jax's own generator."""
  words_B2 = jax.lax.bitcast_convert_type(jnp.stack(key, -1), jnp.uint32)
  keys_B = jax.random.wrap_key_data(words_B2, impl="threefry2x32")
  bits = jax.vmap(lambda key: jax.random.bits(key, shape[1:]))(keys_B)
  return jax.lax.bitcast_convert_type(bits, jnp.int32)


def losses(experiment, seeds, words):
  dropout._words = words
  jax.clear_caches()  # What was traced has the words of before.
  with programs.shared():
    for seed in range(seeds):
      with tempfile.TemporaryDirectory() as folder:
        run = config.override(experiment, [f"seed={seed}"])
        yield train(run, pathlib.Path(folder)).scores["loss"]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("overrides", nargs="*")
  parser.add_argument("--seeds", type=int, default=16)
  options = parser.parse_args()
  experiment = config.override(config.load_page("quickstart").experiment,
                               [*OPTIONS, *options.overrides])
  hashed, threefry = (
      np.array(list(losses(experiment, options.seeds, words)))
      for words in (dropout._words, threefry_words))
  difference = paired(threefry, hashed)
  print("hash    ", np.round(hashed, 4), "\nthreefry", np.round(threefry, 4))
  print("hash - threefry:", difference)


if __name__ == "__main__":
  main()
