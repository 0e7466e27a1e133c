"""What is said between a supervisor and one worker before calls: the handshake."""
