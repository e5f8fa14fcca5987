"""What variants share under the same seed: initial values, masks, dropout; and
how the rest is named."""

import collections
import dataclasses
import functools
import itertools

import flax.linen as nn
import jax
import numpy as np
import pytest

from bert_jax import config
from bert_jax.experiment import compose
from bert_jax.model.encoder import Encoder
from bert_jax.objectives.base import Objective
from bert_jax.objectives.initialization import initialize
from bert_jax.objectives.masking import TokenMasking
from bert_jax.objectives.mlm import Mlm, MlmNsp
from bert_jax.studies.pairing import unshared
from bert_jax.training.adapters import Lora
from bert_jax.training.param_paths import leaves
from bert_jax.training.step import row_losses
from tests import small_run, test_families, tiny

# The members of each family, and the options that each needs.
FAMILIES = collections.defaultdict(dict)
for case in test_families.cases():
  if "." not in case[0].partition("=")[0]:  # An option of a member.
    FAMILIES[case[0].partition("=")[0]].setdefault(case[0], case)
# Not with other heads in a block, for which no bias of positions fits.
FAMILIES["stack"]["stack=pattern"] = (
    "stack=pattern", 'stack.pattern=["","feed_forward=gated"]')


def mixtures():
  """Networks that have each member of each family once, at least."""
  for n in range(max(map(len, FAMILIES.values()))):
    # From the fourth on, each family is as far ahead as its place says.
    words = [word for place, cases in enumerate(FAMILIES.values())
             for word in list(cases.values())[
                 (n + place * (n // 3)) % len(cases)]]
    yield config.override(test_families.SMALL,
                          [*words, f"num_hidden_layers={2 + 2 * (n % 2)}",
                           f"remat={str(bool(n % 2)).lower()}",
                           f"scan_unroll={1 + n % 3}"])


def drawn(options):
  """The encoder's initial values, as they are drawn in a run."""
  init = functools.partial(initialize, Encoder(options))
  return leaves(jax.device_get(jax.jit(init)(jax.random.key(3),
                                             test_families.batch())))


def initial(objective: Objective):
  """The state before the first step of a small run."""
  return jax.jit(tiny.recipe(objective).init)(np.int32(3), tiny.batch())


def first_step(objective: Objective):
  """What the first step sees and loses in each row, dropout included."""
  recipe = tiny.recipe(objective)
  seen, losses, _ = jax.jit(functools.partial(row_losses, recipe))(
      initial(objective), tiny.batch())
  return seen, losses["mlm"].total


def assert_shared_are_equal(networks) -> int:
  """Equal bits for the same path and shape, and in those layers that both have
  where only their number differs; how many were compared."""
  by_path = collections.defaultdict(list)
  for path, x in itertools.chain(*(params.items() for params in networks)):
    shape = x.shape[1:] if "layers/" in path else x.shape
    by_path[path, shape].append(x)
  for (path, _), values in by_path.items():
    for other in values[1:]:
      shared = slice(min(len(values[0]), len(other)))
      np.testing.assert_array_equal(values[0][shared], other[shared],
                                    err_msg=path)
  return sum(len(values) > 1 for values in by_path.values())


def test_members_of_all_families_share_initial_values():
  networks = [drawn(options) for options in mixtures()]
  assert assert_shared_are_equal(networks) > 20
  kernel_NDF = networks[0]["layers/intermediate/kernel"]
  assert not np.array_equal(kernel_NDF[0], kernel_NDF[1])
  # Truncated at two deviations, which leaves .88 of them.
  drawn_VD = networks[0]["embeddings/word_embeddings/embedding"]
  assert np.abs(drawn_VD).max() < 0.04
  assert drawn_VD.std() == pytest.approx(0.88 * 0.02, rel=0.08)


class _Drawn(nn.Module):
  names: tuple[str, ...]

  @nn.compact
  def __call__(self):
    for name in self.names:
      self.param(name, nn.initializers.normal(), (8,))
    nn.Dense(8, name="dense")(np.zeros((1, 8), np.float32))


@dataclasses.dataclass(frozen=True)
class _WithModule(Mlm):
  """MLM beside a module that a page adds."""

  names: tuple[str, ...] = ("first", "second")

  def logits(self, encoder, sequence_output_BLD, batch, keys_B):
    _Drawn(self.names, name="added")()
    return super().logits(encoder, sequence_output_BLD, batch, keys_B)


def test_added_module_changes_nothing_else():
  plain, one, other = (leaves(initial(objective).params) for objective in (
      Mlm(), _WithModule(), _WithModule(names=("third", "second", "first"))))
  assert assert_shared_are_equal([plain, one]) == len(plain)
  assert assert_shared_are_equal([one, other]) == len(one)
  assert not np.array_equal(one["added/first"], one["added/second"])
  jax.tree.map(np.testing.assert_array_equal, first_step(Mlm()),
               first_step(_WithModule()))


def test_objectives_and_adapters_share_initial_values():
  electra = config.load_page("ablations/electra").experiment.objective
  plain = [leaves(initial(objective).params)
           for objective in (Mlm(), MlmNsp(), electra)]
  assert assert_shared_are_equal(plain) == len(plain[0])
  few, many = (leaves(Lora(targets=targets).grow(plain[0], jax.random.key(3)))
               for targets in ("value/", "(query|value)/"))
  assert assert_shared_are_equal([plain[0], few, many]) == len(few)


def test_tokens_masked_at_a_low_rate_are_masked_alike_at_a_higher():
  def masked(rate):
    batch = tiny.batch()
    apply = functools.partial(TokenMasking(rate=rate).apply,
                              vocabulary=tiny.VOCABULARY)
    seen = jax.jit(apply)(batch, jax.random.split(jax.random.key(0),
                                                  tiny.BATCH))
    chosen_BL = np.zeros_like(batch["input_ids"], bool)
    for row, (at_P, weight_P) in enumerate(zip(
        seen["masked_positions"], seen["masked_weights"])):
      chosen_BL[row, np.asarray(at_P)[np.asarray(weight_P) > 0]] = True
    return chosen_BL, np.asarray(seen["input_ids"])

  few_BL, few_ids_BL = masked(0.15)
  many_BL, many_ids_BL = masked(0.4)
  assert few_BL.sum() < many_BL.sum() and not (few_BL & ~many_BL).any()
  assert (few_ids_BL == many_ids_BL)[few_BL].all()


@pytest.fixture(scope="module")
def base(folder):
  return compose(small_run.pretraining(folder))


@pytest.mark.parametrize("words, sentences", [
    ("model.norm_placement=pre optimizer=lion model.remat=true",
     ["2 parameters only in mine (encoder/final_norm/bias, "
      "encoder/final_norm/scale)"]),
    ("data.format=full_sentences batch_size=4 objective=mlm",
     ["other rows (data.format=full_sentences)", "other batches (batch_size=4)",
      "4 parameters only in the base (encoder/pooler/bias, "
      "encoder/pooler/kernel, nsp/bias, 1 more)"]),
    ("objective=mlm objective.masking=whole_word "
     "model.hidden_dropout_prob=0.2 steps=8000 model.intermediate_size=16",
     ["other masks (objective.masking=whole_word)",
      "other dropout draws (model.hidden_dropout_prob=0.2)",
      "4 parameters only in the base (encoder/pooler/bias, "
      "encoder/pooler/kernel, nsp/bias, 1 more)",
      "3 parameters of another shape (encoder/layers/intermediate/bias, "
      "encoder/layers/intermediate/kernel, encoder/layers/output/kernel)",
      "other number of steps (8,000, the base has 4)"]),
    ("seed=1 model.initializer_range=0.05",
     ["nothing that is drawn (seed=1, the base has 0)",
      "other initial values (model.initializer_range=0.05)"])],
    ids=["shared", "data", "drawn", "initial"])
def test_unshared_names_what_differs(base, words, sentences):
  arm = compose(config.override(base.experiment, words.split()),
                base.prepared.tokenizer)
  assert unshared(base, arm, "mine") == sentences
