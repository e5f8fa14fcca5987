"""Which examples and documents are held out for evaluation."""

import hashlib
from collections.abc import Sequence

# A split of fewer names is exact; of more, chance gives about the share.
FEW = 1000


def held_out(name: str, percent: float) -> bool:
  """Whether what is so named belongs to the held-out part; the one split law.

  A hash decides, so the answer never depends on order or on other documents.
  """
  return _hash(name) < percent / 100 * 2**64


def held_out_names(names: Sequence[str], percent: float) -> frozenset[str]:
  """Those that are held out: by the law, but exactly the share of `FEW`.

  Of these, the ones of the least hashes: larger shares contain smaller ones.
  At least one is left to train on, and then at least one is held out, unless
  the share is all or nothing.
  """
  distinct = frozenset(names)
  if len(distinct) >= FEW:
    return frozenset(name for name in distinct if held_out(name, percent))
  count = round(percent / 100 * len(distinct))
  if 0 < percent < 100:
    count = min(max(count, 1), len(distinct) - 1)
  return frozenset(sorted(distinct, key=_hash)[:count])


def _hash(name: str) -> int:
  digest = hashlib.blake2b(name.encode(errors="surrogatepass"),
                           digest_size=8).digest()
  return int.from_bytes(digest, "big")
