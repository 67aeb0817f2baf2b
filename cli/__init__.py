"""People in: the ``ggen`` command."""
