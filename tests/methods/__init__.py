"""Tests of kd_lightning.methods."""
