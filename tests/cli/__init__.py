"""Tests of kd_lightning.cli.command_line."""
