"""Videos to files: one transfer, several at a time, resumed where one was interrupted."""
