"""Commands that hand models on, and predict with them."""
