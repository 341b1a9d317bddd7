"""A look at a table before training: what is in it, exactly or as noisy histograms."""
