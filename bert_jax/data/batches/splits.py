"""Which examples and documents are held out for evaluation."""

import hashlib


def held_out(name: str, percent: float) -> bool:
  """Whether what is so named belongs to the held-out part; the one split law.

  A hash decides, so the answer never depends on order or on other documents.
  """
  digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
  return int.from_bytes(digest, "big") < percent / 100 * 2**64
