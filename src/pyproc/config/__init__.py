"""What an operator may set: units and options, validated before anything starts. Knows no kernel and starts nothing."""
