"""Links a name to its documentation: `luma_async.scheduling.pace.Every` to `luma_async.Every`."""

from typing import Any

HOUSES = ("luma_async", "luma_async.testing", "luma_async.worker")


def resolve(app: Any, env: Any, node: Any, text: Any) -> Any:
    """Look a name up under each public module."""
    if node.get("refdomain") != "py":
        return None
    name = node["reftarget"].rpartition(".")[2]
    domain = env.get_domain("py")
    for house in HOUSES:
        full = f"{house}.{name}"
        if full in domain.objects and full != node["reftarget"]:
            return domain.resolve_xref(
                env, node["refdoc"], app.builder, node["reftype"], full, node, text
            )
    return None


def setup(app: Any) -> dict[str, bool]:
    """Join the build."""
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True}
