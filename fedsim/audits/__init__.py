"""Audits: attacks run on purpose, and what they prove about epsilon."""
