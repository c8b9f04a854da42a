"""How many examples a property is tried with: the same ones in each run, or more of them.

    pytest                                    # the same examples each time
    pytest --hypothesis-profile=thorough      # the same, six times as many (.ci/run)
    pytest --hypothesis-profile=search        # random ones, six times as many

No profile has a deadline: how long an example takes depends on the machine.
"""

from hypothesis import settings

MANY = ("thorough", "search")


def load_profiles() -> None:
    """Register the profiles, and load the one for each run."""
    settings.register_profile("steady", deadline=None, derandomize=True, database=None)
    settings.register_profile("thorough", settings.get_profile("steady"))
    settings.register_profile("search", deadline=None, print_blob=True)
    settings.load_profile("steady")


def examples(count: int) -> int:
    """Return how many examples to try where `count` are enough for each run."""
    return 6 * count if settings.get_current_profile_name() in MANY else count
