"""Runs whose sites train at nodes of Flower's: Ray's actors, SuperNodes, or whatever ``flwr run`` starts them on."""
