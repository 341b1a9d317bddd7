"""The steps of one site in one round."""
