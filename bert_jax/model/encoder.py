"""The encoder: token ids in, a vector for every token out."""

import dataclasses
from typing import Literal, get_args, get_type_hints

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_jax.config import UserError, nearest
from bert_jax.model.attention import Attention, DotProductAttention
from bert_jax.model.layers import (
    Activation, Dense, Norm, Site, activation, dropout, fold_in, initializer)


@dataclasses.dataclass(frozen=True)
class Bert:
  """The model's options; names and defaults of `bert_config.json`."""

  vocab_size: int | None = None  # None: as the tokenizer has.
  hidden_size: int = 768
  num_hidden_layers: int = 12
  num_attention_heads: int = 12
  intermediate_size: int = 3072
  hidden_act: Activation = "gelu"
  hidden_dropout_prob: float = 0.1
  attention_probs_dropout_prob: float = 0.1
  max_position_embeddings: int = 512
  type_vocab_size: int = 2
  initializer_range: float = 0.02
  layer_norm_eps: float = 1e-12
  position_embedding_type: Literal["absolute", "sinusoidal", "none"] = (
      "absolute")
  norm_placement: Literal["post", "pre"] = "post"
  attention: Attention = DotProductAttention()
  dtype: Literal["float32", "bfloat16"] = "float32"  # Parameters: float32.
  # Layers in one trip of the loop over layers: more is faster to run and
  # slower to compile. It changes no result and no parameter.
  scan_unroll: int = 4

  def __post_init__(self):
    for name, hint in get_type_hints(type(self)).items():
      value = getattr(self, name)
      words = [a for a in get_args(hint) if isinstance(a, str)]
      if words and value not in words:
        raise UserError(f"{name}={value}" + nearest(str(value), words))
      if name.endswith("_prob") and not 0 <= value < 1:
        raise UserError(f"{name}={value}: expected a probability, at least 0 "
                        "and below 1.")
      if isinstance(value, int) and value < 1:
        raise UserError(f"{name}={value}: expected at least 1.")
    if self.hidden_size % self.num_attention_heads:
      raise UserError(
          f"hidden_size={self.hidden_size} cannot be divided among "
          f"num_attention_heads={self.num_attention_heads}; "
          "one must be a multiple of the other.")


class Embeddings(nn.Module):
  """Word, position and token type, summed and normalised."""

  options: Bert

  def setup(self):
    o = self.options
    self.word_embeddings = Table(o.vocab_size, o)
    if o.position_embedding_type == "absolute":
      self.position_embeddings = Table(o.max_position_embeddings, o)
    self.token_type_embeddings = Table(o.type_vocab_size, o)
    self.norm = Norm(o.layer_norm_eps)

  def __call__(self, input_ids_BL, token_type_ids_BL, position_ids_BL, keys_B):
    o = self.options
    x_BLD = (self.word_embeddings(input_ids_BL)
             + self.token_type_embeddings.product(token_type_ids_BL))
    match o.position_embedding_type:
      case "absolute":
        x_BLD += self.position_embeddings(position_ids_BL)
      case "sinusoidal":
        x_BLD += sinusoids(position_ids_BL, o.hidden_size)
      case "none":
        pass
    x_BLD = dropout(self.norm(x_BLD), o.hidden_dropout_prob, keys_B,
                    Site.EMBEDDINGS)
    return x_BLD.astype(o.dtype)


class Table(nn.Module):
  """One learned vector for each of `size` ids; ids beyond it are clamped."""

  size: int
  options: Bert

  def setup(self):
    self.embedding = self.param("embedding", initializer(self.options),
                                (self.size, self.options.hidden_size))

  def __call__(self, ids: jax.Array) -> jax.Array:
    return self.embedding.at[ids].get(mode="clip")

  def product(self, ids: jax.Array) -> jax.Array:
    """The same for a table of few vectors.

    The gradient of a look-up adds all tokens to them one after another, which
    costs digits; that of a product adds them in parts.
    """
    hot = jax.nn.one_hot(jnp.clip(ids.ravel(), 0, self.size - 1), self.size,
                         dtype=self.embedding.dtype)
    vectors = jnp.dot(hot, self.embedding, precision=jax.lax.Precision.HIGHEST)
    return vectors.reshape(*ids.shape, -1)


def sinusoids(position_ids_BL: jax.Array, width: int) -> jax.Array:
  """(B, L, width): sines, then cosines, at the initial scale of a table.

  Vaswani et al. 2017, 3.5, times .02: word vectors start that small.
  """
  rate_D = 10_000 ** -jnp.linspace(0, 1, -(-width // 2), endpoint=False)
  angle_BLD = (position_ids_BL[..., None].astype(jnp.float32)
               * rate_D[None, None])
  both_BLD = jnp.concatenate([jnp.sin(angle_BLD), jnp.cos(angle_BLD)], -1)
  return 0.02 * both_BLD[..., :width]


class SelfAttention(nn.Module):
  options: Bert

  def setup(self):
    o = self.options
    heads = (o.num_attention_heads, o.hidden_size // o.num_attention_heads)
    width = (o.hidden_size,)
    self.query, self.key, self.value = (
        Dense(width, heads, o) for _ in range(3))
    self.output = Dense(heads, width, o)

  def __call__(self, x_BLD, example_ids_BL, keys_B):
    o = self.options
    mixed_BLHK = o.attention.attend(
        self.query(x_BLD), self.key(x_BLD), self.value(x_BLD),
        example_ids_BL, example_ids_BL, o.attention_probs_dropout_prob, keys_B)
    return dropout(self.output(mixed_BLHK), o.hidden_dropout_prob, keys_B,
                   Site.ATTENTION_OUTPUT)


class Layer(nn.Module):
  """Attention and feed-forward, each with a residual and a norm."""

  options: Bert

  def setup(self):
    o = self.options
    self.attention = SelfAttention(o)
    self.attention_norm = Norm(o.layer_norm_eps)
    self.intermediate = Dense((o.hidden_size,), (o.intermediate_size,), o)
    self.output = Dense((o.intermediate_size,), (o.hidden_size,), o)
    self.output_norm = Norm(o.layer_norm_eps)

  def __call__(self, x_BLD, number, example_ids_BL, keys_B):
    """The layer's output as a scan's (carry, None)."""
    return self._apply(x_BLD, number, example_ids_BL, keys_B), None

  def keep(self, x_BLD, number, example_ids_BL, keys_B):
    """The layer's output as a scan's (carry, output)."""
    x_BLD = self._apply(x_BLD, number, example_ids_BL, keys_B)
    return x_BLD, x_BLD

  def _apply(self, x, number, example_ids_BL, keys_B):
    keys_B = fold_in(keys_B, number)
    attend = lambda x: self.attention(x, example_ids_BL, keys_B)
    feed = lambda x: self._feed_forward(x, keys_B)
    match self.options.norm_placement:
      case "post":
        x = self.attention_norm(x + attend(x))
        return self.output_norm(x + feed(x))
      case "pre":
        x = x + attend(self.attention_norm(x))
        return x + feed(self.output_norm(x))

  def _feed_forward(self, x_BLD, keys_B):
    o = self.options
    inner_BLF = activation(o.hidden_act)(self.intermediate(x_BLD))
    return dropout(self.output(inner_BLF), o.hidden_dropout_prob, keys_B,
                   Site.OUTPUT)


class Encoder(nn.Module):
  """BERT (Devlin et al. 2019) up to its last hidden states and the pooler."""

  options: Bert

  def setup(self):
    o = self.options
    self.embeddings = Embeddings(o)
    self.layers = nn.scan(
        Layer,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=(0, nn.broadcast, nn.broadcast),
        length=o.num_hidden_layers,
        unroll=min(o.scan_unroll, o.num_hidden_layers),
        methods=["__call__", "keep"],
    )(o)
    if o.norm_placement == "pre":
      self.final_norm = Norm(o.layer_norm_eps)
    self.pooler = Dense((o.hidden_size,), (o.hidden_size,), o)

  def __call__(
      self,
      input_ids_BL: jax.Array,
      token_type_ids_BL: jax.Array,
      position_ids_BL: jax.Array,
      example_ids_BL: jax.Array,
      keys_B: jax.Array | None = None,
  ) -> jax.Array:
    """The last hidden states, (B, L, D).

    Args:
      input_ids_BL: token ids.
      token_type_ids_BL: sentence A = 0, B = 1.
      position_ids_BL: positions, which restart in each packed example.
      example_ids_BL: the packed example of each token; 0 is padding.
      keys_B: a typed threefry key a row for dropout; None: no dropout.
    """
    x_BLD = self.embeddings(input_ids_BL, token_type_ids_BL, position_ids_BL,
                            keys_B)
    x_BLD, _ = self.layers(x_BLD, *self._per_layer(example_ids_BL, keys_B))
    return self._finish(x_BLD)

  def hidden_states(
      self,
      input_ids_BL: jax.Array,
      token_type_ids_BL: jax.Array,
      position_ids_BL: jax.Array,
      example_ids_BL: jax.Array,
      keys_B: jax.Array | None = None,
  ) -> jax.Array:
    """(N + 1, B, L, D): the embeddings' output, then that of each layer.

    The last one is what `__call__` returns.
    """
    first_BLD = self.embeddings(input_ids_BL, token_type_ids_BL,
                                position_ids_BL, keys_B)
    _, states_NBLD = self.layers.keep(
        first_BLD, *self._per_layer(example_ids_BL, keys_B))
    last_BLD = self._finish(states_NBLD[-1])
    return jnp.concatenate(
        [first_BLD[None], states_NBLD[:-1], last_BLD[None]])

  def pool(
      self, sequence_output_BLD: jax.Array, cls_positions_BE: jax.Array
  ) -> jax.Array:
    """(B, E, D): each example's first token through the tanh pooler."""
    cls_BED = gather(sequence_output_BLD, cls_positions_BE)
    return jnp.tanh(self.pooler(cls_BED))

  def word_embeddings(self) -> jax.Array:
    """The (V, D) float32 table, which the masked-LM decoder shares."""
    return self.embeddings.word_embeddings.embedding

  def _per_layer(self, example_ids_BL, keys_B):
    numbers_N = jnp.arange(self.options.num_hidden_layers)
    return numbers_N, example_ids_BL, fold_in(keys_B, Site.LAYERS)

  def _finish(self, x_BLD):
    if self.options.norm_placement == "pre":
      x_BLD = self.final_norm(x_BLD)
    return x_BLD


def gather(x_BLD: jax.Array, positions_BP: jax.Array) -> jax.Array:
  """(B, P, D): the vectors at each row's positions."""
  return jnp.take_along_axis(x_BLD, positions_BP[..., None], axis=1,
                             mode="clip")
