"""Arrays in the files of numpy: npz and npy, never pickles.

Nothing here opens a file: `labeled.record_files` does.
"""

import io
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np

from bert_jax.config import UserError, nearest


def parse_arrays(source: str, content: bytes) -> Mapping[str, np.ndarray]:
  """The arrays of an npz file by name; that of an npy file has the name "".

  An npz file's are read when they are looked up.

  Raises:
    UserError: it is neither, or holds pickled objects, which run code when they
      are read.
  """
  try:
    loaded = np.load(io.BytesIO(content), allow_pickle=False)
  except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
    raise _unreadable(source, "", error) from None
  return {"": loaded} if isinstance(loaded, np.ndarray) else loaded


def array_named(source: str, arrays: Mapping[str, np.ndarray],
                name: str) -> np.ndarray:
  """
  Raises:
    UserError: there is none of that name, or it holds objects.
  """
  if "" in arrays:  # The only one, of an npy file.
    return arrays[""]
  if name not in arrays:
    raise UserError(f"{source}: no array {name!r}" + nearest(name, [*arrays]))
  try:
    return arrays[name]
  except (ValueError, EOFError, OSError, zlib.error,
          zipfile.BadZipFile) as error:
    raise _unreadable(source, f", array {name!r}", error) from None


def _unreadable(source: str, part: str, error: Exception) -> UserError:
  return UserError(
      f"{source}{part}: arrays are read from npz and npy files of numbers or "
      f"strings, and never from pickles, which can run any code ({error}).")
