"""Tokenizers: those to choose from, and those that are loaded."""
