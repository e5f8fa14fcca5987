"""Records of files: tables, SQuAD, TFDS, and what is wrong in them."""
