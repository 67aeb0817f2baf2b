"""What an operator sees at a glance: ``ggen status``."""
