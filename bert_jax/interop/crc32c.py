"""CRC-32C (Castagnoli), which TensorFlow's checkpoints are secured by.

A checksum is linear in the bits, so that pieces of the same length are worked
on side by side, two bytes of each at a time, and then joined two by two.
"""

import functools

import numpy as np

_POLYNOMIAL = 0x82F63B78


def masked(data: bytes | memoryview) -> int:
  """The checksum as TensorFlow stores it: rotated, and a constant added."""
  crc = crc32c(data)
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes | memoryview) -> int:
  """The checksum of bytes."""
  whole = np.frombuffer(data, np.uint8)
  if len(whole) < 4:
    crc = 0xFFFFFFFF
    for byte in whole.tolist():
      crc = int(_table(1)[(crc ^ byte) & 255]) ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF
  # About as many pieces as bytes in a piece, both powers of two. Zeros in
  # front change nothing where a checksum starts from zeros; starting from ones
  # is turning the first four bytes around.
  bits = (len(whole) - 1).bit_length()
  length, pieces = 2 << bits // 2, 1 << max(0, bits - 1 - bits // 2)
  padded = np.zeros(length * pieces, np.uint8)
  start = len(padded) - len(whole)
  padded[start:] = whole
  padded[start:start + 4] ^= 255
  columns = np.ascontiguousarray(padded.view("<u2").reshape(pieces, -1).T)
  crcs, table = np.zeros(pieces, np.uint32), _table(2)
  for column in columns:
    crcs = table[(crcs ^ column) & 0xFFFF] ^ (crcs >> 16)
  while len(crcs) > 1:
    crcs = _times(_shift(length), crcs[::2]) ^ crcs[1::2]
    length *= 2
  return int(crcs[0]) ^ 0xFFFFFFFF


@functools.cache
def _table(width: int) -> np.ndarray:
  """What so many bytes make of a checksum."""
  crcs = np.arange(1 << 8 * width, dtype=np.uint32)
  for _ in range(8 * width):
    crcs = np.where(crcs & 1, (crcs >> 1) ^ np.uint32(_POLYNOMIAL), crcs >> 1)
  return crcs


def _times(matrix: np.ndarray, crcs: np.ndarray) -> np.ndarray:
  """Sums of what becomes of each of their bits."""
  found = np.zeros_like(crcs)
  for bit in range(32):
    found ^= np.where(crcs >> np.uint32(bit) & 1, matrix[bit], np.uint32(0))
  return found


@functools.cache
def _shift(length: int) -> np.ndarray:
  """What becomes of each bit of a checksum after `length` further zero bytes,
  a power of two."""
  if length > 1:
    half = _shift(length // 2)
    return _times(half, half)
  bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
  return _table(1)[bits & 255] ^ (bits >> 8)
