"""How the world answers: one file per technology, opened by ``adapters.wiring`` alone."""
