"""Tests of kd_lightning.runs."""
