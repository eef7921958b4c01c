"""What is decided before anything is made: settings, targets, a row for each output."""
