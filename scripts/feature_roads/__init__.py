"""Networks, batches and the roads to per-sample features that the scripts set side by side."""
