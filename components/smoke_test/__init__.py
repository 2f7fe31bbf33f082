"""What the endpoint must answer before an update is done: `python -m components.smoke_test`."""
