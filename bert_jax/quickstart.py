"""The main job in small: read text, then solve a task better for it."""

