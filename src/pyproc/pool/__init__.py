"""Lends workers to calls: one core of admission and typing of outcomes, a blocking face and an asyncio face."""
