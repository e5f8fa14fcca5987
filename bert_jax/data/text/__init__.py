"""Documents and sentences from files, TFDS and the embedded text."""
