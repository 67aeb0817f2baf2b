"""What Runbook 3 is made of."""
