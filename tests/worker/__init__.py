"""The workers, on a real nats-server."""
