"""Outputs of tiny BERTs against arrays that Hugging Face's code computed."""

import functools

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.model.bert import BertConfig
from bert_jax.model.encoder import Encoder
from bert_jax.model.heads import ClassificationHead, MlmHead

# Our parameter path, theirs. The words `N` and `layerN` stand for the layers.
KEYS = "input_ids", "token_type_ids", "position_ids", "example_ids"
PATHS = {
    "encoder/embeddings/word_embeddings/embedding":
        "encoder/emb/token_emb/weight",
    "encoder/embeddings/position_embeddings/embedding":
        "encoder/emb/pos_emb/weight",
    "encoder/embeddings/token_type_embeddings/embedding":
        "encoder/emb/type_emb/weight",
    **{f"encoder/embeddings/norm/{p}": f"encoder/emb/norm/{p}"
       for p in ("scale", "bias")},
    **{f"encoder/layers/attention/{name}/{ours}":
       f"encoder/transformer/layerN/self_attention/attention/{path}/{theirs}"
       for name, path in [("query", "i_proj/q_proj"), ("key", "i_proj/k_proj"),
                          ("value", "i_proj/v_proj"), ("output", "o_proj")]
       for ours, theirs in [("kernel", "weight"), ("bias", "bias")]},
    **{f"encoder/layers/{name}/{ours}":
       f"encoder/transformer/layerN/feed_forward/{path}/{theirs}"
       for name, path in [("intermediate", "linear1"), ("output", "linear2")]
       for ours, theirs in [("kernel", "weight"), ("bias", "bias")]},
    **{f"encoder/layers/{name}/{p}":
       f"encoder/transformer/layerN/{path}/norm/{p}"
       for name, path in [("attention_norm", "self_attention"),
                          ("output_norm", "feed_forward")]
       for p in ("scale", "bias")},
    **{f"{name}/{ours}": f"head/{path}/{theirs}"
       for name, path in [("encoder/pooler", "pooler/linear"),
                          ("mlm/transform", "transform/linear"),
                          ("classifier", "output")]
       for ours, theirs in [("kernel", "weight"), ("bias", "bias")]},
    **{f"mlm/norm/{p}": f"head/transform/norm/{p}" for p in ("scale", "bias")},
    "mlm/bias": "head/output_bias",
}


@functools.partial(jax.jit, static_argnums=(0, 1))
def encode(options, method, params, rows):
  return Encoder(options).apply({"params": params}, rows, method=method)


class Case:
  """One case of a file: its inputs, outputs, and parameters under our paths."""

  def __init__(self, shared, file, name):
    with np.load(shared / "data/golden" / file) as arrays:
      self.arrays = {key.removeprefix(name + "/"): arrays[key]
                     for key in arrays.files if key.startswith(name + "/")}
    params = {ours: self._parameter(theirs) for ours, theirs in PATHS.items()}
    self.params = flax.traverse_util.unflatten_dict(
        {path: jnp.asarray(x) for path, x in params.items() if x is not None},
        sep="/")
    (vocabulary, width), (positions, _), (types, _), (layers, inner), heads = (
        params[path].shape[:2] for path in (
            "encoder/embeddings/word_embeddings/embedding",
            "encoder/embeddings/position_embeddings/embedding",
            "encoder/embeddings/token_type_embeddings/embedding",
            "encoder/layers/intermediate/bias",
            "encoder/layers/attention/query/bias"))
    self.options = BertConfig(
        vocab_size=vocabulary, hidden_size=width, num_hidden_layers=layers,
        num_attention_heads=heads[1], intermediate_size=inner,
        max_position_embeddings=positions, type_vocab_size=types,
        hidden_act="gelu_new",
        # The two files were computed with different epsilons.
        layer_norm_eps=1e-5 if "encoder_test" in file else 1e-12)

  def _parameter(self, path):
    if "layerN" in path:
      layers = [self.arrays["params/" + path.replace("N", str(n))]
                for n in (0, 1)]
      if "o_proj/weight" in path:  # (width, heads, head width) here too
        layers = [np.moveaxis(w, 0, -1) for w in layers]
      return np.stack(layers)
    if "params/" + path not in self.arrays:
      return None
    array = self.arrays["params/" + path]
    return array[0] if "pos_emb" in path else array

  def __getitem__(self, key):
    return self.arrays[key]

  def encode(self, ids, types, positions, examples, method="__call__"):
    arrays = ids, types, positions, examples
    return encode(self.options, method, self.params["encoder"], {
        key: jnp.asarray(x, jnp.int32) for key, x in zip(KEYS, arrays)})

  def rows(self):
    """The encoder's four inputs, each (rows, 20), one example in a row."""
    ids = self["inputs/input_ids"]
    types = self.arrays.get("inputs/token_type_ids", np.zeros_like(ids))
    # True in their mask is where text is.
    examples = self.arrays.get("inputs/padding_mask", ids != 0)
    positions = np.broadcast_to(np.arange(ids.shape[-1]), ids.shape)
    return [x.reshape(-1, ids.shape[-1])
            for x in (ids, types, positions, examples)]


def equal(got, expected):
  np.testing.assert_allclose(np.asarray(got), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["test_for_mlm", "test_for_mlm_with_padding"])
def test_masked_language_model(shared, name):
  case = Case(shared, "axlearn.common.bert_test.npz", name)
  sequence_output_BLD = case.encode(*case.rows())
  equal(sequence_output_BLD, case["outputs/hidden_states_last"])
  everywhere_BP = jnp.broadcast_to(jnp.arange(20), (3, 20))
  logits_BPV = MlmHead(case.options).apply(
      {"params": case.params["mlm"]}, sequence_output_BLD, everywhere_BP,
      case.params["encoder"]["embeddings"]["word_embeddings"]["embedding"])
  equal(logits_BPV, case["outputs/logits"])
  equal(cross_entropy(logits_BPV, case["inputs/target_labels"]),
        case["outputs/loss"])


@pytest.mark.parametrize("name", [
    "test_sequence_classification_1", "test_sequence_classification_2",
    "test_sequence_classification_3", "test_multiple_choice_classification",
    "test_sequence_binary_classification"])
def test_classification(shared, name):
  case = Case(shared, "axlearn.common.bert_test.npz", name)
  sequence_output_BLD = case.encode(*case.rows())
  pooled_BED = Encoder(case.options).apply(
      {"params": case.params["encoder"]}, sequence_output_BLD,
      jnp.zeros((len(sequence_output_BLD), 1), jnp.int32), method="pool")
  classes = len(case.params["classifier"]["bias"])
  logits_BEC = ClassificationHead(case.options, classes, .1).apply(
      {"params": case.params["classifier"]}, pooled_BED)
  logits = logits_BEC.reshape(case["outputs/logits"].shape)
  equal(logits, case["outputs/logits"])
  labels = case["inputs/target_labels"]
  if labels.dtype == np.float32:
    loss = np.mean(np.square(np.asarray(logits)[:, 0] - labels))
  elif labels.ndim == 2:
    loss = np.mean(np.logaddexp(0, logits) - labels * np.asarray(logits))
  else:
    loss = cross_entropy(logits, labels)
  equal(loss, case["outputs/loss"])


def cross_entropy(logits, labels):
  log_probability = np.asarray(jax.nn.log_softmax(logits), np.float64)
  chosen = np.take_along_axis(
      log_probability, np.maximum(labels, 0)[..., None], -1)[..., 0]
  return -chosen[labels >= 0].mean()


def test_encoder(shared):
  case = Case(shared, "axlearn.common.encoder_test.npz",
              "test_against_hf_encoder")
  equal(case.encode(*case.rows()), case["outputs/last_hidden_state"])


@pytest.mark.parametrize("segments", [1, 2, 3])
def test_embeddings_of_packed_rows(shared, segments):
  """These outputs are of the embeddings alone, of one segment after another,
  each moved to the front of a row of zeros; number 0 is an empty row."""
  case = Case(shared, "axlearn.common.encoder_test.npz",
              f"test_embeddings_{segments}")
  ids, types, positions, examples = (case[f"inputs/source_{x}"] for x in (
      "ids", "type_ids", "positions", "segment_ids"))
  packed_BLD = case.encode(ids, types, positions, examples,
                           method="hidden_states")[0]
  for segment in range(segments):
    mine = examples == segment
    front = ~np.sort(~mine)  # as many, moved to the front
    moved = np.zeros_like(ids)
    moved[front] = ids[mine]
    alone_BLD = case.encode(
        moved, types, np.broadcast_to(np.arange(ids.shape[1]), ids.shape),
        np.ones_like(ids), method="hidden_states")[0]
    expected = case[f"outputs/segment_{segment}"]
    equal(alone_BLD, expected)
    equal(packed_BLD[mine], expected[front])
