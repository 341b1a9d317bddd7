"""How strong an epsilon is, in words: Ponomareva et al., "How to DP-fy ML", JAIR 77, 2023, section 5.2."""

WEAK = 10.0  # above it begins their third tier, "weak to no formal privacy guarantees"


def caution(epsilon: float) -> str:
    """Return what must be said beside an epsilon that promises little; nothing beside others."""
    return f"an epsilon above {WEAK:g} is a weak formal guarantee" if epsilon > WEAK else ""
