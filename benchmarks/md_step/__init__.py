"""What one MD step costs, side by side with a function written by hand."""
