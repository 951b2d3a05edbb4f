"""What each command is asked to do, as one checked value per command."""
