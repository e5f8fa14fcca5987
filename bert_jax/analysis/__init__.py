"""What is asked of a run: describe, replay, embed, predict."""
