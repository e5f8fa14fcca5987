"""The options of a network."""

import dataclasses
from typing import Literal, get_args, get_type_hints

from bert_jax.config import UserError, nearest
from bert_jax.model.attention import Attention, PlainAttention
from bert_jax.model.dense import Activation
from bert_jax.model.feed_forward import FeedForward, MlpFeedForward
from bert_jax.model.inputs import Inputs, TokensInputs
from bert_jax.model.norms import LayerNorm, Norm, Placement
from bert_jax.model.positions import LearnedPositions, Positions
from bert_jax.model.stack import Stack, UniformStack
from bert_jax.model.visibility import GlobalLocality, Locality


@dataclasses.dataclass(frozen=True)
class BertConfig:
  """The model's options; names and defaults of `bert_config.json`.

  Attributes:
    vocab_size: tokens; None: as the tokenizer has.
    hidden_size: width of the vectors between layers.
    num_hidden_layers: layers of the encoder.
    num_attention_heads: of a layer; they divide `hidden_size`.
    intermediate_size: width inside the feed-forward part.
    hidden_act: activation of feed-forward parts and of the vocabulary head.
    hidden_dropout_prob: of embeddings and of what a layer adds to its input.
    attention_probs_dropout_prob: of attention weights.
    max_position_embeddings: the longest row that positions are made for.
    type_vocab_size: kinds of segments.
    initializer_range: standard deviation of initial weights.
    layer_norm_eps: added to the variance in norms.
    use_bias: whether the linear layers of encoder and vocabulary head add
      vectors. Norms and gated layers have an option of their own, heads for
      labels always do.
    embedding_size: width of the embeddings, which are then projected (ALBERT);
      None: as `hidden_size`.
    norm_placement: behind each part of a layer as BERT (post), before it
      (pre), or both (sandwich).
    dtype: of the computation; parameters are float32.
    scan_unroll: layers in one trip of the loop over layers: more is faster to
      run and slower to compile. It changes no result and no parameter.
    remat: compute a layer's inner results again in the backward pass: a fourth
      more time for much less memory.
  """

  vocab_size: int | None = None
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
  use_bias: bool = True
  embedding_size: int | None = None
  inputs: Inputs = TokensInputs()
  positions: Positions = LearnedPositions()
  locality: Locality = GlobalLocality()
  attention: Attention = PlainAttention()
  feed_forward: FeedForward = MlpFeedForward()
  norm: Norm = LayerNorm()
  norm_placement: Placement = "post"
  stack: Stack = UniformStack()
  dtype: Literal["float32", "bfloat16"] = "float32"
  scan_unroll: int = 4
  remat: bool = False

  def __post_init__(self):
    for name, hint in get_type_hints(type(self)).items():
      value = getattr(self, name)
      words = [a for a in get_args(hint) if isinstance(a, str)]
      if words and value not in words:
        raise UserError(f"{name}={value}" + nearest(str(value), words))
      if name.endswith("_prob") and not 0 <= value < 1:
        raise UserError(f"{name}={value}: expected a probability, at least 0 "
                        "and below 1.")
      if type(value) is int and value < 1:
        raise UserError(f"{name}={value}: expected at least 1.")
    if self.hidden_size % self.num_attention_heads:
      raise UserError(
          f"hidden_size={self.hidden_size} cannot be divided among "
          f"num_attention_heads={self.num_attention_heads}; "
          "one must be a multiple of the other.")
    self.stack.blocks(self)

  @property
  def embedding_width(self) -> int:
    return self.embedding_size or self.hidden_size

  @property
  def parameter_layers(self) -> int:
    """How many layers have parameters of their own."""
    return self.stack.parameter_layers(self)
