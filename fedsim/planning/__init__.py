"""From a scenario and a seed to who takes part, with how much noise, and what goes wrong.

All of it is public, and known before training.
"""
