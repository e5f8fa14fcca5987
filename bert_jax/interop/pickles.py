"""pytorch_model.bin, without torch and without executing what lies in it.

`torch.save` writes a zip: data.pkl is a pickle of the tensors' shapes, which
names its storages, the raw files beside it. A pickle is a program that may call
any function of any module; here it may call those that tensors need, as they
are reimplemented below, and what names another is refused.
"""

import collections
import dataclasses
import io
import pathlib
import pickle
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


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
  """The tensors of a file of `torch.save`, by name.

  Raises:
    UserError: it is no such file, is damaged, or wants to call something else.
  """
  try:
    with zipfile.ZipFile(path) as archive:
      found = _Unpickler(archive, path).load()
  except zipfile.BadZipFile:
    raise UserError(
        f"{path} is no zip file, as PyTorch writes since 1.6. An older one can "
        "be converted where PyTorch is: torch.save(torch.load(f, "
        "weights_only=True), f).") from None
  except UserError:
    raise
  except (pickle.UnpicklingError, EOFError, KeyError, IndexError, TypeError,
          ValueError, AttributeError) as error:
    raise UserError(f"{path} is damaged, or no dictionary of tensors: "
                    f"{error}.") from None
  if not isinstance(found, dict):
    raise UserError(f"{path} holds no dictionary of tensors, but "
                    f"{type(found).__name__}.")
  tensors = {name: x for name, x in found.items() if isinstance(x, np.ndarray)}
  if len(tensors) < len(found):
    other = ", ".join(str(n) for n in found if n not in tensors)
    raise UserError(f"{path} is no dictionary of tensors alone; it also holds "
                    f"{other[:300]}.")
  return tensors


@dataclasses.dataclass(frozen=True)
class _Storage:
  """Stands for the class torch.FloatStorage and its like."""

  dtype: Any


class _Unpickler(pickle.Unpickler):
  """Calls nothing but what `find_class` gives."""

  def __init__(self, archive: zipfile.ZipFile, path: pathlib.Path):
    pickles = [n for n in archive.namelist() if n.endswith("/data.pkl")]
    if len(pickles) != 1:
      raise UserError(f"{path} is a zip file without a data.pkl; `torch.save` "
                      "writes one.")
    self._folder = pickles[0].removesuffix("data.pkl")
    self._archive, self._path = archive, path
    order = f"{self._folder}byteorder"
    if (order in archive.namelist()
        and archive.read(order).strip() != b"little"):
      raise UserError(f"{path} was written on a big-endian machine; that is "
                      "not read here.")
    super().__init__(io.BytesIO(archive.read(pickles[0])), encoding="utf-8")

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
    kind, storage, key, _, count = pid
    if kind != "storage" or not isinstance(storage, _Storage):
      raise pickle.UnpicklingError(f"{kind} is no storage")
    # The key is a file's name, which is looked up in the archive alone.
    data = self._archive.read(f"{self._folder}data/{key}")
    found = np.frombuffer(data, storage.dtype)
    if len(found) != count:
      raise pickle.UnpicklingError(
          f"storage {key} has {len(found)} elements, not {count}")
    return found


def _tensor(storage: np.ndarray, offset: int, size: Sequence[int],
            stride: Sequence[int], *_: Any) -> np.ndarray:
  """A view into a storage, in elements; checked, as strides may go astray."""
  if len(size) != len(stride) or min([offset, *size, *stride], default=0) < 0:
    raise pickle.UnpicklingError("a tensor of negative sizes")
  last = offset + sum((n - 1) * s for n, s in zip(size, stride))
  if 0 in size:
    return np.zeros(size, storage.dtype)
  if last >= len(storage):
    raise pickle.UnpicklingError("a tensor that is larger than its storage")
  width = storage.dtype.itemsize
  view = np.lib.stride_tricks.as_strided(
      storage[offset:], size, [s * width for s in stride], writeable=False)
  return np.ascontiguousarray(view).reshape(size)


def _parameter(tensor: np.ndarray, *_: Any) -> np.ndarray:
  return tensor


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter}
