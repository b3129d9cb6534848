"""Tests of kd_lightning.metrics.classification."""
