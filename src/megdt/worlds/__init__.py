"""Ground truth: worlds that cameras look at, with everything that stands in them known."""
