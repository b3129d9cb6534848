"""Tests of kd_lightning.training."""
