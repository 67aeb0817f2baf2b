"""What monitoring shows and takes: objectives, traces, alert rules, a dashboard."""
