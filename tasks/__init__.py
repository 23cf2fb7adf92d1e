"""When a step fails: retries, timeouts, progress; one thin task a step."""
