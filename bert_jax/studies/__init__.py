"""Several runs that are compared: studies, sweeps, the GLUE suite, quickstart.

All protocols are imported here, so that each can be given by name.
"""

from bert_jax.studies.protocols import finetuning, tasks, text

__all__ = ["finetuning", "tasks", "text"]
