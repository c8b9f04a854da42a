"""Videos to files: one transfer, several at the same time, resumed after an interruption."""
