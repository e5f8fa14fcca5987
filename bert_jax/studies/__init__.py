"""Several runs that are compared: sweep, GLUE suite, quickstart; protocols.

All protocols are imported here, so that each can be given by name.
"""

from bert_jax.studies import downstream, task_protocols, text_protocols

__all__ = ["downstream", "task_protocols", "text_protocols"]
