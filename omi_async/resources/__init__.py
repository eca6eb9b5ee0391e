"""The API's resources: method calls to requests."""
