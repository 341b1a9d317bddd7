"""The training of one site in one round."""
