"""Arrays of numbers as data: images, signals, spectra, measurements."""

import dataclasses
import logging
from typing import ClassVar

import numpy as np

from bert_jax.config import Percent, UserError, nearest
from bert_jax.data.base import Data, Datasets
from bert_jax.data.labeled import base as labeled
from bert_jax.data.labeled.base import LabeledSet
from bert_jax.data.labeled.record_files import read_array
from bert_jax.data.labeled.texts import ClassificationSet, RegressionSet
from bert_jax.data.labeled.vectors import (
    VectorClasses, VectorNumbers, VectorSet, names_of, patches)
from bert_jax.data.tokenizers.base import LoadedTokenizer
from bert_jax.data.tokenizers.without_text import WithoutText

_LOG = logging.getLogger(__name__)
# What networks learn from easily: no further from 0, and no wider or narrower.
_FAR, _NARROW, _WIDE = 2.0, 0.1, 10.0


@dataclasses.dataclass(frozen=True)
class ArraysData(Data):
  """Arrays of numbers from npz or npy files, a sample along the first axis.

  A sample is cut into patches, each a vector of numbers for model.inputs=values.
  All of them fit into a row; nothing is cut off.

  Attributes:
    train: the file of the training samples.
    evaluation: the file of the samples to evaluate on; "": that of `train`.
    values: name of the array of samples in an npz file.
    labels: name of the array of their labels in the same npz file, or an npy
      file of its own.
    evaluation_values: the same of the samples to evaluate on; "": `values`. If
      neither this nor `evaluation` names others, `held_out_percent` of the
      training samples are held out.
    evaluation_labels: the same of their labels; "": `labels`.
    held_out_percent: percentage of the training samples that is held out for
      evaluation, chosen by the hash of their numbers.
    patch: size of a patch along each axis of a sample, from the first; the axes
      behind, as channels, belong to every patch as they are.
    mean: what is subtracted from the numbers: one, or one for each channel.
    deviation: what they are divided by then: one, or one for each channel.
    shots: few-shot training: number of training samples of each class (in all,
      where there are no classes); None: all of them.
    shots_seed: seed of the sample that `shots` draws.
  """

  length: int = 128
  train: str = ""
  evaluation: str = ""
  values: str = "x"
  labels: str = "y"
  evaluation_values: str = ""
  evaluation_labels: str = ""
  held_out_percent: Percent = 10.0
  patch: tuple[int, ...] = (1,)
  mean: tuple[float, ...] = (0.0,)
  deviation: tuple[float, ...] = (1.0,)
  shots: int | None = None
  shots_seed: int = 0

  # What holds vectors for each kind of labels.
  _sets: ClassVar = {None: VectorSet, ClassificationSet: VectorClasses,
                     RegressionSet: VectorNumbers}

  def __post_init__(self):
    if not self.deviation or min(self.deviation) <= 0:
      raise UserError("data.deviation="
                      f"{','.join(map(str, self.deviation))}: more than 0.")

  def prepare(self, seed: int, tokenizer: LoadedTokenizer | None,
              kind: type[LabeledSet] | None,
              labels: tuple[str, ...]) -> Datasets:
    train, evaluation = self.sets(kind, labels)
    train = labeled.subsample(train, self.shots, self.shots_seed)
    self._warn_of_scale(train)
    shape = WithoutText(), self.length, self.examples_per_row
    rows = (train.rows(*shape, seed),
            evaluation.rows(*shape, seed=0, shuffle=False))
    return Datasets(*rows, shape[0], *(
        (evaluation, train) if kind is not None else ()))

  def sets(self, kind: type[LabeledSet] | None,
           labels: tuple[str, ...]) -> tuple[VectorSet, VectorSet]:
    """The samples to train and to evaluate on."""
    if not self.train:
      raise UserError("data.train: name the npz or npy file of the training "
                      "samples, as in data.train=images.npz.")
    train = self._read(self.train, self.values, self.labels, kind, labels)
    if not (self.evaluation or self.evaluation_values):
      return labeled.split(train, self.held_out_percent)
    return train, self._read(
        self.evaluation or self.train, self.evaluation_values or self.values,
        self.evaluation_labels or self.labels, kind, train.label_names)

  def unlabeled(self, source: str, kind: type[LabeledSet] | None,
                labels: tuple[str, ...]) -> VectorSet:
    return dataclasses.replace(
        self._read(source, self.values, "", kind, labels), label_names=labels)

  def _read(self, source: str, values: str, labels: str,
            kind: type[LabeledSet] | None,
            label_names: tuple[str, ...]) -> VectorSet:
    """
    Args:
      labels: ""; none are read.
    """
    if kind not in self._sets:
      raise UserError(
          "data=arrays has a class or a number for each sample, not "
          f"{kind.kind} labels; set objective=classification, regression or "
          "reconstruction.")
    samples = read_array(source, values)
    _check_samples(source, samples)
    about = {}
    if labels and kind is not None:
      about = self._labels(source, labels, kind, label_names, len(samples))
    return self._sets[kind](
        names=names_of(samples), **about,
        values_XLJ=patches(self._standardized(source, samples), self.patch))

  def _standardized(self, source: str, samples: np.ndarray) -> np.ndarray:
    channels = samples.shape[-1]
    for name in ("mean", "deviation"):
      count = len(getattr(self, name))
      if count not in (1, channels):
        raise UserError(f"data.{name} has {count} numbers: give 1, or one for "
                        f"each of the {channels} channels, the last axis of "
                        f"{source}.")
    samples = samples.astype(np.float32)
    return ((samples - np.array(self.mean, np.float32))
            / np.array(self.deviation, np.float32))

  def _labels(self, source: str, name: str, kind: type[LabeledSet],
              label_names: tuple[str, ...], count: int) -> dict[str, object]:
    """The fields of a labeled set that its labels decide."""
    labels = read_array(name if name.endswith(".npy") else source, name)
    if labels.shape != (count,):
      raise UserError(f"data.labels={name}: {source} has {count} samples, and "
                      f"labels of shape {labels.shape}; expected ({count},).")
    if kind is RegressionSet:
      if labels.dtype.kind not in "iuf":
        raise UserError(f"data.labels={name}: objective=regression needs "
                        f"numbers, not {labels.dtype}.")
      return {"labels": labels.astype(np.float32)}
    if labels.dtype.kind not in "iubU":
      raise UserError(f"data.labels={name}: classes are whole numbers or "
                      f"strings, not {labels.dtype}.")
    # By value, so that 10 follows 9.
    distinct, number_X = np.unique(labels, return_inverse=True)
    here = tuple(map(str, distinct.tolist()))
    names = label_names or here
    for label in here:
      if label not in names:
        raise UserError(f"data.labels={name}: {source} has the label {label!r}"
                        + nearest(label, names))
    places = np.array([names.index(label) for label in here], np.int32)
    return {"labels": places[number_X], "label_names": names}

  def _warn_of_scale(self, train: VectorSet) -> None:
    mean, deviation = (float(f(train.values_XLJ, dtype=np.float64))
                       for f in (np.mean, np.std))
    if abs(mean) > _FAR or not _NARROW <= deviation <= _WIDE:
      _LOG.warning(
          "%s: the numbers that the network gets have a mean of %.4g and a "
          "standard deviation of %.4g. data.mean and data.deviation "
          "standardize them.", self.train, mean, deviation)


def _check_samples(source: str, samples: np.ndarray) -> None:
  if samples.dtype.kind not in "iufb":
    raise UserError(f"{source}: samples are numbers, not {samples.dtype}.")
  if samples.ndim < 2:
    raise UserError(f"{source}: an array of shape {samples.shape} has no axis "
                    "behind the one that counts the samples.")
  bad_X = ~np.isfinite(samples.reshape(len(samples), -1)).all(-1)
  if bad_X.any():
    raise UserError(f"{source}: {bad_X.sum()} of {len(samples)} samples have "
                    "numbers that are not finite, the first of them sample "
                    f"{int(bad_X.argmax())} (counted from 0).")
