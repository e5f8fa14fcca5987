"""One training step, its optimizers and schedules, and what it trains.

All optimizers are imported here, so that any can be chosen by name.
"""

from bert_jax.training import optax_optimizer, optimizers

__all__ = ["optax_optimizer", "optimizers"]
