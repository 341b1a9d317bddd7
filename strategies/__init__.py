"""Aggregation strategies, one file each: ``fedavg.py`` holds class ``FedAvg``."""
