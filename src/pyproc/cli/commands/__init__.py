"""One file for each verb, imported when it is used."""
