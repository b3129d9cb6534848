"""A run's folder: its files and checkpoints, and what a resumed run may change."""
