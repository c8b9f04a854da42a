"""Whether a base URL leads to no relay: every response so far said that there is no such route.

Once a request was answered otherwise, the base URL is right, and "no such route" is an outage.
"""

MAX_WITHOUT_ROUTE = 60.0  # seconds


class RouteCheck:
    """Count the responses of a host that has neither of the two endpoints."""

    __slots__ = ("_endpoints", "_is_right", "_since")

    def __init__(self) -> None:
        self._is_right = False
        self._endpoints: dict[bool, bool] = {}
        self._since: float | None = None

    @property
    def has_neither(self) -> bool:
        """Whether both endpoints were tried, and no request was answered otherwise."""
        return len(self._endpoints) == 2

    def record_response(self) -> None:
        """Record that the relay answered: the base URL is right."""
        self._is_right = True
        self.reset()

    def record_no_route(
        self, *, batch_endpoint: bool, now: float, is_certain: bool = False
    ) -> bool:
        """Record that an endpoint is not there. Return whether the base URL is wrong.

        It is if both endpoints are missing: at once if that `is_certain` for both, else after
        `MAX_WITHOUT_ROUTE` seconds, since a proxy says the same while a relay starts.
        """
        if self._is_right:
            return False
        self._endpoints[batch_endpoint] = is_certain
        self._since = now if self._since is None else self._since
        is_over = all(self._endpoints.values()) or now >= self._since + MAX_WITHOUT_ROUTE
        return self.has_neither and is_over

    def reset(self) -> None:
        """Begin again, after an error of another kind or after all waits were aborted."""
        self._endpoints.clear()
        self._since = None
