"""Tests of kd_lightning.teachers."""
