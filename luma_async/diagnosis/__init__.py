"""What a relay does: questions to ask it, and what follows from its answers."""
