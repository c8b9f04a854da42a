"""What a command is given: ids, a relay, a queue, numbers and times."""
