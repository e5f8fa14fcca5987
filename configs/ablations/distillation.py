r"""What do fewer layers keep of a pretrained teacher? DistilBERT (Sanh et al.
2019).

  bert-jax pretrain ablations/distillation init_from=runs/quickstart \
      objective.teacher=runs/quickstart model.num_hidden_layers=1 \
      finetuning.layers_from=0 --workdir runs/student

The student starts from one layer of the teacher and learns what the teacher
predicts at masked tokens (weight 5), the tokens themselves (2) and the
direction of its last hidden states (1); objective.layer_map=1:2 pairs layer 1
of the student with layer 2 of a teacher of two. On 2 CPU cores. Not measured.
"""

from bert_jax import config

experiment = config.override(
    config.load_page("quickstart").experiment, [
        "objective=mlm_distillation", "objective.soft_weight=5",
        "objective.hard_weight=2", "objective.hidden_weight=1",
        "objective.hidden_loss=cosine", "objective.layer_map=1:2"])
