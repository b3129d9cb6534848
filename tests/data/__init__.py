"""Tests of kd_lightning.data.mnist."""
