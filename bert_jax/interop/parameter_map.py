"""What Hugging Face calls BERT's tensors, and our paths: one table both ways.

Letters are dimensions, as everywhere: S are positions, T token types, Q the
two answers to "is it the next sentence", E is D again. Theirs stand in groups,
"HK D" being a matrix (H * K, D). A name with `.N.` is one of the layers, which
our arrays hold together, N first.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence

import ml_dtypes
import numpy as np

from bert_jax.config import UserError
from bert_jax.model.bert import BertConfig

_FLOATS = (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)
_LISTED = 20  # tensors named in an error, of each kind


@dataclasses.dataclass(frozen=True)
class Entry:
  """A parameter: their name and dimensions, our path and dimensions."""

  name: str
  groups: str
  path: str
  letters: str

  @property
  def part(self) -> str:
    """What it belongs to: "encoder", "encoder/pooler", or a head."""
    head, _, rest = self.path.partition("/")
    return "encoder/pooler" if rest.startswith("pooler/") else head

  @property
  def layered(self) -> bool:
    return ".N." in self.name

  def their_shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(int(np.prod([sizes[c] for c in group]))
                 for group in self.groups.split())

  def to_ours(self, theirs: np.ndarray, sizes: Mapping[str, int]) -> np.ndarray:
    flat = self.groups.replace(" ", "")
    split = theirs.reshape([sizes[c] for c in flat])
    return split.transpose([flat.index(c) for c in self.letters])

  def to_theirs(self, ours: np.ndarray,
                sizes: Mapping[str, int]) -> np.ndarray:
    flat = self.groups.replace(" ", "")
    split = ours.transpose([self.letters.index(c) for c in flat])
    return split.reshape(self.their_shape(sizes))


def _linear(name: str, path: str, inputs: str,
            outputs: str) -> tuple[Entry, Entry]:
  """torch.nn.Linear holds (outputs, inputs)."""
  return (Entry(f"{name}.weight", f"{outputs} {inputs}", f"{path}/kernel",
                inputs + outputs),
          Entry(f"{name}.bias", outputs, f"{path}/bias", outputs))


def _norm(name: str, path: str) -> tuple[Entry, Entry]:
  return (Entry(f"{name}.weight", "D", f"{path}/scale", "D"),
          Entry(f"{name}.bias", "D", f"{path}/bias", "D"))


def _embedding(name: str, rows: str) -> Entry:
  return Entry(f"embeddings.{name}.weight", f"{rows} D",
               f"encoder/embeddings/{name}/embedding", f"{rows}D")


_LAYER, _LAYERS = "encoder.layer.N", "encoder/layers"

TABLE: tuple[Entry, ...] = (
    _embedding("word_embeddings", "V"),
    _embedding("position_embeddings", "S"),
    _embedding("token_type_embeddings", "T"),
    *_norm("embeddings.LayerNorm", "encoder/embeddings/norm"),
    *(entry for name in ("query", "key", "value") for entry in _linear(
        f"{_LAYER}.attention.self.{name}", f"{_LAYERS}/attention/{name}",
        "D", "HK")),
    *_linear(f"{_LAYER}.attention.output.dense", f"{_LAYERS}/attention/output",
             "HK", "D"),
    *_norm(f"{_LAYER}.attention.output.LayerNorm", f"{_LAYERS}/attention_norm"),
    *_linear(f"{_LAYER}.intermediate.dense", f"{_LAYERS}/intermediate",
             "D", "F"),
    *_linear(f"{_LAYER}.output.dense", f"{_LAYERS}/output", "F", "D"),
    *_norm(f"{_LAYER}.output.LayerNorm", f"{_LAYERS}/output_norm"),
    Entry("pooler.dense.weight", "E D", "encoder/pooler/kernel", "DE"),
    Entry("pooler.dense.bias", "D", "encoder/pooler/bias", "D"),
    Entry("cls.predictions.transform.dense.weight", "E D",
          "mlm/transform/kernel", "DE"),
    Entry("cls.predictions.transform.dense.bias", "D", "mlm/transform/bias",
          "D"),
    *_norm("cls.predictions.transform.LayerNorm", "mlm/norm"),
    Entry("cls.predictions.bias", "V", "mlm/bias", "V"),
    *_linear("cls.seq_relationship", "nsp", "D", "Q"),
    *_linear("classifier", "classifier", "D", "C"),
)

# Other names of the same tensors: of old releases, and RoBERTa's. RoBERTa's
# classifier of texts holds what BERT calls its pooler.
_RENAMED = (
    (r"^(bert|roberta)\.", ""),
    (r"LayerNorm\.gamma$", "LayerNorm.weight"),
    (r"LayerNorm\.beta$", "LayerNorm.bias"),
    (r"^lm_head\.dense\.", "cls.predictions.transform.dense."),
    (r"^lm_head\.layer_norm\.", "cls.predictions.transform.LayerNorm."),
    (r"^lm_head\.", "cls.predictions."),
    (r"^classifier\.dense\.", "pooler.dense."),
    (r"^classifier\.out_proj\.", "classifier."),
    (r"^qa_outputs\.", "classifier."),
)
# The way back, of the classes that call them so.
_ROBERTA = (
    (r"^cls\.predictions\.transform\.dense\.", "lm_head.dense."),
    (r"^cls\.predictions\.transform\.LayerNorm\.", "lm_head.layer_norm."),
    (r"^cls\.predictions\.", "lm_head."),
)
_THEIR_NAMES = (
    (r"^Roberta", _ROBERTA),
    (r"^RobertaForSequenceClassification$", (
        (r"^classifier\.", "classifier.out_proj."),
        (r"^pooler\.dense\.", "classifier.dense."))),
    (r"ForQuestionAnswering$", ((r"^classifier\.", "qa_outputs."),)),
)
# No parameters: what can be counted, and the decoder, which is the word table.
_BUFFERS = r"^embeddings\.(position_ids|token_type_ids)$"
_TIED = {"cls.predictions.decoder.weight": "embeddings.word_embeddings.weight",
         "cls.predictions.decoder.bias": "cls.predictions.bias"}


def common_name(name: str) -> str:
  """The name of the table, for any that is in use."""
  for pattern, replacement in _RENAMED:
    name = re.sub(pattern, replacement, name)
  return name


def their_name(name: str, architecture: str, prefix: str) -> str:
  """The name that a class has for one of the table's."""
  for pattern, renamed in _THEIR_NAMES:
    if re.search(pattern, architecture):
      for old, new in renamed:
        name, changed = re.subn(old, new, name)
        if changed:
          break
  inside = re.match(r"(embeddings|encoder|pooler)\.", name)
  return f"{prefix}{name}" if inside else name


def sizes(model: BertConfig, classes: int = 0) -> dict[str, int]:
  """The size of each dimension."""
  width, heads = model.hidden_size, model.num_attention_heads
  return {"V": model.vocab_size, "S": model.max_position_embeddings,
          "T": model.type_vocab_size, "D": width, "E": width, "H": heads,
          "K": width // heads, "F": model.intermediate_size, "Q": 2,
          "C": classes}


def parts(tensors: Mapping[str, np.ndarray]) -> set[str]:
  """The parts of which at least one tensor is there."""
  return {entry.part for entry in TABLE
          if any(name in tensors for name in _names(entry, 1))}


def to_ours(tensors: Mapping[str, np.ndarray], model: BertConfig,
            selected: set[str], source: str) -> dict[str, np.ndarray]:
  """Our parameters by their paths, float32.

  Args:
    tensors: under the table's names.
    model: the options that they should fit.
    selected: the parts to take.
    source: named in errors.

  Raises:
    UserError: names every tensor that is missing, surplus or of another shape,
      or that holds something else than numbers.
  """
  tensors = {name: tensor for name, tensor in tensors.items()
             if not re.search(_BUFFERS, name)}
  tensors = _without_tied(tensors)
  classes = (len(tensors["classifier.bias"]) if "classifier.bias" in tensors
             else 0)
  dimensions = sizes(model, classes)
  entries = [entry for entry in TABLE if entry.part in selected]
  shapes = {name: entry.their_shape(dimensions) for entry in entries
            for name in _names(entry, model.num_hidden_layers)}
  _check(shapes, tensors, source)
  floats = _as_float32(tensors, source)

  def ours(entry: Entry) -> np.ndarray:
    arrays = [entry.to_ours(floats[name], dimensions)
             for name in _names(entry, model.num_hidden_layers)]
    return np.stack(arrays) if entry.layered else (
        np.ascontiguousarray(arrays[0]))

  return {entry.path: ours(entry) for entry in entries}


def to_theirs(params: Mapping[str, np.ndarray],
              model: BertConfig) -> dict[str, np.ndarray]:
  """Their tensors, under the table's names, of parameters by their paths.

  Raises:
    UserError: names the parameters that BERT does not have.
  """
  foreign = sorted(set(params) - {entry.path for entry in TABLE})
  if foreign:
    raise UserError("Hugging Face's BERT has nothing like the parameters "
                    + ", ".join(foreign) + ".")
  classes = params.get("classifier/bias", np.zeros(0)).shape[0]
  dimensions = sizes(model, classes)
  tensors = {}
  for entry in TABLE:
    if entry.path not in params:
      continue
    array = np.asarray(params[entry.path])
    for name, one in zip(_names(entry, model.num_hidden_layers),
                         array if entry.layered else [array]):
      tensors[name] = np.ascontiguousarray(entry.to_theirs(one, dimensions))
  return tensors


def _names(entry: Entry, layers: int) -> Iterator[str]:
  if entry.layered:
    yield from (entry.name.replace(".N.", f".{n}.") for n in range(layers))
  else:
    yield entry.name


def _without_tied(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Without the copies of tensors that are shared, if they are copies."""
  copies = [name for name, original in _TIED.items()
            if name in tensors and original in tensors
            and np.array_equal(tensors[name], tensors[original])]
  return {name: x for name, x in tensors.items() if name not in copies}


def _check(shapes: Mapping[str, tuple[int, ...]],
           tensors: Mapping[str, np.ndarray], source: str) -> None:
  missing = [f"missing: {name} {shape}" for name, shape in shapes.items()
             if name not in tensors]
  surplus = [f"surplus: {name} {x.shape}" + (
      f" (differs from {_TIED[name]}; this network shares them)"
      if name in _TIED else "")
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
