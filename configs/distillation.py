r"""A classifier of few layers that learns from a large one, the teacher.

  bert-jax finetune distillation --workdir runs/student \
      objective.teacher=runs/teacher init_from=runs/teacher \
      model.num_hidden_layers=3 finetuning.layers_from=0,2,4 \
      data.train=train.tsv data.evaluation=dev.tsv

The teacher is a fine-tuned run, frozen here; the student starts from some of
its layers (DistilBERT: Sanh et al. 2019) and learns its probabilities at a
temperature of 2 (Hinton et al. 2015). With objective.hidden_weight=1
objective.attention_weight=1 also its hidden states and attention, as TinyBERT
(Jiao et al. 2020). Rates are those of small networks. Not measured.
"""

from bert_jax import config

experiment = config.override(config.load_page("task").experiment, [
    "objective=distillation", "schedule.learning_rate=1e-4", "epochs=3"])
