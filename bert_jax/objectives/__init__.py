"""What a network is trained for: heads, corruption, losses and metrics.

All are imported here, so that a page may be given any of them by name.
"""

from bert_jax.objectives import mlm, several, span, tasks

__all__ = ["mlm", "several", "span", "tasks"]
