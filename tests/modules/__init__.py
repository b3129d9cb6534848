"""Tests of kd_lightning.modules."""
