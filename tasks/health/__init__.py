"""The life of an outage: noticed, refused, healed, told."""
