"""Which part of the network an operation belongs to, by Flax's module paths."""

import collections
import re

from bert_jax.analysis.topology.hlo import Operation, Program

# The first that matches an op_name; what a page defines lies at the path of
# its family. Names outside of the network are scopes of training.step.
_PARTS = tuple((re.compile(pattern), part) for pattern, part in (
    (r"_Module.*(dropout|random_bits|threefry|bernoulli|_drawn)", "dropout"),
    (r"layers/.*norm(/|$)", "norms"),
    (r"/attention/(query|key|value|output|qkv|projections?)(/|$)",
     "projections"),
    (r"/attention/|attention_kernel", "attention"),
    (r"/feed_forward/", "feed-forward"),
    (r"/layers/(while/body/(jit\()?dynamic_|broadcast_in_dim|while$)",
     "kept by the scan"),
    (r"/layers/", "layers, other"),
    (r"/embeddings(/|$)", "embeddings"),
    (r"_Module.*/(mlm|decoder)(/|$)|jvp\(\)", "vocabulary and loss"),
    (r"jvp", "heads and loss"),
    (r"/corruption(/|$)", "corruption"),
    (r"", "optimizer"),
))
# An operation that only moves what others compute is theirs.
_MOVING = {"kept by the scan", "copies"}
COPIES = "copies"


def part_of_name(op_name: str) -> str:
  """Of what is traced under this name."""
  if "/" not in op_name:  # The compiler's own.
    return COPIES
  return next(part for pattern, part in _PARTS if pattern.search(op_name))


def part(program: Program, operation: Operation) -> str:
  """Of a fusion: of its largest product, or else what has most of its
  results."""
  if operation.opcode in ("copy", "copy-start", "copy-done"):
    return COPIES
  return part_of_name(path(program, operation))


def path(program: Program, operation: Operation) -> str:
  """The op_name that stands for an operation, of those in a fusion."""
  inner = [op for op in program.inside(operation)
           if op.opcode not in ("parameter", "constant", "bitcast", "tuple")]
  products = [op for op in inner if op.opcode == "convolution"]
  if products:
    return max(products, key=_size).op_name
  counts: dict[str, int] = collections.Counter()
  for op in inner:
    counts[part_of_name(op.op_name)] += _size(op)
  computing = {name: count for name, count in counts.items()
               if name not in _MOVING}
  counts = computing or counts
  if not counts:
    return operation.op_name
  most = max(counts, key=counts.__getitem__)
  return max((op for op in inner if part_of_name(op.op_name) == most),
             key=_size).op_name


def _size(operation: Operation) -> int:
  return sum(array.bytes for array in operation.arrays)
