"""When a call may go: the fixed windows of the server, and who waits for them."""
