"""Kernels in Pallas for TPUs."""
