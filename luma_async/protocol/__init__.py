"""What relays send and are sent: requests as bytes, responses as values. Pure."""
