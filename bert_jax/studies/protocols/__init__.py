"""Named, versioned ways to get a score of a finished run."""
