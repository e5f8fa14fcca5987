"""The options of a network."""

import dataclasses
from typing import Literal, get_args, get_type_hints

from bert_jax.config import UserError, nearest
from bert_jax.model.attention import Attention, DotProductAttention
from bert_jax.model.layers import Activation


@dataclasses.dataclass(frozen=True)
class BertConfig:
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
