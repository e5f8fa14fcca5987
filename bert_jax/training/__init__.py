"""One training step, its optimizers, its schedules, its layout on devices."""
