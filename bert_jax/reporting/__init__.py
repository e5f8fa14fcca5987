"""Where numbers go: terminal, JSON lines, TensorBoard, plots, tables."""
