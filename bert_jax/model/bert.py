"""The options of a network."""

import dataclasses
from typing import Literal, get_args, get_type_hints

from bert_jax.config import UserError, nearest
from bert_jax.model.attention import Attention, AutoAttention
from bert_jax.model.dense import Activation
from bert_jax.model.feed_forward import FeedForward, MlpFeedForward
from bert_jax.model.inputs import Inputs, TokensInputs
from bert_jax.model.norms import LayerNorm, Norm, Placement
from bert_jax.model.pooler import ClsPooler, Pooler
from bert_jax.model.positions import LearnedPositions, Positions
from bert_jax.model.stack import Stack, UniformStack
from bert_jax.model.visibility import GlobalLocality, Locality


@dataclasses.dataclass(frozen=True)
class BertConfig:
  """The model's options; names and defaults of `bert_config.json`.

  Attributes:
    vocab_size: number of tokens with an embedding; None: as many as the
      tokenizer has.
    hidden_size: width of the hidden states.
    num_hidden_layers: number of layers of the encoder.
    num_attention_heads: attention heads of each layer; `hidden_size` is a
      multiple of it.
    intermediate_size: width inside the feed-forward part of a layer.
    hidden_act: activation function of the feed-forward part and of the
      masked-LM head.
    hidden_dropout_prob: dropout probability of the embeddings and of the
      output of the attention and feed-forward parts.
    attention_probs_dropout_prob: dropout probability of the attention weights.
    max_position_embeddings: the longest row, in tokens.
    type_vocab_size: number of token types (segments: A, B, ...).
    initializer_range: standard deviation of the initial weights.
    layer_norm_eps: epsilon that norms add to the variance.
    use_bias: whether the linear layers of the encoder and of the masked-LM head
      have biases. Norms and gated feed-forward parts have an option of their
      own; heads for labels always have biases.
    head_bias: whether the linear layers of the pooler and in front of the
      masked-LM decoder have biases; None: as `use_bias`.
    embedding_size: width of the embeddings, which are projected to
      `hidden_size` (ALBERT); None: `hidden_size`, without a projection.
    norm_placement: where a layer normalizes: after each residual connection as
      BERT (post), before the attention and feed-forward parts (pre), or before
      and after each part (sandwich).
    first_attention_norm: whether the first layer normalizes what its attention
      reads (norm_placement=pre or sandwich), although embeddings are normalized
      already; ModernBERT's does not.
    dtype: floating-point type of the computation; parameters are float32.
    scan_unroll: layers that one iteration of the scan over layers unrolls;
      more run faster and compile slower. None: all on a TPU, where the loop
      copies what it keeps for the backward pass, and 4 elsewhere. Results and
      parameters do not change.
    remat: rematerialization: whether the backward pass computes a layer's
      activations again, for a fourth more time and much less memory.
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
  head_bias: bool | None = None
  embedding_size: int | None = None
  inputs: Inputs = TokensInputs()
  positions: Positions = LearnedPositions()
  locality: Locality = GlobalLocality()
  attention: Attention = AutoAttention()
  feed_forward: FeedForward = MlpFeedForward()
  norm: Norm = LayerNorm()
  norm_placement: Placement = "post"
  first_attention_norm: bool = True
  stack: Stack = UniformStack()
  pooler: Pooler = ClsPooler()
  dtype: Literal["float32", "bfloat16"] = "float32"
  scan_unroll: int | None = None
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
    if self.norm_placement == "post" and not self.first_attention_norm:
      raise UserError("first_attention_norm=false: with norm_placement=post no "
                      "layer normalizes what its attention reads.")
    self.stack.blocks(self)

  @property
  def embedding_width(self) -> int:
    return self.embedding_size or self.hidden_size

  @property
  def projects_embeddings(self) -> bool:
    return self.embedding_width != self.hidden_size

  @property
  def heads_have_bias(self) -> bool:
    """Of `head_bias` and `use_bias`."""
    return self.use_bias if self.head_bias is None else self.head_bias

  @property
  def parameter_layers(self) -> int:
    """How many layers have parameters of their own."""
    return self.stack.parameter_layers(self)
