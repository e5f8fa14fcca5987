"""What Hugging Face calls tensors, and our paths: one table both ways.

Letters are dimensions, as everywhere: S are positions, T token types, W buckets
of distances, Q the two answers to "is it the next sentence", E is the width of
the embeddings, O is D again and J arrays of ours that lie in one of theirs.
Theirs stand in groups, "HK D" being a matrix (H * K, D). A name with `.N.` is
one of the layers, which our arrays hold together, N first.
"""

import dataclasses
import operator
from collections.abc import Mapping, Sequence

import ml_dtypes
import numpy as np

from bert_jax.config import UserError
from bert_jax.model.bert import BertConfig

_FLOATS = (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)
_LISTED = 20  # tensors named in an error, of each kind


@dataclasses.dataclass(frozen=True)
class Entry:
  """A tensor: its name and dimensions, our paths and dimensions.

  Attributes:
    name: as a class with a head has it, without what begins the names of all
      tensors of the encoder.
    groups: its dimensions.
    path: of ours; where theirs holds several arrays, with a {} for `parts`.
    letters: the dimensions of each of ours.
    parts: what stands for the {} in the paths of the arrays in theirs.
    first: what ours holds for layer 0, of which they have no tensor; None: they
      have one.
    when: an option of ours, of a network that has it, as in "norm.bias"; "":
      all have it.
  """

  name: str
  groups: str
  path: str
  letters: str
  parts: tuple[str, ...] = ()
  first: float | None = None
  when: str = ""

  @property
  def paths(self) -> tuple[str, ...]:
    return tuple(map(self.path.format, self.parts)) or (self.path,)

  @property
  def part(self) -> str:
    """As `part_of` its paths."""
    return part_of(self.path)

  def belongs_to(self, model: BertConfig) -> bool:
    return not self.when or bool(operator.attrgetter(self.when)(model))

  @property
  def layered(self) -> bool:
    return ".N." in self.name

  def names(self, layers: int) -> list[str]:
    """Of a network with parameters of `layers` layers."""
    if not self.layered:
      return [self.name]
    return [self.name.replace(".N.", f".{n}.")
            for n in range(self.first is not None, layers)]

  def their_shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(int(np.prod([self._size(c, sizes) for c in group]))
                 for group in self.groups.split())

  def to_ours(self, theirs: np.ndarray,
              sizes: Mapping[str, int]) -> list[np.ndarray]:
    """One array for each of the paths."""
    flat = self.groups.replace(" ", "")
    split = theirs.reshape([self._size(c, sizes) for c in flat])
    if self.parts:
      split = np.moveaxis(split, flat.index("J"), 0)
      flat = flat.replace("J", "")
    else:
      split = split[None]
    return [one.transpose([flat.index(c) for c in self.letters])
            for one in split]

  def to_theirs(self, ours: Sequence[np.ndarray],
                sizes: Mapping[str, int]) -> np.ndarray:
    """The inverse of `to_ours`."""
    letters = "J" * bool(self.parts) + self.letters
    joined = np.stack(ours) if self.parts else ours[0]
    split = joined.transpose([letters.index(c)
                              for c in self.groups.replace(" ", "")])
    return split.reshape(self.their_shape(sizes))

  def _size(self, letter: str, sizes: Mapping[str, int]) -> int:
    return len(self.parts) if letter == "J" else sizes[letter]


def part_of(path: str) -> str:
  """What a parameter belongs to: "encoder", "encoder/pooler", or a head."""
  head, _, rest = path.partition("/")
  return "encoder/pooler" if rest.startswith("pooler/") else head


def weight(name: str, path: str, inputs: str, outputs: str,
           parts: tuple[str, ...] = ()) -> Entry:
  """A linear layer without bias; torch.nn.Linear holds (outputs, inputs)."""
  return Entry(f"{name}.weight", f"{'J' * bool(parts)}{outputs} {inputs}",
               f"{path}/kernel", inputs + outputs, parts)


def linear(name: str, path: str, inputs: str, outputs: str,
           parts: tuple[str, ...] = (), biased: str = "", when: str = ""
           ) -> tuple[Entry, Entry]:
  """A linear layer with its bias.

  Args:
    when: as of Entry.
    biased: `when` it has a bias; "": always.
  """
  return (dataclasses.replace(weight(name, path, inputs, outputs, parts),
                              when=when),
          Entry(f"{name}.bias", "J" * bool(parts) + outputs, f"{path}/bias",
                outputs, parts, when=biased or when))


def norm(name: str, path: str, letter: str = "D", first: bool = True,
         biased: str = "") -> tuple[Entry, Entry]:
  """
  Args:
    first: whether they have one in layer 0; ours does nothing there.
    biased: `when` it has a bias.
  """
  return (Entry(f"{name}.weight", letter, f"{path}/scale", letter,
                first=None if first else 1.0),
          Entry(f"{name}.bias", letter, f"{path}/bias", letter,
                first=None if first else 0.0, when=biased))


def embedding(name: str, path: str, rows: str) -> Entry:
  return Entry(f"{name}.weight", f"{rows} E",
               f"encoder/embeddings/{path}/embedding", f"{rows}E")


def sizes(model: BertConfig, classes: int = 0) -> dict[str, int]:
  """The size of each dimension."""
  width, heads = model.hidden_size, model.num_attention_heads
  return {"V": model.vocab_size, "S": model.max_position_embeddings,
          "T": model.type_vocab_size, "D": width, "O": width,
          "E": model.embedding_width, "H": heads, "K": width // heads,
          "F": model.intermediate_size, "Q": 2, "1": 1, "C": classes,
          "W": getattr(model.positions, "buckets", 0)}


def to_ours(tensors: Mapping[str, np.ndarray], entries: Sequence[Entry],
            model: BertConfig, source: str,
            tied: Mapping[str, str]) -> dict[str, np.ndarray]:
  """Our parameters by their paths, float32.

  Args:
    tensors: under the names of the entries.
    entries: tensors of such a network.
    model: the options that they should fit.
    source: named in errors.
    tied: names of copies, which this network shares with what they copy.

  Raises:
    UserError: names every tensor that is missing, surplus or of another shape,
      or that holds something else than numbers.
  """
  tensors = _without_copies(tensors, tied)
  dimensions = sizes(model, _classes(entries, tensors))
  layers = model.parameter_layers
  entries = [entry for entry in entries if entry.belongs_to(model)]
  shapes = {name: entry.their_shape(dimensions) for entry in entries
            for name in entry.names(layers)}
  _check(shapes, tensors, source, tied)
  floats = _as_float32(tensors, source)
  params: dict[str, np.ndarray] = {}
  for entry in entries:
    arrays = [entry.to_ours(floats[name], dimensions)
              for name in entry.names(layers)]
    if entry.first is not None:
      shape = [dimensions[c] for c in entry.letters]
      arrays.insert(0, [np.full(shape, entry.first, np.float32)
                        for _ in entry.paths])
    for path, ours in zip(entry.paths, zip(*arrays)):
      params[path] = (np.stack(ours) if entry.layered
                      else np.ascontiguousarray(ours[0]))
  return params


def to_theirs(params: Mapping[str, np.ndarray], entries: Sequence[Entry],
              model: BertConfig, title: str) -> dict[str, np.ndarray]:
  """Their tensors, under the names of the entries, of parameters by paths.

  Args:
    entries: tensors; those of which `params` has nothing are left out.
    title: of the architecture, named in errors.

  Raises:
    UserError: names the parameters that it does not have.
  """
  known = {path for entry in entries for path in entry.paths}
  foreign = sorted(set(params) - known)
  if foreign:
    raise UserError(f"Hugging Face's {title} has nothing like the parameters "
                    + ", ".join(foreign) + ".")
  classes = params.get("classifier/bias", np.zeros(0)).shape[0]
  dimensions = sizes(model, classes)
  tensors = {}
  for entry in entries:
    if entry.paths[0] not in params:
      continue
    arrays = [np.asarray(params[path]) for path in entry.paths]
    skipped = int(entry.first is not None)
    for n, name in enumerate(entry.names(model.parameter_layers), skipped):
      one = [x[n] for x in arrays] if entry.layered else arrays
      tensors[name] = np.ascontiguousarray(entry.to_theirs(one, dimensions))
  return tensors


def _classes(entries: Sequence[Entry],
             tensors: Mapping[str, np.ndarray]) -> int:
  """How many outputs the classifier has."""
  return next((len(tensors[entry.name]) for entry in entries
               if entry.path == "classifier/bias" and entry.name in tensors), 0)


def _without_copies(tensors: Mapping[str, np.ndarray],
                    tied: Mapping[str, str]) -> dict[str, np.ndarray]:
  """Without the copies of tensors that are shared, if they are copies."""
  copies = [name for name, original in tied.items()
            if name in tensors and original in tensors
            and np.array_equal(tensors[name], tensors[original])]
  return {name: x for name, x in tensors.items() if name not in copies}


def _check(shapes: Mapping[str, tuple[int, ...]],
           tensors: Mapping[str, np.ndarray], source: str,
           tied: Mapping[str, str]) -> None:
  missing = [f"missing: {name} {shape}" for name, shape in shapes.items()
             if name not in tensors]
  surplus = [f"surplus: {name} {x.shape}" + (
      f" (differs from {tied[name]}; this network shares them)"
      if name in tied else "")
             for name, x in tensors.items() if name not in shapes]
  unlike = [f"{name}: expected {shape}, got {tensors[name].shape}"
            for name, shape in shapes.items()
            if name in tensors and tensors[name].shape != shape]
  if missing or surplus or unlike:
    raise UserError(f"The tensors of {source} are not those of its "
                    "configuration:\n  " + "\n  ".join(
                        [*_some(missing), *_some(surplus), *_some(unlike)]))


def _as_float32(tensors: Mapping[str, np.ndarray],
                source: str) -> dict[str, np.ndarray]:
  quantized = [f"{name}: {x.dtype}" for name, x in tensors.items()
               if x.dtype not in _FLOATS]
  if quantized:
    raise UserError(
        f"The tensors of {source} are not all of float16, bfloat16, float32 or "
        "float64. Quantized weights mean nothing without their scales; give "
        "the network before it was quantized:\n  "
        + "\n  ".join(_some(quantized)))
  with np.errstate(over="ignore"):
    floats = {name: x.astype(np.float32) for name, x in tensors.items()}
  counts = {name: np.count_nonzero(~np.isfinite(x))
            for name, x in floats.items()}
  wrong = [f"{name}: {count} of {floats[name].size}"
           for name, count in counts.items() if count]
  if wrong:
    raise UserError(f"The tensors of {source} hold values that are not finite "
                    "in float32:\n  " + "\n  ".join(_some(wrong)))
  return floats


def _some(lines: Sequence[str]) -> list[str]:
  more = len(lines) - _LISTED
  return [*lines[:_LISTED], *([f"... and {more} more"] if more > 0 else [])]
