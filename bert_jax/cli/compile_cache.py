"""What jax compiled is kept on disk, so that the next start takes no time.

Jax writes an entry at its final place and never again while one is there. One
that was cut off, by a kill or a full disk, would at every start be read,
refused with a warning, and compiled anew: so it is removed.
"""

import contextlib
import pathlib
import zlib
from typing import Any

import jax

_LEAST_SECONDS = 1.0  # what compiles faster is not kept
_CHUNK_BYTES = 1 << 20


def keep(folder: pathlib.Path) -> None:
  """Has compiled functions kept in a folder, and takes from there."""
  # Jax itself goes on without a cache where it cannot be read or written.
  with contextlib.suppress(OSError):
    _remove_damaged(folder)
  jax.config.update("jax_compilation_cache_dir", str(folder))
  jax.config.update("jax_persistent_cache_min_compile_time_secs",
                    _LEAST_SECONDS)


def _remove_damaged(folder: pathlib.Path) -> None:
  """Looks at what was written since it was last looked at.

  An entry that another process is just writing may go too; it is compiled
  once more then.
  """
  looked = folder / "looked"
  since = looked.stat().st_mtime if looked.exists() else 0.0
  folder.mkdir(parents=True, exist_ok=True)
  looked.touch()  # Before: what comes now is looked at the next time.
  for path in folder.glob("*-cache"):
    if path.stat().st_mtime >= since and not _is_whole(path):
      path.unlink(missing_ok=True)


def _is_whole(path: pathlib.Path) -> bool:
  decompressor = _decompressor()
  with path.open("rb") as file:
    try:
      while not decompressor.eof and (chunk := file.read(_CHUNK_BYTES)):
        decompressor.decompress(chunk)
    except Exception:  # Each library has its own.
      return False
  return decompressor.eof


def _decompressor() -> Any:
  """Of the library that jax compresses with: the first of these there is."""
  with contextlib.suppress(ModuleNotFoundError):
    from compression import zstd
    return zstd.ZstdDecompressor()
  with contextlib.suppress(ModuleNotFoundError):
    import zstandard
    return zstandard.ZstdDecompressor().decompressobj()
  return zlib.decompressobj()
