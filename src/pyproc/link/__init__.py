"""The channel between a supervisor and one worker."""
