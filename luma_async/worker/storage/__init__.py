"""Results: which one counts, how they are stored, read and waited for."""
