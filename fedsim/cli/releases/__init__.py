"""Commands that release figures of rows, without training."""
