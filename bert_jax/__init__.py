"""BERT for research in JAX: from raw text to a solved task."""
