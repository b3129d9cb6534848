"""Scripts that are run, not imported."""
