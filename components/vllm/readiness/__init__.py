"""When a server is ready, and why one is not: plan, decision, wait, and the reader of its logs."""
