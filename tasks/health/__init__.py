"""The life of an outage: detection, refusal of new work, recovery, reports."""
