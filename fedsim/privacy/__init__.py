"""Differential privacy: accounting, and the ledger of what was released."""
