"""Students: variants trained to stand in for a frozen teacher's self-attention."""
