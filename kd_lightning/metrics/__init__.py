"""What is measured: test metrics and costs."""
