"""Labeled sets: a class for each kind of label."""
