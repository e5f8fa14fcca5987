"""Scores of a search among vectors."""

import math

import numpy as np

SCORES = "mrr", "recall_1", "recall_10"


def retrieval_scores(queries: np.ndarray,
                     passages: np.ndarray) -> dict[str, float]:
  """How well query i finds passage i among all, by the product of vectors.

  Args:
    queries, passages: (X, D).

  Passages as near as the right one count as nearer, but for copies of it. nan
  where there is no example.
  """
  ranks = []
  for begin in range(0, len(queries), 1024):
    block = queries[begin:begin + 1024] @ passages.T
    rows = np.arange(len(block))
    own = passages[begin + rows]
    score = block[rows, begin + rows]
    nearer = block >= score[:, None]
    for i in rows:
      rivals = np.flatnonzero(nearer[i])
      ranks.append(1 + (~(passages[rivals] == own[i]).all(-1)).sum())
  rank_X = np.array(ranks, np.float64)
  if not len(rank_X):
    return dict.fromkeys(SCORES, math.nan)
  return {"mrr": float((1 / rank_X).mean()),
          "recall_1": float((rank_X <= 1).mean()),
          "recall_10": float((rank_X <= 10).mean())}
