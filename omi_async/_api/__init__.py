"""What the API says: requests as values, answers to values or errors. Pure: nothing here does I/O."""
