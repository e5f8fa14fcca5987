"""One run: train, loop, evaluation, initialization, logging, anomalies."""
