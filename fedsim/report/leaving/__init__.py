"""What leaves each site: every kind of message, from the messages that were counted while they passed."""
