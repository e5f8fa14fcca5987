"""pytorch_model.bin, without torch and without executing what lies in it."""

import pathlib

import numpy as np


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
  raise NotImplementedError
