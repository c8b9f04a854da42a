"""The asyncio half: sends requests, receives responses, wakes those who wait."""
