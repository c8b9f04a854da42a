"""Which ids are polled next, in which request, and when. Pure: `now` is an argument."""
