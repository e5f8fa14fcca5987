r"""What do fewer layers keep of a teacher? Soft targets (Hinton et al. 2015).

  bert-jax pretrain ablations/distillation init_from=runs/quickstart \
      --workdir runs/student

The teacher is the network of `init_from`, frozen; the student has `layers` of
its layers, newly initialized. On 2 CPU cores. Not measured.
"""

import dataclasses

import jax
import optax

from bert_jax import config
from bert_jax.model.heads import MlmHead
from bert_jax.objectives.base import weighted_sum
from bert_jax.objectives.mlm import Mlm


@dataclasses.dataclass(frozen=True)
class Distillation(Mlm):
  """Predict what the teacher predicts of the masked tokens."""

  layers: int = 1

  def networks(self, model):
    return {"teacher": model, "encoder": dataclasses.replace(
        model, num_hidden_layers=self.layers)}

  def origin(self, path):
    own = path.replace("teacher_mlm/", "mlm/").replace("teacher/", "encoder/")
    return own if own != path else ""

  def outputs(self, networks, batch, keys_B):
    teacher, student = networks["teacher"], networks["encoder"]
    head = MlmHead(teacher.options, name="teacher_mlm")
    targets = head(teacher(batch), batch["masked_positions"],
                   teacher.word_embeddings())
    return {"teacher": jax.lax.stop_gradient(targets), **self.logits(
        student, student(batch, keys_B), batch, keys_B)}

  def losses(self, outputs, batch):
    loss_BP = optax.softmax_cross_entropy(
        outputs["mlm"], jax.nn.softmax(outputs["teacher"]))
    return {"mlm": weighted_sum(loss_BP, batch["masked_weights"])}


experiment = config.override(
    config.load_page("quickstart").experiment,
    ["objective=distillation", "finetuning.frozen=^teacher"])
