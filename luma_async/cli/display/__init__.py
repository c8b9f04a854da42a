"""What a command shows: a live table, lines of JSON, an HTML report."""
