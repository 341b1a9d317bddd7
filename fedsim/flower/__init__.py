"""Everything that speaks Flower: messages, rounds, adapters, secure aggregation."""
