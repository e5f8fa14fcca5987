"""Windows of contexts that are too long for a row, and the rows they fill.

Windows, positions and which window a token counts in are those of
google-research/bert's run_squad.py; what is theirs there by whole words is
here by the characters that each token stands for.

Dimensions: X windows, E of them in a row of L tokens; T tokens of the set.
"""

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from bert_jax.config import Signed, UserError
from bert_jax.data.batches.examples import Examples
from bert_jax.data.labeled.encoded import Encoded
from bert_jax.data.labeled.rows import TaskRows
from bert_jax.data.records.squad import Question

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class SpanOptions:
  """How contexts are cut and answers chosen.

  Attributes:
    doc_stride: tokens from the start of one window of a text to that of the
      next.
    max_query_length: most tokens of a question; the rest is cut off.
    max_answer_length: most tokens of an answer.
    n_best: number of answers that are kept for each question.
    null_threshold: no answer is given where its score (start and end logit)
      exceeds that of the best answer by more than this (SQuAD 2.0); None: there
      always is an answer (SQuAD 1.1).
  """

  doc_stride: int = 128
  max_query_length: int = 64
  max_answer_length: int = 30
  n_best: int = 20
  null_threshold: Signed | None = None

  def __post_init__(self):
    for name in ("doc_stride", "max_query_length", "max_answer_length",
                 "n_best"):
      if getattr(self, name) < 1:
        raise UserError(f"data.{name}={getattr(self, name)}: at least 1.")


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class EncodedSpans(Encoded):
  """Windows in tokens.

  Attributes:
    starts_T, ends_T: where in its context each token stands, in characters.
    own_begin_X, own_end_X: the tokens of each window, counted in its piece of
      the context, that no other window shows with more context around them.
  """

  starts_T: np.ndarray
  ends_T: np.ndarray
  own_begin_X: np.ndarray
  own_end_X: np.ndarray


class SpanRows(TaskRows):
  """Rows of windows; every window once in an epoch, packed.

  `SpanSet.keys` says what is in them.
  """

  def _row(self, encoded: EncodedSpans,
           example_E: np.ndarray) -> dict[str, np.ndarray]:
    row = super()._row(encoded, example_E)
    slices = encoded.slices
    for slot, window in enumerate(example_E[example_E >= 0].tolist()):
      count, first = slices.b_length_X[window], slices.b_start_X[window]
      # The context's piece is the last of a window, but for one [SEP].
      begin = np.flatnonzero(row["example_ids"] == slot + 1)[-1] - count
      row["answer_ends"][begin:begin + count] = (
          encoded.ends_T[first:first + count])
      own = slice(encoded.own_begin_X[window], encoded.own_end_X[window])
      row["answer_starts"][begin:begin + count][own] = (
          encoded.starts_T[first:first + count][own])
    return row


def encode(questions: Sequence[Question], options: SpanOptions,
           tokenizer: Any, length: int) -> EncodedSpans:
  """The windows of all questions, in their order.

  Raises:
    UserError: a question leaves no room for context.
  """
  asked = [np.array(ids, np.int32)
           for ids in tokenizer.encode([q.text for q in questions])]
  longer = sum(len(ids) > options.max_query_length for ids in asked)
  if longer:
    _LOG.warning("%d of %d questions are longer than data.max_query_length=%d "
                 "tokens; the rest is cut off.", longer, len(asked),
                 options.max_query_length)
  asked = [ids[:options.max_query_length] for ids in asked]
  contexts = {text: number for number, text in enumerate(dict.fromkeys(
      q.context for q in questions))}
  pieces = tokenizer.encode_offsets(list(contexts))
  context_of = [contexts[q.context] for q in questions]
  special = tokenizer.vocabulary.special_tokens(True)
  rooms = [length - special - len(ids) for ids in asked]
  if min(rooms) < 1:
    raise UserError(
        f"Rows of {length} tokens hold no context beside a question of "
        f"{length - special - min(rooms)} and {special} special tokens; set "
        "data.length to more, or data.max_query_length to less.")
  parts = [cut(len(pieces[c][0]), room, options.doc_stride)
         for c, room in zip(context_of, rooms)]
  question_X = np.repeat(np.arange(len(parts), dtype=np.int32),
                         [len(begin) for begin, _, _, _ in parts])
  begin_X, length_X, own_begin_X, own_end_X = (
      np.concatenate(part).astype(np.int32) for part in zip(*parts))
  starts = np.cumsum([0, *map(len, asked), *(len(p[0]) for p in pieces)])
  asked_X = np.array([len(ids) for ids in asked], np.int32)[question_X]
  # A question stands nowhere in its context: its places are never asked for.
  tokens_T, starts_T, ends_T = (
      np.concatenate([*asked, *(p[i] for p in pieces)]) for i in range(3))
  context_X = starts[len(asked) + np.array(context_of)[question_X]]
  first_X, last_X = _answered(questions, pieces, context_of)[:, question_X]
  inside_X = (first_X >= begin_X) & (last_X < begin_X + length_X)
  before_X = 1 + asked_X + tokenizer.vocabulary.pair_separators - begin_X
  return EncodedSpans(
      tokens_T, Examples(starts[question_X], asked_X, context_X + begin_X,
                         length_X,
                         separators=tokenizer.vocabulary.pair_separators),
      of_examples={"question_index": question_X},
      positions={
          "start_positions": np.where(inside_X, before_X + first_X, 0),
          "end_positions": np.where(inside_X, before_X + last_X, 0)},
      starts_T=starts_T, ends_T=ends_T, own_begin_X=own_begin_X,
      own_end_X=own_end_X)


def _answered(questions: Sequence[Question], pieces: Sequence[Any],
              context_of: Sequence[int]) -> np.ndarray:
  """First and last token of each question's first answer; -1 where none."""
  positions = np.full((2, len(questions)), -1, np.int32)
  for i, (question, context) in enumerate(zip(questions, context_of)):
    _, starts, ends = pieces[context]
    first = np.searchsorted(ends, question.start, side="right")
    last = np.searchsorted(starts, question.end) - 1
    if question.answers and first <= last:
      positions[:, i] = first, last
  return positions


def cut(count: int, room: int, stride: int) -> tuple[
    np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """The windows of `room` tokens at most over a context of `count`.

  Returns:
    Their begins and lengths; and begin and end, counted in the window, of the
    tokens that have more context in it than in any other (the shorter side
    counts, then the window's length, then the earlier window).
  """
  stride = min(stride, room)
  begins = np.arange(1 + -(-max(0, count - room) // stride)) * stride
  lengths = np.minimum(room, count - begins)
  token, number = np.arange(count), np.arange(len(begins))
  # No more windows than these show a token.
  last = np.minimum(token // stride, len(begins) - 1)
  shows = last + np.arange(1 - -(-room // stride), 1)[:, None]
  begin, size = (of_window[np.maximum(shows, 0)]
                 for of_window in (begins, lengths))
  left, right = token - begin, begin + size - 1 - token
  context = np.minimum(left, right) + 0.01 * size
  context[(left < 0) | (right < 0) | (shows < 0)] = -np.inf
  # A window's own tokens lie together, and windows own in their order.
  owner = last + np.argmax(context, axis=0) + 1 - len(shows)
  return (begins, lengths, np.searchsorted(owner, number) - begins,
          np.searchsorted(owner, number, side="right") - begins)


def over(start_X1: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray,
                                                  np.ndarray]:
  """The windows over texts that lie end to end, half a window apart.

  Args:
    start_X1: where each text begins, and the last ends.
    room: tokens of a window at most.

  Returns:
    The token at each place of all windows, end to end; whether it counts in
    this window, which it does in the one with most context around it; and
    where each window begins and the last ends.
  """
  parts = []
  for start, count in zip(start_X1.tolist(), np.diff(start_X1).tolist()):
    begins, lengths, own_begins, own_ends = (
        cut(count, room, max(1, room // 2)) if count > room else
        ([0], [count], [0], [count]))
    parts.append([np.add(begins, start), lengths, own_begins, own_ends])
  begin_W, length_W, own_begin_W, own_end_W = (
      np.concatenate(part) for part in zip(*parts))
  ends = np.cumsum(length_W)
  in_window = np.arange(ends[-1]) - np.repeat(ends - length_W, length_W)
  repeated = lambda of_window: np.repeat(of_window, length_W)
  return (repeated(begin_W) + in_window,
          (in_window >= repeated(own_begin_W))
          & (in_window < repeated(own_end_W)), np.concatenate([[0], ends]))
