"""Callbacks of a run: checkpoints, records, progress, dashboards, signals."""
