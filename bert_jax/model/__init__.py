"""BERT in Flax Linen: pure init and apply, no files and no meshes."""
