"""What the report says of the models of scikit-learn beside the arms."""
