"""Attacks, one file each: ``sign_flip.py`` holds class ``SignFlip``, the attack ``sign-flip``."""
