"""Google's checkpoints of BERT, without TensorFlow.

A checkpoint is a table of names (`.index`: a sorted string table as LevelDB's,
whose values are messages of the protocol buffer BundleEntryProto) and files of
raw bytes (`.data-00000-of-00001`); see tensorflow/core/util/tensor_bundle and
tensorflow/core/protobuf/tensor_bundle.proto.
"""

import dataclasses
import glob
import pathlib
import re
import struct
from collections.abc import Iterator
from typing import Any

import google_crc32c
import ml_dtypes
import numpy as np

from bert_jax.config import UserError
from bert_jax.interop import hf_checkpoint, hf_config
from bert_jax.interop.hf_checkpoint import Params
from bert_jax.interop.hf_config import Architecture

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
_DTYPES = {1: np.float32, 2: np.float64, 3: np.int32, 9: np.int64,
           14: ml_dtypes.bfloat16, 19: np.float16}
# Google's names, and those of BERT's tensors in PyTorch.
_RENAMED = (
    (r"^bert/", ""),
    (r"layer_(\d+)", r"layer.\1"),
    (r"LayerNorm/gamma$", "LayerNorm/weight"),
    (r"LayerNorm/beta$", "LayerNorm/bias"),
    (r"^cls/predictions/output_bias$", "cls/predictions/bias"),
    (r"^cls/squad/output_", "qa_outputs/output_"),
    (r"^output_", "classifier/output_"),
    (r"/output_weights$", "/weight"),
    (r"/output_bias$", "/bias"),
    (r"/kernel$", "/weight"),
    (r"_embeddings$", "_embeddings/weight"),
    (r"/", "."),
)
# What the optimizer keeps beside the parameters.
_OPTIMIZER = (r"(/adam_[mv]|/Adam(_1)?|^global_step|^beta[12]_power|"
              r"^loss_scale|^good_steps)$")


def read(path: pathlib.Path) -> tuple[Architecture, Params]:
  """The network of a directory with bert_config.json and one checkpoint, and
  its parameters.

  Raises:
    UserError: something is missing, surplus or damaged.
  """
  indices = sorted(path.glob("*.index"))
  if len(indices) != 1:
    raise UserError(
        f"{path} holds {len(indices) or 'no'} checkpoints"
        f"{': ' if indices else ''}{', '.join(i.stem for i in indices)}; it "
        "should hold one, as bert_model.ckpt.index and "
        "bert_model.ckpt.data-00000-of-00001.")
  tensors = {}
  for name, array in read_bundle(indices[0]).items():
    if re.search(_OPTIMIZER, name):
      continue
    transposed = array.T if name.endswith("/kernel") else array
    for pattern, replacement in _RENAMED:
      name = re.sub(pattern, replacement, name)
    tensors[name] = transposed
  return hf_checkpoint.fitted(
      tensors, hf_config.read_json(path / "bert_config.json"),
      path / "bert_config.json")


@dataclasses.dataclass(frozen=True)
class Entry:
  """Where an array lies."""

  dtype: int
  shape: tuple[int, ...]
  shard: int
  offset: int
  size: int
  crc: int
  sliced: bool


def read_bundle(index: pathlib.Path) -> dict[str, np.ndarray]:
  """Every numeric array of a checkpoint, by name.

  Raises:
    UserError: a file is missing, damaged, or of an unknown kind.
  """
  arrays, files = {}, {}
  places = entries(index)
  for name, entry in places.items():
    if entry.dtype not in _DTYPES:  # Texts, as the newer format's graph.
      continue
    if entry.sliced:
      raise UserError(f"{index}: {name} is saved in slices, which is not read "
                      "here; save it whole.")
    if entry.shard not in files:
      files[entry.shard] = _shard(index, entry.shard)
    data = files[entry.shard][entry.offset:entry.offset + entry.size]
    dtype = np.dtype(_DTYPES[entry.dtype])
    if (len(data) != entry.size
        or entry.size != dtype.itemsize * int(np.prod(entry.shape))):
      raise UserError(f"{index}: {name} is cut off; copy the checkpoint again.")
    if _masked_crc32c(data) != entry.crc:
      raise UserError(f"{index}: the checksum of {name} is wrong; copy the "
                      "checkpoint again.")
    arrays[name] = np.frombuffer(data, dtype).reshape(entry.shape)
  return arrays


def _masked_crc32c(data: bytes | np.ndarray) -> int:
  """The checksum as TensorFlow stores it: rotated, and a constant added."""
  crc = google_crc32c.value(data)
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _shard(index: pathlib.Path, number: int) -> np.ndarray:
  shards = sorted(index.parent.glob(
      f"{glob.escape(index.stem)}.data-{number:05}-of-*"))
  if len(shards) != 1:
    raise UserError(f"{index.with_suffix('')}.data-{number:05}-of-... is "
                    "missing beside the index.")
  if not shards[0].stat().st_size:
    raise UserError(f"{shards[0]} is empty; copy the checkpoint again.")
  return np.memmap(shards[0], np.uint8, "r")


def entries(index: pathlib.Path) -> dict[str, Entry]:
  """The table of names; UserError if it is none."""
  data = index.read_bytes()
  if len(data) < _FOOTER or struct.unpack("<Q", data[-8:])[0] != _MAGIC:
    raise UserError(f"{index} is no index of a TensorFlow checkpoint.")
  try:
    entries_, footer = {}, _Reader(data[-_FOOTER:-8])
    footer.varint(), footer.varint()  # Where a table of filters would be.
    for _, handle in _block(data, footer, index):
      for name, value in _block(data, _Reader(handle), index):
        if name:  # The first is the header.
          entries_[name.decode()] = _entry(value)
    return entries_
  except (IndexError, KeyError, struct.error, UnicodeDecodeError) as error:
    raise UserError(f"{index} is damaged: {error!r}.") from None


class _Reader:
  """Reads numbers from bytes, one after another."""

  def __init__(self, data: bytes):
    self._data, self._place = data, 0

  def more(self) -> bool:
    return self._place < len(self._data)

  def varint(self) -> int:
    value = shift = 0
    while True:
      byte = self._data[self._place]
      self._place += 1
      value |= (byte & 127) << shift
      shift += 7
      if byte < 128:
        return value

  def bytes(self, count: int) -> bytes:
    data = self._data[self._place:self._place + count]
    if len(data) < count:
      raise IndexError("it ends too early")
    self._place += count
    return data


def _block(data: bytes, handle: _Reader,
           index: pathlib.Path) -> Iterator[tuple[bytes, bytes]]:
  """The (key, value) pairs of the block whose place and size come next."""
  offset, size = handle.varint(), handle.varint()
  block, trailer = data[offset:offset + size], data[offset + size:][:5]
  if trailer[0]:
    raise UserError(
        f"{index} is compressed (kind {trailer[0]}), which TensorFlow does not "
        "do to checkpoints and is not read here; save it with TensorFlow's "
        "own Saver.")
  crc, = struct.unpack("<I", trailer[1:])
  if _masked_crc32c(data[offset:offset + size + 1]) != crc:
    raise UserError(f"{index}: a checksum is wrong; copy the checkpoint again.")
  restarts, = struct.unpack("<I", block[-4:])
  reader, key = _Reader(block[:len(block) - 4 * (restarts + 1)]), b""
  while reader.more():
    shared, fresh, length = reader.varint(), reader.varint(), reader.varint()
    key = key[:shared] + reader.bytes(fresh)
    yield key, reader.bytes(length)


def _entry(message: bytes) -> Entry:
  fields = _message(message)
  one = lambda number, default=0: fields[number][-1] if number in fields else (
      default)
  shape = tuple(_message(dim).get(1, [0])[-1]
                for dim in _message(one(2, b"")).get(2, []))
  return Entry(one(1), shape, one(3), one(4), one(5), one(6), 7 in fields)


def _message(data: bytes) -> dict[int, list[Any]]:
  """The fields of a protocol buffer message, by number."""
  reader, fields = _Reader(data), {}
  while reader.more():
    number, kind = divmod(reader.varint(), 8)
    match kind:
      case 0:
        value = reader.varint()
      case 1:
        value, = struct.unpack("<Q", reader.bytes(8))
      case 2:
        value = reader.bytes(reader.varint())
      case 5:
        value, = struct.unpack("<I", reader.bytes(4))
      case _:
        raise IndexError(f"a field of the kind {kind}")
    fields.setdefault(number, []).append(value)
  return fields
