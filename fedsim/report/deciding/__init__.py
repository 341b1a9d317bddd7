"""The first screen of a report, and the answers for a data-protection officer."""
