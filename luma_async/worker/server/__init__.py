"""The NATS server of a pool: connections to it, its streams, and a private one."""
