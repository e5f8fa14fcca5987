"""Records of TFDS data sets, without TensorFlow."""

import contextlib
import importlib
import re
from collections.abc import Sequence
from typing import Any

from bert_jax.config import UserError, nearest


def tfds_name(spec: str) -> tuple[str, str]:
  """(name, split or "") of tfds:NAME[:VERSION][:SPLIT]; a slice has colons."""
  match = re.fullmatch(r"tfds:([^:]+(?::\d+\.\d+\.\d+)?)(?::(.+))?", spec)
  if not match:
    raise UserError(f"{spec}: write tfds:NAME or tfds:NAME:SPLIT.")
  return match[1], match[2] or ""


def tfds_records(name: str, split: str = "train") -> Sequence[dict]:
  """The records of a TFDS data set, with random access and without TensorFlow.

  Raises:
    UserError: no such data set or split, or one that only TensorFlow can read.
  """
  import tensorflow_datasets as tfds
  try:
    builder = _tfds_builder(tfds, name)
    if not builder.is_prepared():
      builder.download_and_prepare(file_format="array_record")
    if split.partition("[")[0] not in [*builder.info.splits, "all"]:
      raise UserError(f"tfds:{name} has no split {split!r}"
                      + nearest(split, builder.info.splits))
    return builder.as_data_source(split)
  except ImportError as error:
    raise UserError(
        f"tfds:{name} can only be prepared with a package that is missing: "
        f"{error}. TensorFlow comes with `pip install bert_jax[tensorflow]`."
    ) from None
  except NotImplementedError as error:
    raise UserError(
        f"tfds:{name} was prepared in a format that needs TensorFlow; prepare "
        f"it again with file_format='array_record' ({error}).") from None
  except OSError as error:
    raise UserError(f"tfds:{name} cannot be fetched or read: {error}"
                    ) from None


def _tfds_builder(tfds: Any, name: str) -> Any:
  # Data sets of this folder register when they are imported, not before.
  with contextlib.suppress(ImportError):
    importlib.import_module(
        f"tensorflow_datasets.text.{re.split('[/:]', name)[0]}")
  try:
    return tfds.builder(name)
  except tfds.core.DatasetNotFoundError:
    names = tfds.list_builders(with_community_datasets=False)
    close = nearest(name, names).partition(" Valid:")[0].rstrip(".")
    raise UserError(f"TFDS has no data set {name!r}{close}.") from None
