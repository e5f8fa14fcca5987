"""What a network is trained for: heads, corruption, losses and metrics."""
