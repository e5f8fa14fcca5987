"""The memory of the process, as XLA needs it on a CPU."""

import ctypes
import glob
import os
import sys

# Options of glibc's mallopt, by malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8


def keep() -> bool:
  """Has glibc keep memory that is freed, for the next allocation.

  XLA on a CPU allocates the temporary arrays of a program at each execution,
  one block of hundreds of megabytes, which glibc otherwise maps and returns:
  the kernel clears its pages in every step, a fifth of the step's time. Kept
  are what was in use at most and the gaps between, one to two such blocks.

  XLA's threads choose at their start where they allocate, so that it has an
  effect before the first array only. It is called where the package is
  imported, which all that computes begins with.

  Returns:
    Whether it did: on Linux with glibc, without an accelerator, unless
    BERT_JAX_KEEP_MEMORY=0 says not to.
  """
  accelerators = glob.glob("/dev/accel*") + glob.glob("/dev/nvidia[0-9]*") + (
      glob.glob("/dev/vfio/[0-9]*"))
  if (sys.platform != "linux" or os.environ.get("BERT_JAX_KEEP_MEMORY") == "0"
      or accelerators and os.environ.get("JAX_PLATFORMS") != "cpu"):
    return False
  library = ctypes.CDLL(None)
  if not hasattr(library, "gnu_get_libc_version"):
    return False
  # One arena: others map what is larger than 64 MB whatever they are set to.
  return all([library.mallopt(_M_MMAP_MAX, 0),
              library.mallopt(_M_ARENA_MAX, 1),
              library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1),
              library.mallopt(_M_TOP_PAD, 2**28)])
