"""What a model card says beside what its run recorded."""

import dataclasses
import re

from packaging.licenses import (
    InvalidLicenseExpression, canonicalize_license_expression)

from bert_jax.config import UserError, nearest
from bert_jax.data.labeled.base import LabeledSet
from bert_jax.interop import hub

# To show and to guess from; the library knows all.
_LICENSES = (
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0",
    "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "gpl-3.0", "lgpl-3.0",
    "agpl-3.0", "mpl-2.0", "unlicense", "other", "unknown")


def _detail(meaning: str) -> str:
  return dataclasses.field(default="", metadata={"help": meaning})


@dataclasses.dataclass(frozen=True)
class CardDetails:
  """What only the user knows; "" is "not recorded".

  Raises:
    UserError: a license that is not SPDX's, or a name that is none of the
      hub's.
  """

  data: str = _detail("what the network was trained on")
  data_license: str = _detail("license of that data")
  datasets: str = _detail("names of that data on the hub, by commas: "
                          "nyu-mll/glue")
  base_model: str = _detail("the hub's model that training started from; by "
                            "default, if init_from was imported from there")
  license: str = _detail("license of the weights, by its SPDX identifier, as "
                         "apache-2.0; or other, or unknown")
  language: str = _detail("language of the texts, as en")
  limits: str = _detail("known limits, beside those that the run shows")

  def __post_init__(self):
    if self.license:
      check_license(self.license)
    if self.base_model:
      hub.check_name(self.base_model, "base_model")
    for name in self.dataset_names:
      hub.check_name(name, "datasets")

  @property
  def dataset_names(self) -> list[str]:
    return [name.strip() for name in self.datasets.split(",") if name.strip()]


@dataclasses.dataclass(frozen=True)
class CardScore:
  """What a protocol said of a run.

  Attributes:
    protocol: with version and options, as "mlm@1 length=64".
    measure: what `value` is.
    checkpoint: that was scored, as `Checkpoint.name`.
    seeds: fine-tunings that `value` is the mean of; 1 where none is trained.
    deviation: their standard deviation; None: there is one.
    items: that were scored, as documents or examples; 0: not recorded.
    data: the fingerprint of these.
    split: what part of the data they are; "": not recorded.
    meaning: a sentence about the protocol; "": not recorded.
    kind: of the labels; None: it takes none.
  """

  protocol: str
  measure: str
  value: float
  checkpoint: str
  seeds: int = 1
  deviation: float | None = None
  items: int = 0
  data: str = ""
  split: str = ""
  meaning: str = ""
  kind: type[LabeledSet] | None = None


def check_license(name: str) -> None:
  """
  Raises:
    UserError: it is no identifier of SPDX, in small letters or as there, and
      none of the hub's own words for one that is not there.
  """
  hub_words = {"other", "unknown"}
  try:
    # An expression, or a name of one's own, is more than an identifier.
    known = name.lower() in hub_words or (
        re.fullmatch(r"(?!licenseref)[\w.-]+", name, re.IGNORECASE) and
        canonicalize_license_expression(name).lower() == name.lower())
  except InvalidLicenseExpression:
    known = False
  if not known:
    short = re.sub(r"\W*\blicen[sc]e\b\W*", " ", name.lower()).strip()
    raise UserError(f"license={name} is not SPDX's identifier of a license"
                    + nearest(short, _LICENSES)
                    + " Others are in SPDX's list of licenses.")
