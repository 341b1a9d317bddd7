"""Commands that decide by many trainings: ``fedsim sweep`` and ``fedsim tune``."""
