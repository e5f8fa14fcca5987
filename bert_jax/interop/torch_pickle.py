"""pytorch_model.bin, without torch and without executing what lies in it.

`torch.save` writes a pickle of the tensors' shapes, which names its storages,
and these as raw bytes: since PyTorch 1.6 as files of a zip, before that one
after another. A pickle is a program that may call any function of any module;
here it may call those that tensors need, as they are reimplemented below, and
what names another is refused.
"""

import collections
import dataclasses
import io
import math
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from bert_jax.config import UserError

_DTYPES = {
    "Float": np.float32, "Double": np.float64, "Half": np.float16,
    "BFloat16": ml_dtypes.bfloat16, "Long": np.int64, "Int": np.int32,
    "Short": np.int16, "Char": np.int8, "Byte": np.uint8, "Bool": np.bool_}


# What the older files begin with (torch.serialization).
_MAGIC = 0x1950A86A20F9469CFC6C


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
  """The tensors of a file of `torch.save`, by name.

  Raises:
    UserError: it is not such a file, is damaged, or calls something else.
  """
  try:
    content = (_zipped if zipfile.is_zipfile(path) else _in_a_row)(path)
  except UserError:
    raise
  except OSError as error:
    raise UserError(f"{path}: {error.strerror or error}.") from None
  except Exception as error:  # Bytes of strangers may fail anywhere.
    raise UserError(f"{path} is damaged, or no dictionary of tensors: "
                    f"{error}.") from None
  if not isinstance(content, dict):
    raise UserError(f"{path} holds no dictionary of tensors, but "
                    f"{type(content).__name__}.")
  tensors = {name: np.ascontiguousarray(x).reshape(x.shape)
             for name, x in content.items() if isinstance(x, np.ndarray)}
  if len(tensors) < len(content):
    other = ", ".join(str(n) for n in content if n not in tensors)
    raise UserError(f"{path} is not a dictionary of tensors alone; it also "
                    f"holds {other[:300]}.")
  return tensors


def _zipped(path: pathlib.Path) -> Any:
  with zipfile.ZipFile(path) as archive:
    pickles = [n for n in archive.namelist() if n.endswith("/data.pkl")]
    if len(pickles) != 1:
      raise UserError(f"{path} is a zip file without a data.pkl; `torch.save` "
                      "writes one.")
    folder = pickles[0].removesuffix("data.pkl")
    order = f"{folder}byteorder"
    _check_order(path, order not in archive.namelist()
                 or archive.read(order).strip() == b"little")

    def storage(key: str, dtype: np.dtype, count: int) -> np.ndarray:
      # The key is a file's name, which is looked up in the archive alone.
      data = np.frombuffer(archive.read(f"{folder}data/{key}"), dtype)
      if len(data) != count:
        raise pickle.UnpicklingError(
            f"storage {key} has {len(data)} elements, not {count}")
      return data

    return _Unpickler(io.BytesIO(archive.read(pickles[0])), path,
                      storage).load()


def _in_a_row(path: pathlib.Path) -> Any:
  """Pickles of a number, a version, the machine, the tensors, and the names of
  the storages, which follow."""
  size, storages = path.stat().st_size, {}

  def storage(key: str, dtype: np.dtype, count: int) -> np.ndarray:
    if not 0 <= count * dtype.itemsize <= size:
      raise pickle.UnpicklingError(f"storage {key} is larger than the file")
    return storages.setdefault(key, np.zeros(count, dtype))

  with path.open("rb") as file:
    load = lambda: _Unpickler(file, path, storage).load()
    if load() != _MAGIC:
      raise UserError(f"{path} is not a file of `torch.save`.")
    load()
    _check_order(path, load()["little_endian"])
    content = load()
    for key in load():
      count, = struct.unpack("<q", file.read(8))
      if (count != len(storages[key]) or file.readinto(
          storages[key].view(np.uint8)) != storages[key].nbytes):
        raise pickle.UnpicklingError(f"storage {key} is cut off")
  return content


def _check_order(path: pathlib.Path, little: bool) -> None:
  if not little:
    raise UserError(f"{path} was written on a big-endian machine; that is "
                    "not read here.")


@dataclasses.dataclass(frozen=True)
class _Storage:
  """Stands for the class torch.FloatStorage and its like."""

  dtype: Any


class _Unpickler(pickle.Unpickler):
  """Calls nothing but what `find_class` gives."""

  def __init__(self, file: Any, path: pathlib.Path,
               storage: Callable[[str, np.dtype, int], np.ndarray]):
    """
    Args:
      path: named in errors.
      storage: gives that of a key, which may be filled later.
    """
    super().__init__(file, encoding="utf-8")
    self._path, self._storage = path, storage

  def find_class(self, module: str, name: str) -> Any:
    kind = name.removesuffix("Storage")
    if module == "torch" and name.endswith("Storage") and kind in _DTYPES:
      return _Storage(np.dtype(_DTYPES[kind]))
    if (module, name) in _ALLOWED:
      return _ALLOWED[module, name]
    raise UserError(
        f"{self._path} was not read: beside tensors it names {module}.{name}, "
        "which an unpickler would call. A file of weights has no use for it; "
        "do not open it with other programs either, or ask its author for "
        "model.safetensors.")

  def persistent_load(self, pid: Sequence[Any]) -> np.ndarray:
    """The storage that a tensor is a view of."""
    kind, storage, key, _, count, *view = pid
    if kind != "storage" or not isinstance(storage, _Storage) or any(view):
      raise pickle.UnpicklingError(f"{kind} is no storage of its own")
    return self._storage(key, storage.dtype, count)


def _tensor(storage: np.ndarray, offset: int, size: Sequence[int],
            stride: Sequence[int], *_: Any) -> np.ndarray:
  """A view into a storage, in elements; checked, as strides may go astray."""
  if len(size) != len(stride) or min([offset, *size, *stride], default=0) < 0:
    raise pickle.UnpicklingError("a tensor of negative sizes")
  last = offset + sum((n - 1) * s for n, s in zip(size, stride))
  if 0 in size:
    return np.zeros(size, storage.dtype)
  if last >= len(storage) or math.prod(size) > len(storage):
    raise pickle.UnpicklingError("a tensor that is larger than its storage")
  width = storage.dtype.itemsize
  return np.lib.stride_tricks.as_strided(
      storage[offset:], size, [s * width for s in stride], writeable=False)


def _parameter(tensor: np.ndarray, *_: Any) -> np.ndarray:
  return tensor


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter}
