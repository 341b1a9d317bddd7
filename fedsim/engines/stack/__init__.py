"""Training of many sites as one stack of models, by batched tensor operations."""
