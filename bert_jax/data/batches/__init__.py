"""Rows and batches: row i of epoch e becomes batch of step s."""
