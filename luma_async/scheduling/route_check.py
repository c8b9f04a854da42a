"""Whether a base URL leads to no relay: every response so far said that there is no such route.

Once a request was answered otherwise, the base URL is right, and "no such route" is an outage.
"""

MAX_WITHOUT_ROUTE = 60.0  # seconds


class RouteCheck:
    """Count the responses of a host that has neither of the two endpoints."""

    __slots__ = ("_endpoints", "_is_right", "_since")

    def __init__(self) -> None:
        self._is_right = False
        self._endpoints: set[bool] = set()
        self._since: float | None = None

    @property
    def has_neither(self) -> bool:
        """Whether both endpoints were tried, and no request was answered otherwise."""
        return len(self._endpoints) == 2

    def record_response(self) -> None:
        """Record that the relay answered: the base URL is right."""
        self._is_right = True
        self.reset()

    def record_no_route(self, *, batch_endpoint: bool, now: float) -> bool:
        """Record that an endpoint is not there. Return whether that has lasted for too long."""
        if self._is_right:
            return False
        self._endpoints.add(batch_endpoint)
        self._since = now if self._since is None else self._since
        return self.has_neither and now >= self._since + MAX_WITHOUT_ROUTE

    def reset(self) -> None:
        """Begin again, after an error of another kind or after all waits were aborted."""
        self._endpoints.clear()
        self._since = None
