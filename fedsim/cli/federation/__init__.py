"""Commands for federations of several machines: apps of Flower's, and deployments at real sites."""
