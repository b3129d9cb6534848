"""Tests of kd_lightning.reports."""
