"""Tests of kd_lightning.export."""
