"""What an import remembers, so that it can go on after it was stopped or killed."""
