"""What the report says of the features that drive the models."""
