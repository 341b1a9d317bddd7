"""Secure aggregation in runs: its steps as messages, the site's side and the server's.

A round has four exchanges (``fedsim.flower.records.STAGES``): the sites' keys, shares of their secrets for one another,
the training, which ends in a masked vector, and the shares that take the masks off the sum. The protocol itself is
``fedsim.privacy.secure_aggregation``.
"""
