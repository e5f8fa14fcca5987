"""From text to batches: numpy and tokenizer libraries only, never jax."""
