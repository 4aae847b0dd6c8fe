"""The page in the browser, the HTTP API and the metrics. Knows the daemon only as a `View`."""
