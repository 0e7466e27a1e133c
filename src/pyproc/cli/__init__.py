"""The command line: arguments to public calls, results and errors to text or one JSON document."""
