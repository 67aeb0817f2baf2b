"""The commands of ``ggen``, by what they are about."""
