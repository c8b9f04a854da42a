"""Recording what a relay answers: each distinct shape of response once, without secrets."""
