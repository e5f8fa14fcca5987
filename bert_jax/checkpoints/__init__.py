"""What is saved of a run: manager, files, manifest, checksums."""
