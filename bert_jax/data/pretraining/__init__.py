"""Corpora of running text, and how rows are made of them."""
