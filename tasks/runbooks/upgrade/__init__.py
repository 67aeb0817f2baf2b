"""The steps of Runbook 2: a version compared with those in use, and taken by each governor."""
