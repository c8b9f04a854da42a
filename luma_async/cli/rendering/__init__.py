"""Prompts to videos: the file of prompts, the journal, and what is left to do."""
