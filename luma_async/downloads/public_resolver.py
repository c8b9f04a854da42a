"""Resolve the hosts of links to public addresses only.

aiohttp connects to the addresses that its resolver returns, and to no others. So the address that
is checked here is the one that is used: a name that resolves differently a second time (DNS
rebinding) is checked a second time.
"""

from collections.abc import Collection
from socket import AF_INET, AddressFamily

from aiohttp.abc import AbstractResolver, ResolveResult

from luma_async.downloads import links
from luma_async.downloads.addresses import may_connect
from luma_async.resolver import new_resolver


class PublicResolver(AbstractResolver):
    """Resolves host names to public addresses only, except for the `allowed` hosts."""

    def __init__(self, allowed: Collection[str]) -> None:
        self._allowed = allowed
        self._resolver = new_resolver()

    async def resolve(
        self, host: str, port: int = 0, family: AddressFamily = AF_INET
    ) -> list[ResolveResult]:
        """Return the public addresses of a host; raise DownloadError if it has none."""
        found = await self._resolver.resolve(host, port, family)
        if not found or links.is_allowed(host, self._allowed):
            return found
        public = [result for result in found if may_connect(host, result["host"])]
        if not public:
            raise links.private_host_error(host, found[0]["host"])
        return public

    async def close(self) -> None:
        """Close the resolver."""
        await self._resolver.close()
