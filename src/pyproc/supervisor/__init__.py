"""Keeps workers alive: boots zygotes, forks and attests workers, ends late calls, types every death by kernel evidence."""
