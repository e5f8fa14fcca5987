"""What a network is trained for: heads, corruption, losses and metrics.

All are imported here, so that a page may be given any of them by name.
"""

from bert_jax.objectives import (
    causal, classification, denoising, distillation, embedding, mlm,
    permutation, phrases, prefix, reconstruction, regression, replaced_tokens,
    sentence_order, soft_labels, span)

__all__ = [
    "causal", "classification", "denoising", "distillation", "embedding", "mlm",
    "permutation", "phrases", "prefix", "reconstruction", "regression",
    "replaced_tokens", "sentence_order", "soft_labels", "span"]
