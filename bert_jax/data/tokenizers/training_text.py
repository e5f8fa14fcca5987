"""The text that a tokenizer is trained on."""

import logging
import re
from collections.abc import Iterable

from bert_jax.config import UserError

# Training reads an even sample of at most this many characters: more text moves
# the most frequent pieces very little and costs time and memory.
_SAMPLE_CHARACTERS = 1 << 24
_LONGEST_WORD = 256  # characters, of what stands between spaces
_TOO_LONG = re.compile(rf"\S{{{_LONGEST_WORD}}}(?=\S)")
_log = logging.getLogger(__name__)


def sample(sentences: Iterable[str]) -> list[str]:
  """An even sample of bounded size: every k-th sentence, k a power of two.

  Longer words than any are cut, as training takes the square of their length.
  """
  kept, size, stride, cut = [], 0, 1, 0
  for i, sentence in enumerate(sentences):
    if i % stride:
      continue
    if len(sentence) > _LONGEST_WORD:
      sentence, cuts = _TOO_LONG.subn(r"\g<0> ", sentence)
      cut += cuts > 0
    kept.append(sentence)
    size += len(sentence)
    while size > _SAMPLE_CHARACTERS and len(kept) > 1:
      kept, stride = kept[::2], stride * 2
      size = sum(map(len, kept))
  if cut:
    _log.warning(
        "%d sentence%s words of more than %d characters, which are cut where "
        "the tokenizer is trained.", cut, "s have" if cut > 1 else " has",
        _LONGEST_WORD)
  # ▁ is a space to SentencePiece, some versions of which crash on nothing else.
  if not any(sentence.replace("▁", " ").strip() for sentence in kept):
    raise UserError("No text to train a tokenizer on.")
  return kept
