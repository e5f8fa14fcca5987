"""Masking of phrases that are given."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import UserError
from bert_jax.data.tokenizers.base import LoadedTokenizer
from bert_jax.objectives.masking import Masking, numbered

# 2^32 over the golden ratio, as Knuth has it for hashing by multiplication.
_FACTOR = 0x9E3779B1


@dataclasses.dataclass(frozen=True)
class PhraseMasking(Masking):
  """Phrases of a list are masked together, as those of the highest pointwise
  mutual information (PMI-masking: Levine et al. 2021), and words elsewhere.

  Read from the left, the longest phrase that begins at a word is one unit.

  Attributes:
    phrases: of several words each, spelled as in the text; a page may read them
      from a file, one a line.
    phrase_ids: the phrases in tokens, with commas; filled in from `phrases` and
      the tokenizer.
  """

  phrases: tuple[str, ...] = ()
  phrase_ids: tuple[str, ...] = ()

  def tokenized(self, tokenizer: LoadedTokenizer) -> "PhraseMasking":
    if not self.phrases:
      raise UserError("objective.masking=phrase needs a list, as in "
                      'objective.masking.phrases=["New York","in front of"].')
    words = [phrase.split() for phrase in self.phrases]
    short = [phrase for phrase, parts in zip(self.phrases, words)
             if len(parts) < 2]
    if short:
      raise UserError(f"objective.masking.phrases: {short[0]!r} is no phrase of "
                      "several words.")
    # In a text, and where a text begins with it.
    inside = [ids[1:] for ids in tokenizer.encode_words(
        [["a", *parts] for parts in words])]
    ids = {",".join(str(i) for word in phrase for i in word)
           for phrase in [*inside, *tokenizer.encode_words(words)]}
    return dataclasses.replace(self, phrase_ids=tuple(sorted(ids)))

  def units(self, ids_BL: jax.Array, starts_word_BL: jax.Array,
            keys_B: jax.Array) -> jax.Array:
    longest_BL = jnp.where(starts_word_BL, self._longest(ids_BL), 0)

    def step(left_B: jax.Array, here: tuple[jax.Array, jax.Array]
             ) -> tuple[jax.Array, jax.Array]:
      longest_B, starts_B = here
      begins_B = (left_B == 0) & starts_B
      left_B = jnp.where(begins_B, longest_B, left_B)
      return jnp.maximum(left_B - 1, 0), begins_B

    _, begins_LB = jax.lax.scan(
        step, jnp.zeros(ids_BL.shape[0], jnp.int32),
        (longest_BL.T, starts_word_BL.T))
    return numbered(begins_LB.T)

  def _longest(self, ids_BL: jax.Array) -> jax.Array:
    """Tokens of the longest phrase that begins at each; 0: none does."""
    longest_BL = jnp.zeros_like(ids_BL)
    phrases = [tuple(map(int, phrase.split(",")))
               for phrase in self.phrase_ids]
    for length in sorted({len(phrase) for phrase in phrases}):
      same = np.array([p for p in phrases if len(p) == length], np.int32)
      factor = next(factor for factor in range(_FACTOR, 2**32, 2)
                    if len(set(_hash(same, factor).tolist())) == len(same))
      hashes = _hash(same, factor)
      order = np.argsort(hashes)
      behind_BLn = jnp.stack([
          jnp.pad(ids_BL[:, i:], ((0, 0), (0, i)), constant_values=-1)
          for i in range(length)], axis=-1)
      place_BL = jnp.searchsorted(jnp.asarray(hashes[order]),
                                  _hash(behind_BLn, factor))
      near_BLn = jnp.asarray(same[order])[jnp.minimum(place_BL,
                                                      len(same) - 1)]
      longest_BL = jnp.where((near_BLn == behind_BLn).all(-1), length,
                             longest_BL)
    return longest_BL


def _hash(ids: np.ndarray | jax.Array, factor: int) -> np.ndarray | jax.Array:
  """Of the last dimension, uint32; factors are tried until no two phrases have
  the same."""
  result = ids[..., 0].astype(np.uint32)
  for i in range(1, ids.shape[-1]):
    result = result * np.uint32(factor) + ids[..., i].astype(np.uint32)
  return result
