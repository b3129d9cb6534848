"""Tests of kd_lightning.nets."""
