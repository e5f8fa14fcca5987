"""From parameter paths to axes of the mesh."""

import dataclasses
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

from bert_jax.config import UserError
from bert_jax.model.constrain import constrained
from bert_jax.objectives.base import Batch
from bert_jax.objectives.network import Network
from bert_jax.training.param_paths import Rules, look_up, path_of

# Rows go over the first two axes; `tensor` splits heads, feed-forward and
# vocabulary (Megatron-LM), `fsdp` the other dimension of the large matrices.
# Small tables are everywhere: the vectors looked up in a part of a table go
# over the network, and are more than such a table.
# The leading axis of what lies below encoder/layers is the layer.
SHARDING_RULES: Rules[P] = (
    (r"embeddings/word_embeddings/embedding$", P("tensor", "fsdp")),
    (r"embeddings/(position|token_type)_embeddings/embedding$", P()),
    (r"attention/(query|key|value)/kernel$", P(None, "fsdp", "tensor", None)),
    (r"attention/(query|key|value)/bias$", P(None, "tensor", None)),
    (r"attention/output/kernel$", P(None, "tensor", None, "fsdp")),
    (r"layers/intermediate/kernel$", P(None, "fsdp", "tensor")),
    (r"layers/intermediate/bias$", P(None, "tensor")),
    (r"layers/output/kernel$", P(None, "tensor", "fsdp")),
    (r"mlm/bias$", P("tensor")),
    (r"norm/(scale|bias)$|(attention|layers)/output/bias$", P()),
    (r"(pooler|transform)/bias$", P()),
    (r"encoder/pooler/kernel$|mlm/transform/kernel$", P("fsdp", None)),
    (r"/lora_[ab]$", P()),
    # The heads of the tasks are small, and anyone may define one.
    (r"^((?!encoder/|mlm/).)*$", P()),
)


def shardings(tree: Any, mesh: Mesh) -> Any:
  """A NamedSharding for every leaf of a state (or of its parameters).

  An optimizer's moments lie as the parameters whose paths theirs end in;
  scalars are everywhere. A dimension that an axis does not divide stays whole.

  Raises:
    UserError: no rule matches a parameter; names it.
  """

  def place(keys: Any, leaf: Any) -> NamedSharding:
    if not leaf.shape:
      return NamedSharding(mesh, P())
    path = path_of(keys)
    path = path[path.find("encoder/"):] if "encoder/" in path else path
    try:
      spec = look_up(SHARDING_RULES, path)
    except ValueError:
      raise UserError(
          f"No rule says how the parameter {path!r} lies on several devices. "
          "Those that a page defines are best made in its objective's "
          "`logits`, outside of the encoder (they are copied to every device "
          "then); for one inside of it, add a line to SHARDING_RULES in "
          "bert_jax/parallel/rules.py.") from None
    return NamedSharding(mesh, P(*(
        axis if axis and size % mesh.shape[axis] == 0 else None
        for axis, size in zip(spec, leaf.shape))))

  return jax.tree_util.tree_map_with_path(place, tree)


@dataclasses.dataclass(frozen=True, eq=False)
class PlacedNetwork:
  """A network whose rows stay on the devices that have them in the batch.

  Left alone, the compiler may follow the parameters that fsdp splits instead,
  spread the width of the vectors over the devices and compute all rows on
  each. The network itself knows no mesh: it names places (model.constrain),
  and what happens there is decided here.
  """

  network: Network
  mesh: Mesh

  @property
  def objective(self) -> Any:
    return self.network.objective

  def init(self, *arguments: Any) -> Any:
    return self.network.init(*arguments)

  def apply(self, variables: Any, batch: Batch,
            keys_B: jax.Array | None = None) -> Any:
    with constrained(self._place):
      return self.network.apply(variables, batch, keys_B)

  def _place(self, x: jax.Array, name: str) -> jax.Array:
    # A device looks up its part of the width, for all rows that share the
    # parts; then the parts go to where the rows are. In one step the compiler
    # would copy everything everywhere.
    spec = {"rows": P(("data", "fsdp")), "looked_up_ids": P("data"),
            "looked_up": P("data", None, "fsdp")}[name]
    if name == "looked_up" and x.shape[-1] % self.mesh.shape["fsdp"]:
      return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, spec))
