"""Images with labels: sources that read them, benchmarks that split them, preprocessing."""
