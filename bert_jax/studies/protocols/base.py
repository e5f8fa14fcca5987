"""Protocols: named, versioned ways to get a score of a finished run."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from bert_jax import config
from bert_jax.config import Choice, UserError
from bert_jax.data.labeled.base import LabeledSet
from bert_jax.experiment import Experiment, Run
from bert_jax.studies.protocols.scores import Score

# From parameters to what the protocol says of them.
Scorer = Callable[[Any], Score]


class Protocol(Choice):
  """One way to get a score; its options are part of its title.

  A change of what a member does with the same options is another `version`.
  """

  version: ClassVar[int] = 1
  # Options that say where something lies, which is no part of the title.
  places: ClassVar[tuple[str, ...]] = ()
  # What part of the data is scored; "": it does not say.
  split: ClassVar[str] = ""

  @property
  def named(self) -> str:
    """Name and version, as "mlm@1"."""
    return f"{self.choice_name}@{self.version}"

  @property
  def title(self) -> str:
    """As "mlm@1 length=64", with the options that differ from the defaults."""
    changes = config.changes(type(self)(), self)
    return " ".join([self.named, *(
        change for change in changes
        if change.partition("=")[0] not in self.places)])

  @classmethod
  def parse(cls, title: str) -> "Protocol":
    """Of a title; the version may be left out, and options of `places` added.

    The name of a page, as my_task.py, is the protocol `page` of that page.

    Raises:
      UserError: there is none of that name or version.
    """
    name, *assignments = title.split() or [""]
    name, _, version = name.partition("@")
    if name.endswith(".py"):
      name, assignments = "page", [f"page={name}", *assignments]
    member = cls.member(name, "protocol", config.visible_modules())
    protocol = config.override(member(), assignments)
    name, _, here = protocol.named.rpartition("@")
    if version not in ("", here):
      raise UserError(f"{title}: {name} is of version {here} here.")
    return protocol

  def fit(self, experiments: Sequence[Experiment]) -> "Protocol":
    """With what the compared experiments decide, as the length of rows."""
    return self

  def label_kind(self) -> type[LabeledSet] | None:
    """Of the task that it scores; None: the network itself is asked."""
    return None

  def data(self, run: Run) -> str | None:
    """The fingerprint of what it scores a run on, as `Score.data`; None: that
    is not known before."""
    return None

  def check(self) -> None:
    """
    Raises:
      UserError: what it needs, as files of a task, is not there.
    """

  def for_curves(self) -> "Protocol":
    """On a part of the items where all take long; its title begins alike."""
    return self

  def scorer(self, run: Run) -> Scorer | None:
    """Scores parameters of the run while it trains; None: it has to end."""
    return None

  def score(self, run: Run, params: Any, workdir: pathlib.Path) -> Score:
    """The score of a finished run.

    Args:
      params: of its checkpoint, on the host or the devices.
      workdir: of the run; what is trained for the score goes below it.
    """
    scorer = self.scorer(run)
    if scorer is None:
      raise NotImplementedError
    return scorer(params)
