"""What a network is trained for: heads, corruption, losses and metrics.

All are imported here, so that a page may be given any of them by name.
"""

from bert_jax.objectives import (
    classification, embedding, mlm, regression, span)

__all__ = ["classification", "embedding", "mlm", "regression", "span"]
