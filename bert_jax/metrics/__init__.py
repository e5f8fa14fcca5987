"""Scores of predictions, and means as totals and weights."""
