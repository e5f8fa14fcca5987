"""Runs that are one program: members."""
